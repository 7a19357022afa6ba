"""Anthropic's Messages.

Sources: platform.claude.com/docs/en/api/messages, …/api/errors, …/api/rate-limits,
…/build-with-claude/streaming, …/extended-thinking, …/prompt-caching.
"""

import math
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from broker.simulate import samples
from broker.simulate.answers import REFUSAL, Answer, Ending, Tools, Wanted
from broker.simulate.anthropic_shapes import MOST_MARKERS, REQUEST
from broker.simulate.api import Api, Body, Failure, Job, Limits, Refused, Sent, bearer, refuse, route, sse
from broker.simulate.shapes import Wrong, dotted

KINDS: Final = {400: "invalid_request_error", 401: "authentication_error", 402: "billing_error",
                403: "permission_error", 404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
                500: "api_error", 504: "timeout_error", 529: "overloaded_error"}  # fmt: skip
STATUSES: Final = {"quota": 400, "unavailable": 529}
"""Reason → status, where Anthropic's is another than most have."""
STOPS: Final = {
    Ending.STOP: "end_turn", Ending.SEQUENCE: "stop_sequence", Ending.LENGTH: "max_tokens",
    Ending.CALLS: "tool_use", Ending.REFUSAL: "refusal", Ending.FILTERED: "refusal",
}  # fmt: skip
VERSIONS: Final = frozenset({"2023-01-01", "2023-06-01", "2026-10-21"})
"""Of api/versioning, and what the `anthropic` package sends."""
MOST_THOUGHT: Final = 64
"""Tokens the simulator thinks at most, whatever the budget."""


TYPES: Final = {"string": "a valid string", "integer": "a valid integer", "decimal": "a valid number",
                "boolean": "a valid boolean", "array": "a valid list", "object": "a valid dictionary"}  # fmt: skip
RULES: Final = {
    "unknown": "Extra inputs are not permitted",
    "missing": "Field required",
    "type": "Input should be {kind}",
    "value": "Input should be {allowed}",
    "low": "Input should be greater than or equal to {bound}",
    "high": "Input should be less than or equal to {bound}",
    "few": "List should have at least {bound} item after validation, not 0",
    "many": "List should have at most {bound} items after validation",
    "short": "String should have at least {bound} character",
    "long": "String should have at most {bound} characters",
    "form": "{bound}",
}


def phrase(wrong: Wrong) -> Refused:
    """Word a broken rule as the API's own validation does."""
    place, bound = dotted(wrong.place), wrong.expected
    if wrong.rule == "short" and place.endswith(".text"):
        return Refused("messages: text content blocks must be non-empty", param=place)
    allowed = [f"'{value}'" for value in bound] if isinstance(bound, tuple) else [""]
    listed = " or ".join(part for part in (", ".join(allowed[:-1]), allowed[-1]) if part)
    told = RULES[wrong.rule].format(bound=bound, kind=TYPES.get(str(bound), "valid"), allowed=listed)
    return Refused(f"{place}: {told}", param=place)


def fail(refused: Refused) -> Failure:
    """Write an error."""
    status = STATUSES.get(refused.reason, refused.status)
    kind = KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")  # noqa: PLR2004 - servers'
    identity = f"req_{uuid.uuid4().hex[:24]}"
    body = {"type": "error", "error": {"type": kind, "message": refused.message}, "request_id": identity}
    headers = {"retry-after": str(math.ceil(refused.wait))} if refused.wait > 0 else {}
    return Failure(status, body, {**headers, "x-should-retry": "true" if status in {429, 500, 529} else "false"})


def limit_headers(limits: Limits) -> Mapping[str, str]:
    """Tell what is left and when it is full again, as moments in RFC 3339."""
    headers: dict[str, str] = {}
    tpm, left, reset = limits.tpm, limits.tokens_left, limits.tokens_reset
    rows = (
        ("requests", limits.rpm, limits.requests_left, limits.requests_reset),
        ("tokens", tpm, left, reset),
        ("input-tokens", tpm, min(left, (tpm or 0) - limits.input_used), reset),
        ("output-tokens", tpm, min(left, (tpm or 0) - limits.output_used), reset),
    )
    for name, limit, remaining, after in rows:
        if limit is not None:
            moment = datetime.fromtimestamp(limits.unix + after, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            headers |= {
                f"anthropic-ratelimit-{name}-limit": str(limit),
                f"anthropic-ratelimit-{name}-remaining": str(max(0, remaining)),
                f"anthropic-ratelimit-{name}-reset": moment,
            }
    return headers


def context(tokens: int, window: int) -> Refused:
    """Word a prompt that is too long."""
    return Refused(f"prompt is too long: {tokens} tokens > {window} maximum", "context")


def crowded(prompt: int, most: int, window: int) -> Refused:
    """Word a prompt that leaves too little room for the answer."""
    return Refused(
        f"input length and `max_tokens` exceed context limit: {prompt} + {most} > {window}, decrease input length or "
        "`max_tokens` and try again",
        "context",
    )


ANTHROPIC: Final = Api(
    name="anthropic",
    phrase=phrase,
    fail=fail,
    limits=limit_headers,
    context=context,
    crowded=crowded,
    error_event=lambda failure: sse(failure.body, "error"),
    identify=lambda identity: {"request-id": f"req_{identity}", "anthropic-organization-id": "simulated"},
    words={
        "auth": "invalid x-api-key",
        "quota": "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade "
        "or purchase credits.",
        "rate": "This request would exceed your organization's rate limit.",
        "model": "model: {model}",
        "policy": "Output blocked by content filtering policy",
        "overloaded": "Overloaded",
        "unavailable": "Overloaded",
        "server": "Internal server error",
    },
)


def authorize(sent: Sent) -> None:
    """Refuse a call without a key or without a version."""
    if not sent.headers.get("x-api-key") and bearer(sent) is None:
        raise Refused("x-api-key header is required", "auth")
    version = sent.headers.get("anthropic-version")
    if not version:
        refuse("anthropic-version: header is required")
    if version not in VERSIONS:
        refuse(f'anthropic-version: "{version}" is not a valid version')


@dataclass
class _Prompt:
    """The texts of a request and where its cache markers stand."""

    texts: list[str] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    length: int = 0
    hours: bool = False

    def add(self, told: str, marked: object = None) -> None:
        self.texts.append(told)
        self.length += len(told)
        if isinstance(marked, dict):
            self.marks.append(self.length)
            self.hours = self.hours or marked.get("ttl") == "1h"


def messages(sent: Sent) -> Job:
    """Check a request."""
    body: Body = sent.body()
    REQUEST(body, ())
    prompt = _Prompt()
    for tool in body.get("tools") or []:
        prompt.add(str(tool.get("description") or ""), tool.get("cache_control"))
    system = body.get("system") or ""
    for block in [{"text": system}] if isinstance(system, str) else system:
        prompt.add(block["text"], block.get("cache_control"))
    _turns(body["messages"], prompt)
    if body.get("cache_control") is not None:
        prompt.add("", body["cache_control"])
    if len(prompt.marks) > MOST_MARKERS:
        refuse(f"A maximum of {MOST_MARKERS} blocks with cache_control may be provided. Found {len(prompt.marks)}.")
    thinks = _thinking(body)
    config = (body.get("output_config") or {}).get("format") or {}
    wanted = Wanted(
        model=body["model"],
        prompt="".join(prompt.texts),
        most=body["max_tokens"],
        streams=body.get("stream") is True,
        tools=_tools(body),
        schema=config.get("schema"),
        stop=body.get("stop_sequences") or (),
        reasoning=thinks,
        marks=prompt.marks,
    )
    shown = (body.get("thinking") or {}).get("display") != "omitted"
    return Job(
        wanted,
        lambda answer: message(answer, hours=prompt.hours, shown=shown),
        lambda answer: stream(answer, hours=prompt.hours, shown=shown),
    )


def _turns(turns: list[Body], prompt: _Prompt) -> None:
    if turns[0]["role"] != "user":
        refuse('messages: first message must use the "user" role', "messages")
    open_calls: set[str] = set()
    for index, turn in enumerate(turns):
        content = turn["content"]
        blocks: list[Body] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        if turn["role"] == "user":
            _results(index, open_calls, answered)
            open_calls = set()
        for number, block in enumerate(blocks):
            _block(block, f"messages.{index}.content.{number}", open_calls)
            prompt.add(_text(block), block.get("cache_control"))
    last = turns[-1]
    if last["role"] == "assistant" and isinstance(last["content"], str) and last["content"].endswith(" "):
        refuse("messages: final assistant content cannot end with trailing whitespace", "messages")
    if open_calls:
        refuse(
            f"messages.{len(turns) - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(sorted(open_calls))}. Each `tool_use` block must have a corresponding `tool_result` block in "
            "the next message.",
            "messages",
        )


def _block(block: Body, where: str, open_calls: set[str]) -> None:
    kind = block["type"]
    if kind == "text" and not block["text"].strip():
        refuse("messages: text content blocks must contain non-whitespace text", "messages")
    if kind in {"thinking", "redacted_thinking"}:
        _signed(block, where)
    if kind == "tool_use":
        if block["id"] in open_calls:
            refuse(f"{where}: `tool_use` ids must be unique", where)
        open_calls.add(block["id"])


def _results(index: int, open_calls: set[str], answered: set[str]) -> None:
    if unanswered := sorted(open_calls - answered):
        refuse(
            f"messages.{index - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(unanswered)}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
            "message.",
            f"messages.{index - 1}",
        )
    if unasked := sorted(answered - open_calls):
        refuse(
            f"messages.{index}.content: unexpected `tool_use_id` found in `tool_result` blocks: {', '.join(unasked)}. "
            "Each `tool_result` block must have a corresponding `tool_use` block in the previous message.",
            f"messages.{index}.content",
        )


def _signed(block: Body, where: str) -> None:
    """Refuse a thought that is not the one it was (extended-thinking, "Preserving thinking blocks")."""
    if block["type"] == "redacted_thinking":
        if not samples.is_signed("redacted", block["data"]):
            refuse(f"{where}: Invalid `data` in `redacted_thinking` block", where)
    elif not samples.is_signed(block["thinking"], block["signature"]):
        refuse(f"{where}: Invalid `signature` in `thinking` block", where)


def _text(block: Body) -> str:
    content = block.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return str(block.get("text") or block.get("thinking") or content or "")


def _thinking(body: Body) -> int:
    """Return the tokens of thought; refuse what does not go with them (extended-thinking, "Feature compatibility")."""
    thinking = body.get("thinking") or {"type": "disabled"}
    if thinking["type"] == "disabled":
        return 0
    budget = thinking.get("budget_tokens") or MOST_THOUGHT
    if "budget_tokens" in thinking and budget >= body["max_tokens"]:
        refuse("`max_tokens` must be greater than `thinking.budget_tokens`.", "thinking.budget_tokens")
    if body.get("temperature") not in {None, 1}:
        refuse("`temperature` may only be set to 1 when thinking is enabled.", "temperature")
    if body.get("top_k") is not None:
        refuse("`top_k` must be unset when thinking is enabled.", "top_k")
    if (body.get("tool_choice") or {}).get("type") in {"any", "tool"}:
        refuse("Thinking may not be enabled when tool_choice forces tool use.", "thinking")
    for index, turn in enumerate(body["messages"]):
        last = index == len(body["messages"]) - 2
        if last and turn["role"] == "assistant" and isinstance(turn["content"], list):
            kinds = [block["type"] for block in turn["content"]]
            if "tool_use" in kinds and kinds[0] not in {"thinking", "redacted_thinking"}:
                refuse(
                    f"messages.{index}.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
                    f"`{kinds[0]}`. When `thinking` is enabled, a final `assistant` message must start with a thinking "
                    "block.",
                    f"messages.{index}.content.0.type",
                )
    return int(min(budget, MOST_THOUGHT) // 4)


def _tools(body: Body) -> Tools:
    listed = body.get("tools") or []
    offered = {tool["name"]: tool["input_schema"] for tool in listed if "input_schema" in tool}
    if len({tool.get("name") for tool in listed}) < len(listed):
        refuse("tools: Tool names must be unique.", "tools")
    choice = body.get("tool_choice") or {"type": "auto"}
    if body.get("tool_choice") is not None and not listed and choice["type"] != "none":
        refuse("tool_choice: may only be specified while providing tools.", "tool_choice")
    parallel = choice.get("disable_parallel_tool_use") is not True
    if choice["type"] == "none":
        return Tools()
    if choice["type"] == "any":
        return Tools(offered, tuple(offered), parallel)
    if choice["type"] == "tool":
        if choice["name"] not in offered:
            refuse(f"tool_choice: Tool '{choice['name']}' not found in provided tools", "tool_choice")
        return Tools(offered, (choice["name"],), parallel=False)
    last = body["messages"][-1]
    blocks = last["content"] if isinstance(last["content"], list) else [{"type": "text", "text": last["content"]}]
    asked = "" if any(block["type"] == "tool_result" for block in blocks) else "".join(map(_text, blocks))
    return Tools(offered, (), parallel, asked)


def message(answer: Answer, *, hours: bool, shown: bool) -> dict[str, Any]:
    """Write a whole answer."""
    content: list[dict[str, Any]] = []
    if answer.thought:
        thought = answer.thought if shown else ""
        content.append({"type": "thinking", "thinking": thought, "signature": samples.signature(thought)})
    if answer.calls:
        content += [
            {"type": "tool_use", "id": f"toolu_{call.identity}", "name": call.name, "input": call.arguments}
            for call in answer.calls
        ]
    elif answer.text and answer.ending not in {Ending.REFUSAL, Ending.FILTERED}:
        content.append({"type": "text", "text": answer.text, "citations": None})
    refuses = answer.ending in {Ending.REFUSAL, Ending.FILTERED}
    details = {"type": "refusal", "category": "general_harms", "explanation": REFUSAL} if refuses else None
    return {
        "id": f"msg_{answer.plan.identity}", "type": "message", "role": "assistant", "model": answer.wanted.model,
        "content": content, "stop_reason": STOPS[answer.ending], "stop_sequence": answer.stopped_by,
        "stop_details": details, "usage": _usage(answer, hours=hours),
    }  # fmt: skip


def _usage(answer: Answer, *, hours: bool) -> dict[str, Any]:
    plan = answer.plan
    kept = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}
    kept["ephemeral_1h_input_tokens" if hours else "ephemeral_5m_input_tokens"] = plan.written
    return {
        "input_tokens": max(0, answer.prompt_tokens - plan.cached - plan.written),
        "cache_creation_input_tokens": plan.written, "cache_read_input_tokens": plan.cached, "cache_creation": kept,
        "output_tokens": answer.output_tokens, "service_tier": "standard", "server_tool_use": None,
        "output_tokens_details": {"thinking_tokens": answer.reasoning_tokens},
    }  # fmt: skip


def stream(answer: Answer, *, hours: bool, shown: bool) -> Iterator[bytes]:
    """Yield the events of a streamed answer."""
    whole = message(answer, hours=hours, shown=shown)
    usage = whole["usage"]

    def event(kind: str, **fields: object) -> bytes:
        return sse({"type": kind, **fields}, kind)

    begun = {**usage, "output_tokens": 1, "output_tokens_details": None}
    opened = {**whole, "content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None, "usage": begun}
    yield event("message_start", message=opened)
    yield event("ping")
    for index, block in enumerate(whole["content"]):
        empty: dict[str, Any] = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}}.get(
            block["type"], {"input": {}}
        )
        yield event("content_block_start", index=index, content_block={**block, **empty})
        for delta in _deltas(answer, block):
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    ended = {name: whole[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    counted = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens",
               "output_tokens_details")  # fmt: skip
    yield event("message_delta", delta=ended, usage={name: usage[name] for name in counted})
    yield event("message_stop")


def _deltas(answer: Answer, block: Body) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        for piece in answer.pieces(block["text"]):
            yield {"type": "text_delta", "text": piece}
    elif block["type"] == "thinking":
        for piece in answer.pieces(block["thinking"]):
            yield {"type": "thinking_delta", "thinking": piece}
        yield {"type": "signature_delta", "signature": block["signature"]}
    else:
        (raw,) = [call.raw for call in answer.calls if block["id"].endswith(call.identity)]
        for piece in ["", *samples.pieces(raw, 4)]:
            yield {"type": "input_json_delta", "partial_json": piece}


ROUTES: Final = (route(ANTHROPIC, "/v1/messages", authorize, messages),)
