"""Cohere's second API: chat, embed, rerank.

Sources: docs.cohere.com/v2/reference/chat, …/embed, …/rerank,
…/reference/errors, …/docs/rate-limits, and the types of the `cohere` package (`types/`, `v2/types/`).
"""

import math
import uuid
from base64 import b64encode
from collections.abc import Iterator, Mapping
from struct import pack
from typing import Any, Final

import orjson

from broker.simulate import samples
from broker.simulate.answers import REFUSAL, Answer, Ending, Tools, Wanted
from broker.simulate.api import Api, Body, Failure, Job, Limits, Refused, Sent, bearer, refuse, route, sse
from broker.simulate.cohere_shapes import CHAT, EMBED, RERANK
from broker.simulate.shapes import Wrong, struct

FINISHES: Final = {Ending.STOP: "COMPLETE", Ending.SEQUENCE: "STOP_SEQUENCE", Ending.LENGTH: "MAX_TOKENS",
                   Ending.CALLS: "TOOL_CALL", Ending.REFUSAL: "COMPLETE", Ending.FILTERED: "ERROR"}  # fmt: skip
STATUSES: Final = {"policy": 498, "quota": 402, "overloaded": 503}
"""The package's error classes: `InvalidTokenError` is 498, `TooManyRequestsError` 429 and so on."""
NUMBERS: Final = 8


def phrase(wrong: Wrong) -> Refused:
    """Word a broken rule."""
    place = ".".join(str(step) for step in wrong.place)
    match wrong.rule:
        case "unknown":
            told = f"unknown field: parameter '{place}' is not a valid field"
        case "missing":
            told = f"invalid request: {place} is required"
        case "type":
            told = f"invalid type: parameter {place} should be of type {wrong.expected}."
        case "value":
            allowed = ", ".join(map(str, wrong.expected))
            told = f"invalid request: {place} must be one of [{allowed}], received '{wrong.got}'"
        case "low" | "high":
            told = f"invalid request: {place} must be {'>=' if wrong.rule == 'low' else '<='} {wrong.expected:g}"
        case _:
            told = f"invalid request: {place}: {wrong.rule} ({wrong.expected})"
    return Refused(told, param=place)


def fail(refused: Refused) -> Failure:
    """Write an error: an id and a message, and no type."""
    status = STATUSES.get(refused.reason, refused.status)
    headers = {"retry-after": str(math.ceil(refused.wait))} if refused.wait > 0 else {}
    return Failure(status, {"id": str(uuid.uuid4()), "message": refused.message}, headers)


def limit_headers(limits: Limits) -> Mapping[str, str]:
    """Tell the limit of a trial key as its headers do; of tokens nothing is told."""
    if limits.rpm is None:
        return {}
    return {
        "x-trial-endpoint-call-limit": str(limits.rpm),
        "x-trial-endpoint-call-remaining": str(limits.requests_left),
        "x-endpoint-monthly-call-limit": "1000000",
    }


def context(tokens: int, window: int) -> Refused:
    """Word a prompt that is too long."""
    return Refused(
        f"too many tokens: total number of tokens in the request exceeds the limit of {window}: received {tokens}. Try "
        "using shorter or fewer inputs.",
        "context",
    )


def _error_event(failure: Failure) -> bytes:
    """End a stream as the API does where a generation fails: finish reason `ERROR`, and what went wrong."""
    body = failure.body
    told = body["message"] if isinstance(body, dict) else ""
    return sse({"type": "message-end", "delta": {"finish_reason": "ERROR", "error": told}}, "message-end")


COHERE: Final = Api(
    name="cohere",
    phrase=phrase,
    fail=fail,
    limits=limit_headers,
    context=context,
    error_event=_error_event,
    words={
        "auth": "invalid api token",
        "quota": "Please add or update your payment method at https://dashboard.cohere.com/billing?tab=payment to "
        "continue",
        "rate": "You are past the per minute request limit, please wait and try again later.",
        "model": "model '{model}' not found, make sure the correct model ID was used and that you have access to the "
        "model.",
        "policy": "blocked output: please adjust your prompt and try again",
        "overloaded": "service unavailable, please try again later",
        "server": "internal server error, this has been reported to our developers",
    },
)


def authorize(sent: Sent) -> None:
    """Refuse a call without a key."""
    if bearer(sent) is None:
        raise Refused("no api key supplied", "auth")


def chat(sent: Sent) -> Job:
    """Check a chat request."""
    body: Body = sent.body()
    struct(CHAT, "model", "messages")(body, ())
    form = body.get("response_format") or {"type": "text"}
    if form["type"] == "json_object" and body.get("documents"):
        refuse("invalid request: response_format json_object is not supported with documents", "response_format")
    if form["type"] == "json_object" and body.get("tools"):
        refuse("invalid request: cannot specify both response_format and tools", "response_format")
    schema = form.get("json_schema") or {"type": "object", "properties": {"answer": {"type": "string"}}}
    thinking = body.get("thinking") or {"type": "disabled"}
    thinks = 0 if thinking["type"] == "disabled" else min(16, thinking.get("token_budget") or 16)
    wanted = Wanted(
        model=body["model"],
        prompt="".join(_texts(body["messages"])),
        most=body.get("max_tokens"),
        streams=body.get("stream") is True,
        tools=_tools(body),
        schema=schema if form["type"] == "json_object" else None,
        stop=body.get("stop_sequences") or (),
        reasoning=thinks,
    )
    logprobs = body.get("logprobs") is True
    return Job(wanted, lambda answer: _whole(answer, logprobs=logprobs), _stream)


def _texts(messages: list[Body]) -> Iterator[str]:
    calls: set[str] = set()
    for message in messages:
        for each in message.get("tool_calls") or []:
            calls.add(each["id"])
            yield _arguments(each)
        if message["role"] == "tool" and message["tool_call_id"] not in calls:
            refuse(f"invalid request: tool call id {message['tool_call_id']} not found in previous tool calls",
                   "messages")  # fmt: skip
        yield _text(message.get("content"))
    if messages[-1]["role"] not in {"user", "tool", "assistant"}:
        refuse("invalid request: the last message must be from the user or a tool", "messages")


def _arguments(each: Body) -> str:
    raw = str(each["function"]["arguments"])
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        refuse("invalid request: tool call arguments must be valid JSON", "messages")
    return raw


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text") or (part.get("document") or {}).get("data") or "") for part in content)
    return str(content or "")


def _tools(body: Body) -> Tools:
    offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in body.get("tools") or []}
    choice = body.get("tool_choice")
    if choice is not None and not offered:
        refuse("invalid request: tool_choice may only be specified with tools", "tool_choice")
    if choice == "NONE":
        return Tools()
    if choice == "REQUIRED":
        return Tools(offered, tuple(offered))
    last = body["messages"][-1]
    return Tools(offered, asked_in=_text(last.get("content")) if last["role"] == "user" else "")


def _usage(answer: Answer) -> dict[str, Any]:
    counts = {"input_tokens": answer.prompt_tokens, "output_tokens": answer.output_tokens}
    return {"billed_units": counts, "tokens": dict(counts), "cached_tokens": answer.plan.cached}


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {"id": f"{call.name}_{call.identity}", "type": "function",
         "function": {"name": call.name, "arguments": call.raw}}
        for call in answer.calls
    ]  # fmt: skip


def _said(answer: Answer) -> str:
    return REFUSAL if answer.ending in {Ending.REFUSAL, Ending.FILTERED} else answer.text


def _plan(answer: Answer) -> str:
    return f"I will call {', '.join(call.name for call in answer.calls)}."


def _whole(answer: Answer, *, logprobs: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    content: list[dict[str, Any]] = [{"type": "thinking", "thinking": answer.thought}] if answer.thought else []
    if answer.calls:
        message |= {"tool_calls": _calls(answer), "tool_plan": _plan(answer)}
    else:
        content.append({"type": "text", "text": _said(answer)})
    if content:
        message["content"] = content
    told: dict[str, Any] = {"id": str(uuid.UUID(answer.plan.identity.ljust(32, "0"))), "message": message,
                            "finish_reason": FINISHES[answer.ending], "usage": _usage(answer)}  # fmt: skip
    if logprobs:
        told["logprobs"] = [{"text": token, "token_ids": [at], "logprobs": [-0.1]}
                            for at, token in enumerate(samples.token_texts(answer.text))]  # fmt: skip
    return told


def _stream(answer: Answer) -> Iterator[bytes]:
    def event(kind: str, **fields: object) -> bytes:
        return sse({"type": kind, **fields}, kind)

    empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    yield event("message-start", id=str(uuid.UUID(answer.plan.identity.ljust(32, "0"))), delta={"message": empty})
    blocks = [("thinking", answer.thought)] if answer.thought else []
    if not answer.calls:
        blocks.append(("text", _said(answer)))
    for index, (kind, told) in enumerate(blocks):
        yield event("content-start", index=index, delta={"message": {"content": {"type": kind, kind: ""}}})
        for piece in answer.pieces(told):
            yield event("content-delta", index=index, delta={"message": {"content": {kind: piece}}})
        yield event("content-end", index=index)
    if answer.calls:
        for piece in samples.pieces(_plan(answer), 3):
            yield event("tool-plan-delta", delta={"message": {"tool_plan": piece}})
    for index, call in enumerate(_calls(answer)):
        opened = {**call, "function": {**call["function"], "arguments": ""}}
        yield event("tool-call-start", index=index, delta={"message": {"tool_calls": opened}})
        for piece in samples.pieces(call["function"]["arguments"], 4):
            change = {"tool_calls": {"function": {"arguments": piece}}}
            yield event("tool-call-delta", index=index, delta={"message": change})
        yield event("tool-call-end", index=index)
    yield event("message-end", delta={"finish_reason": FINISHES[answer.ending], "usage": _usage(answer)})


def embedded(count: int, numbers: int, kinds: list[str]) -> dict[str, Any]:
    """Return embeddings by type; Bedrock's Cohere models answer with the same."""
    made: dict[str, Any] = {}
    vectors = [samples.vector(numbers, index) for index in range(count)]
    for kind in kinds:
        if kind == "float":
            made[kind] = vectors
        elif kind == "base64":
            made[kind] = [b64encode(pack(f"<{numbers}f", *vector)).decode() for vector in vectors]
        else:
            size = numbers // 8 if "binary" in kind else numbers
            made[kind] = [[int(value * 100) for value in vector[:size]] for vector in vectors]
    return made


def embed(sent: Sent) -> Job:
    """Check a request for embeddings."""
    body: Body = sent.body()
    struct(EMBED, "model", "input_type")(body, ())
    given = [name for name in ("texts", "images", "inputs") if body.get(name)]
    if len(given) != 1:
        refuse("invalid request: exactly one of texts, images or inputs must be specified", "texts")
    if given == ["images"] and body["input_type"] != "image":
        refuse("invalid request: input_type must be image where images are given", "input_type")
    items, kinds = body[given[0]], body.get("embedding_types") or ["float"]
    texts = [item if isinstance(item, str) else _text(item["content"]) for item in items]
    wanted = Wanted(body["model"], "".join(texts), generates=False)

    def whole(answer: Answer) -> dict[str, Any]:
        told = {
            "id": str(uuid.UUID(answer.plan.identity.ljust(32, "0"))), "response_type": "embeddings_by_type",
            "embeddings": embedded(len(items), body.get("output_dimension") or NUMBERS, kinds),
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": answer.prompt_tokens}},
        }  # fmt: skip
        return {**told, "texts": texts} if given == ["texts"] else told

    return Job(wanted, whole)


def rerank(sent: Sent) -> Job:
    """Check a request for a ranking."""
    body: Body = sent.body()
    struct(RERANK, "model", "query", "documents")(body, ())
    query, documents = body["query"], body["documents"]
    wanted = Wanted(body["model"], query + "".join(documents), generates=False)

    def whole(answer: Answer) -> dict[str, Any]:
        scored = [
            {"index": index, "relevance_score": samples.relevance(query, told)} for index, told in enumerate(documents)
        ]
        scored.sort(key=lambda each: -each["relevance_score"])
        units = -(-len(documents) // 100)
        return {"id": str(uuid.UUID(answer.plan.identity.ljust(32, "0"))), "results": scored[: body.get("top_n")],
                "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": units}}}  # fmt: skip

    return Job(wanted, whole)


ROUTES: Final = (
    route(COHERE, "/v2/chat", authorize, chat),
    route(COHERE, "/v2/embed", authorize, embed),
    route(COHERE, "/v2/rerank", authorize, rerank),
)
