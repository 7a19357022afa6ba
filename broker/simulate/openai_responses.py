"""OpenAI's responses.

Sources: platform.openai.com/docs/api-reference/responses and …/responses-streaming, and the types of
the `openai` package (`types/responses`).
"""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, Final

from broker.simulate import samples
from broker.simulate.answers import REFUSAL, Answer, Ending, Tools, Wanted
from broker.simulate.api import Api, Body, Job, Sent, refuse, route, sse
from broker.simulate.openai_chat import EFFORT_TOKENS, is_strict
from broker.simulate.openai_shapes import EFFORTS, TIERS, image_url
from broker.simulate.openai_shapes import name as function_name
from broker.simulate.openai_words import OPENAI, authorize
from broker.simulate.shapes import (
    FILLED,
    TEXT,
    Place,
    Shape,
    anything,
    base64_text,
    boolean,
    either,
    integer,
    listed,
    mapping,
    number,
    one_of,
    struct,
    tagged,
    text,
    texts_by_name,
)

SOUND: Final = struct({"data": base64_text, "format": one_of("wav", "mp3")}, "data", "format")
PART: Final = tagged(
    "type",
    {
        "input_text": struct({"type": TEXT, "text": TEXT, "prompt_cache_breakpoint": mapping}, "text"),
        "output_text": struct(
            {"type": TEXT, "text": TEXT, "annotations": listed(mapping), "logprobs": anything}, "text"
        ),
        "refusal": struct({"type": TEXT, "refusal": TEXT}, "refusal"),
        "input_image": struct(
            {"type": TEXT, "image_url": image_url, "file_id": TEXT, "detail": one_of("auto", "low", "high", "original"),
             "prompt_cache_breakpoint": mapping}
        ),
        "input_file": struct(
            {"type": TEXT, "file_id": TEXT, "filename": TEXT, "file_data": TEXT, "file_url": TEXT, "detail": TEXT,
             "prompt_cache_breakpoint": mapping}
        ),
        "input_audio": struct({"type": TEXT, "input_audio": SOUND}, "input_audio"),
    },
)  # fmt: skip
CONTENT: Final = either(TEXT, listed(PART, least=1))
STATUS: Final = one_of("in_progress", "completed", "incomplete")
ROLE: Final = one_of("user", "assistant", "system", "developer")
ITEMS: Final[Mapping[str, Shape]] = {
    "message": struct(
        {"type": TEXT, "role": ROLE, "content": CONTENT, "id": TEXT, "status": STATUS, "phase": TEXT}, "role", "content"
    ),
    "function_call": struct(
        {"type": TEXT, "id": TEXT, "call_id": TEXT, "name": function_name, "arguments": TEXT, "status": STATUS},
        *("call_id", "name", "arguments"),
    ),
    "function_call_output": struct(
        {"type": TEXT, "id": TEXT, "call_id": TEXT, "output": CONTENT, "status": STATUS}, "call_id", "output"
    ),
    "reasoning": struct(
        {"type": TEXT, "id": TEXT, "summary": listed(mapping), "content": listed(mapping), "encrypted_content": TEXT,
         "status": STATUS},
        *("id", "summary"),
    ),
    "item_reference": struct({"type": TEXT, "id": TEXT}, "id"),
}  # fmt: skip


def _item(value: object, place: Place) -> None:
    mapping(value, place)
    told: Any = value
    tagged("type", ITEMS)({**told, "type": told.get("type") or "message"}, place)


TOOL: Final = struct(
    {"type": one_of("function"), "name": function_name, "description": TEXT, "parameters": mapping, "strict": boolean},
    *("type", "name", "parameters"),
)
FORMAT: Final = tagged(
    "type",
    {
        "text": struct({"type": TEXT}),
        "json_object": struct({"type": TEXT}),
        "json_schema": struct(
            {"type": TEXT, "name": function_name, "schema": mapping, "strict": boolean, "description": TEXT},
            *("name", "schema"),
        ),
    },
)
RESPONSES: Final[Mapping[str, Shape]] = {
    "access_programs": anything,
    "background": boolean,
    "background_options": mapping,
    "context_management": anything,
    "conversation": anything,
    "image": mapping,
    "include": listed(TEXT),
    "input": either(TEXT, listed(_item, least=1)),
    "instructions": TEXT,
    "max_output_tokens": integer(16),
    "max_tool_calls": integer(1),
    "metadata": texts_by_name,
    "model": FILLED,
    "moderation": mapping,
    "parallel_tool_calls": boolean,
    "previous_response_id": TEXT,
    "prompt": mapping,
    "prompt_cache_key": TEXT,
    "prompt_cache_options": mapping,
    "prompt_cache_retention": one_of("in_memory", "in-memory", "24h"),
    "reasoning": struct(
        {"effort": one_of(*EFFORTS), "summary": one_of("auto", "concise", "detailed"), "context": TEXT, "mode": TEXT,
         "generate_summary": TEXT}
    ),
    "safety_identifier": TEXT,
    "service_tier": one_of(*TIERS),
    "store": boolean,
    "stream": boolean,
    "stream_options": struct({"include_obfuscation": boolean}),
    "temperature": number(0, 2),
    "text": struct({"format": FORMAT, "verbosity": one_of("low", "medium", "high")}),
    "tool_choice": either(
        one_of("none", "auto", "required"), struct({"type": one_of("function"), "name": function_name})
    ),
    "tools": listed(TOOL, most=128),
    "top_logprobs": integer(0, 20),
    "top_p": number(0, 1),
    "truncation": one_of("auto", "disabled"),
    "user": text(),
}  # fmt: skip
REQUEST: Final = struct(RESPONSES, "model", "input")
EMPTY: Final[Mapping[str, Mapping[str, Any]]] = {
    "message": {"content": []},
    "function_call": {"arguments": ""},
    "reasoning": {"summary": []},
}
"""Kind of an item → what it holds when it opens in a stream."""
SEALED: Final = "reasoning.encrypted_content"


def responses(sent: Sent) -> Job:
    """Check a request."""
    body: Body = sent.body()
    REQUEST(body, ())
    given = body["input"]
    items: list[Body] = [{"role": "user", "content": given}] if isinstance(given, str) else given
    texts = [str(body.get("instructions") or ""), *_texts(items)]
    form = (body.get("text") or {}).get("format") or {"type": "text"}
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}} if form["type"] == "json_object" else None
    if form["type"] == "json_schema":
        schema = form["schema"]
        if form.get("strict"):
            is_strict(schema, form["name"])
    wanted = Wanted(
        model=body["model"],
        prompt="".join(texts),
        most=body.get("max_output_tokens"),
        streams=body.get("stream") is True,
        tools=_tools(body, items),
        schema=schema,
        reasoning=EFFORT_TOKENS[(body.get("reasoning") or {}).get("effort") or "none"],
    )
    return Job(wanted, lambda answer: _response(answer, body), lambda answer: _stream(answer, body))


def _texts(items: list[Body]) -> Iterator[str]:
    calls: set[str] = set()
    for index, item in enumerate(items):
        kind = item.get("type") or "message"
        if kind == "function_call":
            calls.add(item["call_id"])
        elif kind == "function_call_output" and item["call_id"] not in calls:
            refuse(f"No tool call found for function call output with call_id {item['call_id']}.", "input")
        elif kind == "reasoning" and item.get("encrypted_content") is not None:
            thought = "".join(str(part.get("text", "")) for part in item["summary"])
            if not samples.is_signed(thought, item["encrypted_content"]):
                refuse(
                    f"The encrypted content for item {item['id']} could not be verified.",
                    f"input[{index}].encrypted_content",
                    "invalid_encrypted_content",
                )
        yield _text(item.get("content") or item.get("output"))


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return "" if content is None else str(content)


def _tools(body: Body, items: list[Body]) -> Tools:
    offered = {tool["name"]: tool.get("parameters") or {} for tool in body.get("tools") or []}
    choice, parallel = body.get("tool_choice") or "auto", body.get("parallel_tool_calls") is not False
    if isinstance(choice, dict):
        if choice.get("name") not in offered:
            refuse(f"Tool choice 'function' named {choice.get('name')} not found in 'tools' parameter.", "tool_choice")
        return Tools(offered, (choice["name"],), parallel=False)
    if choice == "required":
        if not offered:
            refuse("Tool choice 'required' must be specified with 'tools' parameter.", "tool_choice")
        return Tools(offered, tuple(offered), parallel)
    asked = _text(items[-1].get("content")) if items and items[-1].get("role") == "user" else ""
    return Tools() if choice == "none" else Tools(offered, (), parallel, asked)


def _output(answer: Answer, body: Body) -> list[dict[str, Any]]:
    identity = answer.plan.identity
    output: list[dict[str, Any]] = []
    if answer.thought:
        summarized = (body.get("reasoning") or {}).get("summary") is not None
        shown = answer.thought if summarized else ""
        summary = [{"type": "summary_text", "text": shown}] if summarized else []
        item: dict[str, Any] = {"id": f"rs_{identity}", "type": "reasoning", "summary": summary}
        if SEALED in (body.get("include") or []):
            item["encrypted_content"] = samples.signature(shown)
        output.append(item)
    output += [
        {"type": "function_call", "id": f"fc_{call.identity}", "call_id": f"call_{call.identity}", "name": call.name,
         "arguments": call.raw, "status": "completed"}
        for call in answer.calls
    ]  # fmt: skip
    if not answer.calls:
        part: dict[str, Any] = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
        if answer.ending in {Ending.REFUSAL, Ending.FILTERED}:
            part = {"type": "refusal", "refusal": REFUSAL}
        status = "incomplete" if answer.ending is Ending.LENGTH else "completed"
        output.append(
            {"id": f"msg_{identity}", "type": "message", "role": "assistant", "status": status, "content": [part]}
        )
    return output


def _response(answer: Answer, body: Body, status: str | None = None) -> dict[str, Any]:
    short = answer.ending is Ending.LENGTH
    done = status is None
    prompt, told = answer.prompt_tokens, answer.output_tokens
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": answer.plan.cached, "cache_write_tokens": 0},
        "output_tokens": told, "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
        "total_tokens": prompt + told,
    }  # fmt: skip
    tier = body.get("service_tier")
    return {
        "id": f"resp_{answer.plan.identity}", "object": "response", "created_at": answer.plan.created,
        "status": status or ("incomplete" if short else "completed"), "background": False, "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if short and done else None,
        "instructions": body.get("instructions"), "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {}, "model": answer.wanted.model,
        "output": _output(answer, body) if done else [],
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False, "previous_response_id": None,
        "reasoning": {"effort": (body.get("reasoning") or {}).get("effort"), "summary": None},
        "service_tier": "default" if tier in {None, "auto"} else tier, "store": body.get("store") is not False,
        "temperature": 1.0 if body.get("temperature") is None else body["temperature"],
        "text": {"format": {"type": "text"}, **(body.get("text") or {})},
        "tool_choice": body.get("tool_choice") or "auto", "tools": body.get("tools") or [],
        "top_p": 1.0 if body.get("top_p") is None else body["top_p"],
        "truncation": body.get("truncation") or "disabled",
        "usage": usage if done else None, "user": body.get("user"),
    }  # fmt: skip


def _stream(answer: Answer, body: Body) -> Iterator[bytes]:
    numbers = count()

    def event(kind: str, **fields: object) -> bytes:
        return sse({"type": kind, "sequence_number": next(numbers), **fields}, kind)

    whole = _response(answer, body)
    yield event("response.created", response=_response(answer, body, "in_progress"))
    yield event("response.in_progress", response=_response(answer, body, "in_progress"))
    for index, item in enumerate(whole["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        empty = EMPTY[item["type"]]
        opened = {**item, **empty, **({} if item["type"] == "reasoning" else {"status": "in_progress"})}
        yield event("response.output_item.added", output_index=index, item=opened)
        for kind, fields in _inner(answer, item):
            yield event(kind, **place, **fields)
        yield event("response.output_item.done", output_index=index, item=item)
    ended = "response.incomplete" if whole["status"] == "incomplete" else "response.completed"
    yield event(ended, response=whole)


def _inner(answer: Answer, item: Body) -> Iterator[tuple[str, dict[str, Any]]]:
    if item["type"] == "function_call":
        for piece in samples.pieces(item["arguments"], 4):
            yield "response.function_call_arguments.delta", {"delta": piece}
        yield "response.function_call_arguments.done", {"arguments": item["arguments"], "name": item["name"]}
    elif item["type"] == "reasoning":
        for index, part in enumerate(item["summary"]):
            at: dict[str, Any] = {"summary_index": index}
            yield "response.reasoning_summary_part.added", {**at, "part": {**part, "text": ""}}
            for piece in answer.pieces(part["text"]):
                yield "response.reasoning_summary_text.delta", {**at, "delta": piece}
            yield "response.reasoning_summary_text.done", {**at, "text": part["text"]}
            yield "response.reasoning_summary_part.done", {**at, "part": part}
    else:
        (part,) = item["content"]
        name, kind = ("text", "output_text") if part["type"] == "output_text" else ("refusal", "refusal")
        logprobs: dict[str, Any] = {"logprobs": []} if name == "text" else {}
        first: dict[str, Any] = {"content_index": 0}
        yield "response.content_part.added", {**first, "part": {**part, name: ""}}
        for piece in answer.pieces(part[name]):
            yield f"response.{kind}.delta", {**first, "delta": piece, **logprobs}
        yield f"response.{kind}.done", {**first, name: part[name], **logprobs}
        yield "response.content_part.done", {**first, "part": part}


def routes_of(api: Api, base: str) -> tuple[Any, ...]:
    """Responses below a path."""
    return (route(api, f"{base}/responses", authorize, responses),)


ROUTES: Final = routes_of(OPENAI, "/v1")
