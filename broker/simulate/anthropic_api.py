"""Anthropic's Messages, simulated. Sources: platform.claude.com/docs/en/api/messages, …/api/errors, …/streaming."""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from broker.simulate import samples
from broker.simulate.api import Body, Refused, Wanted, between, need, only, refuse
from broker.simulate.behaviour import tokens_of

KNOWN: Final = frozenset(
    {
        "model", "messages", "max_tokens", "cache_control", "container", "inference_geo", "metadata", "output_config",
        "service_tier", "stop_sequences", "stream", "system", "temperature", "thinking", "tool_choice", "tools",
        "top_k",
        "top_p",
    }
)  # fmt: skip
BLOCKS: Final = {
    "user": frozenset({"text", "image", "document", "tool_result", "search_result"}),
    "assistant": frozenset({"text", "tool_use", "thinking", "redacted_thinking"}),
}
KINDS: Final = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
                404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 500: "api_error",
                529: "overloaded_error"}  # fmt: skip
LEAST_BUDGET: Final = 1024


def authorized(headers: Mapping[str, str]) -> None:
    """Refuse a call without a key or without a version."""
    if not headers.get("x-api-key"):
        raise Refused(401, "x-api-key header is required", KINDS[401])
    if not headers.get("anthropic-version"):
        refuse("anthropic-version: header is required")


def messages(body: Body) -> Wanted:
    """Check a request and say what it wants."""
    only(body, KNOWN)
    model, most, turns = need(body, "model", str), need(body, "max_tokens", int), need(body, "messages", list)
    if most < 1 or not turns:
        refuse("max_tokens: at least 1, and messages: at least one message are required")
    between(body, "temperature", 0, 1)
    between(body, "top_p", 0, 1)
    open_calls: set[str] = set()
    prompt = [_system(body)]
    for index, turn in enumerate(turns):
        prompt.append(_turn(turn, f"messages.{index}.", open_calls))
    if turns[0]["role"] != "user" or open_calls:
        refuse("messages: the first must be the user's, and every tool_use needs its tool_result in the next message")
    _thinking(body, most)
    return Wanted(model, "".join(prompt), most, body.get("stream") is True, _forced(body), _schema(body))


def _system(body: Body) -> str:
    system = body.get("system") or ""
    if isinstance(system, str):
        return system
    return "".join(need(block, "text", str, "system.") for block in system)


def _turn(turn: object, where: str, open_calls: set[str]) -> str:
    if not isinstance(turn, dict) or turn.get("role") not in BLOCKS:
        refuse(f"{where}role: Input should be 'user' or 'assistant'", f"{where}role")
    content = turn.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list) or not content:
        refuse(f"{where}content: at least one block is required", f"{where}content")
    texts = []
    answered = {block.get("tool_use_id") for block in content if block.get("type") == "tool_result"}
    if turn["role"] == "user":
        if answered != open_calls:
            refuse(f"{where}content: `tool_use` ids and `tool_result` blocks do not match", f"{where}content")
        open_calls.clear()
    for block in content:
        kind = block.get("type")
        if kind not in BLOCKS[turn["role"]]:
            refuse(f"{where}content: Input tag {kind!r} is not expected here", f"{where}content")
        if kind == "text" and not need(block, "text", str, where).strip():
            refuse("messages: text content blocks must contain non-whitespace text", f"{where}content")
        if kind == "tool_use":
            need(block, "input", dict, where)
            open_calls.add(need(block, "id", str, where))
        texts.append(str(block.get("text", "")))
    return "".join(texts)


def _thinking(body: Body, most: int) -> None:
    thinking = body.get("thinking")
    if not isinstance(thinking, dict) or thinking.get("type") != "enabled":
        return
    budget = need(thinking, "budget_tokens", int, "thinking.")
    if budget < LEAST_BUDGET or budget >= most:
        refuse("thinking.budget_tokens: at least 1024 and less than max_tokens", "thinking.budget_tokens")
    if body.get("temperature", 1) != 1 or (body.get("tool_choice") or {}).get("type") in {"any", "tool"}:
        refuse("thinking: neither a temperature nor a forced tool is allowed with it", "thinking")


def _forced(body: Body) -> tuple[str, Mapping[str, Any]] | None:
    offered = {
        need(tool, "name", str, "tools."): need(tool, "input_schema", dict, "tools.")
        for tool in body.get("tools") or []
    }
    choice = body.get("tool_choice") or {"type": "auto"}
    if choice["type"] in {"auto", "none"}:
        return None
    name = choice.get("name") if choice["type"] == "tool" else next(iter(offered), None)
    if name not in offered:
        refuse(f"tool_choice: Tool {name!r} not found in provided tools", "tool_choice")
    return str(name), offered[name]


def _schema(body: Body) -> Mapping[str, Any] | None:
    told = (body.get("output_config") or {}).get("format")
    return None if told is None else dict(need(told, "schema", dict, "output_config.format."))


def message(wanted: Wanted, output: int) -> dict[str, Any]:
    """Return an answer of `output` tokens."""
    told = min(output, wanted.most or output)
    text = samples.text(told) if wanted.schema is None else orjson.dumps(samples.fitting(wanted.schema)).decode()
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    stop = "max_tokens" if told < output else "end_turn"
    if wanted.tool is not None:
        name, schema = wanted.tool
        use = {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:24]}", "name": name}
        content, stop = [{**use, "input": samples.fitting({"type": "object", **schema})}], "tool_use"
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}", "type": "message", "role": "assistant", "model": wanted.model,
        "content": content, "stop_reason": stop, "stop_sequence": None,
        "usage": {"input_tokens": tokens_of(wanted.prompt), "cache_creation_input_tokens": 0,
                  "cache_read_input_tokens": 0, "output_tokens": told, "service_tier": "standard"},
    }  # fmt: skip


def stream(wanted: Wanted, output: int) -> Iterator[bytes]:
    """Yield the events of a streamed answer."""
    whole = message(wanted, output)
    usage = whole["usage"]

    def event(kind: str, **fields: object) -> bytes:
        return f"event: {kind}\n".encode() + b"data: %s\n\n" % orjson.dumps({"type": kind, **fields})

    started = {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield event("message_start", message=started)
    yield event("ping")
    for index, block in enumerate(whole["content"]):
        if block["type"] == "text":
            empty: dict[str, Any] = {"type": "text", "text": ""}
            name, kind, told = "text", "text_delta", block["text"]
        else:
            empty, name, kind = {**block, "input": {}}, "partial_json", "input_json_delta"
            told = orjson.dumps(block["input"]).decode()
        yield event("content_block_start", index=index, content_block=empty)
        for piece in samples.pieces(told, output):
            yield event("content_block_delta", index=index, delta={"type": kind, name: piece})
        yield event("content_block_stop", index=index)
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield event("message_delta", delta=ended, usage={"output_tokens": usage["output_tokens"]})
    yield event("message_stop")


def failure(refused: Refused) -> dict[str, Any]:
    """Return the body of an error."""
    kind = KINDS.get(refused.status, "api_error")
    return {
        "type": "error",
        "error": {"type": kind, "message": refused.message},
        "request_id": f"req_{uuid.uuid4().hex}",
    }
