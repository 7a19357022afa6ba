"""OpenAI's chat completions and embeddings. Sources: platform.openai.com/docs/api-reference/chat and …/embeddings."""

import re
import struct as packing
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from broker.simulate import samples
from broker.simulate.answers import REFUSAL, Answer, Ending, Tools, Wanted
from broker.simulate.api import Api, Body, Job, Refused, Sent, refuse, route, sse
from broker.simulate.openai_shapes import EMBEDDINGS, REQUEST
from broker.simulate.openai_words import OPENAI, authorize
from broker.simulate.shapes import struct

EMBEDDING: Final = struct(EMBEDDINGS, "model", "input")
NUMBERS: Final = 8
"""Numbers of an embedding whose request says nothing of it."""
THINKERS: Final = re.compile(r"(?:o\d|gpt-5|gpt-6)")
NO_THINKERS: Final = re.compile(r"gpt-(?:4|3)")
EFFORT_TOKENS: Final = {"none": 0, "minimal": 4, "low": 8, "medium": 16, "high": 32, "xhigh": 64, "max": 64}
FINISHES: Final = {
    Ending.STOP: "stop", Ending.SEQUENCE: "stop", Ending.LENGTH: "length", Ending.CALLS: "tool_calls",
    Ending.REFUSAL: "stop", Ending.FILTERED: "content_filter",
}  # fmt: skip


def chat(sent: Sent, body: Body) -> Job:
    """Check a chat request."""
    del sent
    REQUEST(body, ())
    _fits_the_model(body)
    texts = _texts(body["messages"])
    stop = body.get("stop") or ()
    wanted = Wanted(
        model=body["model"],
        prompt="".join(texts),
        most=body.get("max_completion_tokens") or body.get("max_tokens"),
        streams=body.get("stream") is True,
        tools=_tools(body),
        schema=_schema(body),
        choices=body.get("n") or 1,
        stop=[stop] if isinstance(stop, str) else stop,
        reasoning=EFFORT_TOKENS[body.get("reasoning_effort") or "none"],
    )
    top = (body.get("top_logprobs") or 0) if body.get("logprobs") else None
    counts = (body.get("stream_options") or {}).get("include_usage") is True
    tier = body.get("service_tier")
    tier = "default" if tier in {None, "auto"} else str(tier)
    if "audio" in (body.get("modalities") or []):
        return Job(
            replace(wanted, streams=False, choices=1), lambda answer: spoken(completion(answer, top, tier), answer)
        )
    return Job(
        wanted,
        lambda answer: completion(answer, top, tier),
        lambda answer: stream(answer, top, tier, counts=counts),
    )


def _fits_the_model(body: Body) -> None:
    """Refuse what a model of this name does not take (guides/reasoning, "Limitations")."""
    model = body["model"]
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        refuse("Invalid 'top_logprobs': 'logprobs' must be set to true to use it.", "top_logprobs", "invalid_value")
    if "audio" in (body.get("modalities") or []) and body.get("audio") is None:
        refuse("This model requires that the 'audio' parameter is set when audio is requested.", "audio")
    if "audio" in (body.get("modalities") or []) and body.get("stream"):
        refuse("The simulator does not stream sound: leave out 'stream' where audio is requested.", "stream")
    if body.get("stream_options") is not None and not body.get("stream"):
        refuse("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    if body.get("tools") is None and body.get("tool_choice") not in {None, "none"}:
        refuse("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
    if body.get("tools") is None and body.get("parallel_tool_calls") is not None:
        refuse("'parallel_tool_calls' is only allowed when 'tools' are specified.", "parallel_tool_calls")
    _fits_a_thinker(body, model)


def _fits_a_thinker(body: Body, model: str) -> None:
    if THINKERS.match(model):
        if body.get("max_tokens") is not None:
            refuse(
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
                "instead.",
                "max_tokens",
                "unsupported_parameter",
            )
        for name in ("temperature", "top_p"):
            if body.get(name) not in {None, 1} and "chat" not in model and body.get("reasoning_effort") != "none":
                refuse(
                    f"Unsupported value: '{name}' does not support {body[name]} with this model. Only the default (1) "
                    "value is supported.",
                    name,
                    "unsupported_value",
                )
    elif NO_THINKERS.match(model) and body.get("reasoning_effort") is not None:
        refuse("Unrecognized request argument supplied: reasoning_effort", "reasoning_effort", "unknown_parameter")


def _texts(messages: list[Body]) -> list[str]:
    texts, calls = [], set[str]()
    for index, message in enumerate(messages):
        if message["role"] == "tool" and message["tool_call_id"] not in calls:
            refuse(
                "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                "'tool_calls'.",
                f"messages[{index}].role",
            )
        if message["role"] == "tool":
            calls.discard(message["tool_call_id"])
        elif calls:
            refuse(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(calls)}",
                f"messages[{index}].role",
            )
        for call in message.get("tool_calls") or []:
            calls.add(call["id"])
            texts.append(_arguments(call, index))
        if message["role"] == "assistant" and not (
            message.get("content") or message.get("tool_calls") or message.get("refusal") or message.get("audio")
            or message.get("function_call") or message.get("content") == ""
        ):  # fmt: skip
            refuse("Invalid value for 'content': expected a string, got null.", f"messages[{index}].content")
        texts.append(_text(message.get("content"), index))
    if calls:
        refuse(f"tool_call_ids did not have response messages: {', '.join(sorted(calls))}", "messages")
    return texts


def _arguments(call: Body, index: int) -> str:
    raw = str((call.get("function") or {}).get("arguments", "{}"))
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        refuse("The arguments of a tool call are not valid JSON.", f"messages[{index}].tool_calls")
    return raw


def _text(content: object, index: int) -> str:
    if not isinstance(content, list):
        return "" if content is None else str(content)
    for number, part in enumerate(content):
        file = part.get("file")
        if file is not None and not (file.get("file_id") or (file.get("file_data") and file.get("filename"))):
            place = f"messages[{index}].content[{number}].file"
            refuse(f"Missing required parameter: '{place}.file_id', or file_data with a filename.", place)
    return "".join(str(part.get("text", "")) for part in content)


def _tools(body: Body) -> Tools:
    offered = {
        tool["function"]["name"]: tool["function"].get("parameters") or {}
        for tool in body.get("tools") or []
        if tool["type"] == "function"
    }
    choice = body.get("tool_choice") or "auto"
    parallel = body.get("parallel_tool_calls") is not False
    if choice == "none":
        return Tools()
    if choice == "required":
        return Tools(offered, tuple(offered), parallel)
    if isinstance(choice, dict) and "function" in choice:
        name = choice["function"]["name"]
        if name not in offered:
            refuse(f"Invalid value for 'tool_choice': no tool named '{name}' was specified in 'tools'.", "tool_choice")
        return Tools(offered, (name,), parallel=False)
    last = body["messages"][-1]
    return Tools(offered, (), parallel, _text(last.get("content"), -1) if last["role"] == "user" else "")


def _schema(body: Body) -> Mapping[str, Any] | None:
    wanted = body.get("response_format")
    if wanted is None or wanted["type"] == "text":
        return None
    if wanted["type"] == "json_object":
        if "json" not in orjson.dumps(body["messages"]).decode().lower():
            refuse("'messages' must contain the word 'json' in some form, to use 'response_format' of type "
                   "'json_object'.", "messages")  # fmt: skip
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    told = wanted["json_schema"]
    if told.get("strict"):
        is_strict(told["schema"], told["name"])
    return dict(told["schema"])


def is_strict(schema: Body, name: str) -> None:
    """Refuse what strict structured outputs do not take (guides/structured-outputs, "Supported schemas")."""
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        refuse(
            f"Invalid schema for response_format '{name}': In context=(), 'additionalProperties' is required to be "
            "supplied and to be false.",
            "response_format",
        )
    missing = set(schema.get("properties") or {}) - set(schema.get("required") or [])
    if missing:
        refuse(
            f"Invalid schema for response_format '{name}': In context=(), 'required' is required to be supplied and to "
            f"be an array including every key in properties. Missing '{min(missing)}'.",
            "response_format",
        )


def _logprobs(text: str, top: int | None) -> dict[str, Any] | None:
    if top is None:
        return None

    def one(token: str, rank: int) -> dict[str, Any]:
        return {"token": token, "logprob": round(-0.1 * (rank + 1), 4), "bytes": list(token.encode())}

    content = [
        {**one(token, 0), "top_logprobs": [one(token[rank:] or " ", rank) for rank in range(top)]}
        for token in samples.token_texts(text)
    ]
    return {"content": content, "refusal": None}


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{call.identity}", "type": "function", "function": {"name": call.name, "arguments": call.raw}}
        for call in answer.calls
    ]


def completion(answer: Answer, top: int | None, tier: str) -> dict[str, Any]:
    """Write a whole answer."""
    choices = []
    for index, text in enumerate(answer.texts):
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        if answer.ending in {Ending.REFUSAL, Ending.FILTERED}:
            message |= {"content": None, "refusal": REFUSAL}
        if answer.calls:
            message |= {"content": None, "tool_calls": _calls(answer)}
        choices.append(
            {
                "index": index,
                "message": message,
                "logprobs": _logprobs(text, top),
                "finish_reason": FINISHES[answer.ending],
            }
        )
    head = _head(answer, "chat.completion", tier)
    return {**head, "choices": choices, "usage": usage(answer)}


def spoken(told: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """Say an answer instead of writing it: a sound of silence, and its words as the transcript."""
    (choice,) = told["choices"]
    if choice["message"].get("content") is None:
        return told
    sound = {"id": f"audio_{answer.plan.identity}", "expires_at": answer.plan.created + 3600,
             "data": b64encode(samples.wav()).decode(), "transcript": choice["message"]["content"]}  # fmt: skip
    choice["message"] |= {"content": None, "audio": sound}
    told["usage"]["completion_tokens_details"]["audio_tokens"] = answer.output_tokens
    return told


def _head(answer: Answer, kind: str, tier: str) -> dict[str, Any]:
    plan = answer.plan
    return {"id": f"chatcmpl-{plan.identity}", "object": kind, "created": plan.created, "model": answer.wanted.model,
            "service_tier": tier, "system_fingerprint": "fp_simulated"}  # fmt: skip


def usage(answer: Answer) -> dict[str, Any]:
    """Count the tokens."""
    prompt, told = answer.prompt_tokens, answer.output_tokens
    return {
        "prompt_tokens": prompt, "completion_tokens": told, "total_tokens": prompt + told,
        "prompt_tokens_details": {"cached_tokens": answer.plan.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": answer.reasoning_tokens, "audio_tokens": 0, "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }  # fmt: skip


def stream(answer: Answer, top: int | None, tier: str, *, counts: bool) -> Iterator[bytes]:
    """Yield the events of a streamed answer."""
    head = _head(answer, "chat.completion.chunk", tier)
    more: dict[str, Any] = {"usage": None} if counts else {}

    def event(index: int, delta: Mapping[str, Any], reason: str | None = None, said: str = "") -> bytes:
        logprobs = _logprobs(said, top) if said else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return sse({**head, "choices": [choice], **more})

    refuses = answer.ending in {Ending.REFUSAL, Ending.FILTERED}
    for index, text in enumerate(answer.texts):
        empty = None if answer.calls or refuses else ""
        yield event(index, {"role": "assistant", "content": empty, "refusal": None})
        for number, call in enumerate(_calls(answer)):
            opened = {**call, "function": {**call["function"], "arguments": ""}}
            yield event(index, {"tool_calls": [{"index": number, **opened}]})
            for piece in samples.pieces(call["function"]["arguments"], 4):
                yield event(index, {"tool_calls": [{"index": number, "function": {"arguments": piece}}]})
        if refuses:
            for piece in answer.pieces(REFUSAL):
                yield event(index, {"refusal": piece})
        elif not answer.calls:
            for piece in answer.pieces(text):
                yield event(index, {"content": piece}, said=piece)
        yield event(index, {}, FINISHES[answer.ending])
    if counts:
        yield sse({**head, "choices": [], "usage": usage(answer)})
    yield b"data: [DONE]\n\n"


def embedding(sent: Sent, body: Body) -> Job:
    """Check an embeddings request."""
    del sent
    EMBEDDING(body, ())
    given = body["input"]
    inputs = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    count, packed = body.get("dimensions") or NUMBERS, body.get("encoding_format") == "base64"
    if body.get("dimensions") is not None and body["model"] == "text-embedding-ada-002":
        raise Refused("This model does not support specifying dimensions.", param="dimensions")
    wanted = Wanted(body["model"], "".join(str(each) for each in inputs), generates=False)

    def whole(answer: Answer) -> dict[str, Any]:
        data = []
        for index in range(len(inputs)):
            numbers: Any = samples.vector(count, index)
            if packed:
                numbers = b64encode(packing.pack(f"<{count}f", *numbers)).decode()
            data.append({"object": "embedding", "index": index, "embedding": numbers})
        tokens = {"prompt_tokens": answer.prompt_tokens, "total_tokens": answer.prompt_tokens}
        return {"object": "list", "data": data, "model": wanted.model, "usage": tokens}

    return Job(wanted, whole)


def with_model(job: Job, model: str) -> Job:
    """Return the job of another model: where the path names it."""
    return replace(job, wanted=replace(job.wanted, model=model))


def routes_of(api: Api, base: str) -> tuple[Any, ...]:
    """Chat and embeddings below a path."""
    return (
        route(api, f"{base}/chat/completions", authorize, lambda sent: chat(sent, sent.body())),
        route(api, f"{base}/embeddings", authorize, lambda sent: embedding(sent, sent.body())),
    )


ROUTES: Final = routes_of(OPENAI, "/v1")
