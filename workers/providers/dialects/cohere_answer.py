"""Cohere's answers as OpenAI's: content to a message, finish reasons, logprobs, usage. Pure."""

import time
from collections.abc import Mapping
from typing import Any, Final

from broker.errors import BadUpstreamResponse, RequestError, UpstreamError
from workers.providers.dialects.retrieval import count

ANSWER_TOOL: Final = "structured_answer"
"""The tool that stands in for a structured output; its arguments are the answer, and no caller ever sees it."""

FINISH: Final = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_LIMIT": "length",
    "ERROR_TOXIC": "content_filter",
}
"""OpenAI's `finish_reason` by Cohere's; the last two are of the SDK's older `FinishReason`, which hosts still send."""


def completion_of(body: Mapping[str, Any], model: str, *, forced: bool) -> dict[str, Any]:
    """Return the chat completion of an answer. Raises KeyError, TypeError and the like where it is none.

    `forced`: a tool stands in for the structured answer. An answer that failed on the way is an error.
    """
    message, reason = body["message"], body["finish_reason"]
    if failure := failure_of(reason, body.get("error")):
        raise failure
    told = _message(message, forced=forced)
    choice = {
        "index": 0,
        "message": told,
        "finish_reason": finish_of(reason, calls="tool_calls" in told),
        "logprobs": logprobs_of(body.get("logprobs")),
    }
    usage = usage_of(body.get("usage"))
    completion = {
        "id": _text(body["id"]),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
    }
    return completion if usage is None else {**completion, "usage": usage}


def _message(message: Mapping[str, Any], *, forced: bool) -> dict[str, Any]:
    if message.get("role", "assistant") != "assistant":
        raise ValueError(message["role"])
    texts: list[str] = []
    thoughts: list[str] = []
    content = message.get("content") or []
    for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if block["type"] == "text":
            texts.append(_text(block["text"]))
        elif block["type"] == "thinking":
            thoughts.append(_text(block["thinking"]))
    calls: list[dict[str, Any]] = []
    answered: str | None = None
    for call in message.get("tool_calls") or []:
        function = call["function"]
        name, arguments = _text(function["name"]), _text(function.get("arguments") or "{}")
        if forced and name == ANSWER_TOOL:
            answered = arguments if answered is None else answered
        else:
            calls.append(call_of(_text(call["id"]), name, arguments))
    text = answered if answered is not None else "".join(texts)
    plan = message.get("tool_plan") if calls or not forced else None  # it would speak of the stand-in
    more = {
        "reasoning_content": "".join(thoughts),
        "tool_plan": _text(plan or ""),
        "tool_calls": calls,
        "citations": _objects(message.get("citations")),
    }
    told = {"role": "assistant", "content": text or (None if calls else "")}
    return {**told, **{name: value for name, value in more.items() if value}}


def _objects(value: object) -> list[Any]:
    if not isinstance(value, list | None) or not all(isinstance(each, dict) for each in value or ()):
        raise TypeError(type(value))
    return value or []


def call_of(identity: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a tool call as OpenAI writes it."""
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def finish_of(reason: object, *, calls: bool) -> str:
    """Return the finish reason; a structured answer ends with its stand-in's call, which is none for the caller."""
    found = FINISH.get(reason, "stop") if isinstance(reason, str) else "stop"
    return "stop" if found == "tool_calls" and not calls else found


def failure_of(reason: object, told: object) -> RequestError | None:
    """Return the error of an answer that ended with one, in words of its own where it has some."""
    words = f": {told}" if isinstance(told, str) and told else ""
    if reason == "ERROR":
        return BadUpstreamResponse(f"the upstream's generation failed{words}")
    if reason == "TIMEOUT":
        return UpstreamError(f"the upstream's generation took too long{words}", status=504)
    return None


def logprobs_of(items: object) -> dict[str, Any] | None:
    """Return OpenAI's logprobs; None where there are none. A piece of several tokens is one, its logprob their sum."""
    if not items:
        return None
    if not isinstance(items, list):
        raise TypeError(type(items))
    content = []
    for item in items:
        text, numbers = _text(item.get("text") or ""), item.get("logprobs") or []
        if numbers:
            logprob = float(sum(numbers))
            content.append({"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": []})
    return {"content": content, "refusal": None} if content else None


def usage_of(raw: object) -> dict[str, Any] | None:
    """Return OpenAI's usage; None where it is absent. What is billed counts; what was read and made stays beside it.

    `cached_tokens` counts all that the model read, and what is not billed of that stands first: the cached part of
    what is billed is what goes beyond it.
    """
    if not isinstance(raw, dict):
        return None
    billed, counted = _dict(raw.get("billed_units")), _dict(raw.get("tokens"))
    prompt, output = (_either(billed, counted, name) for name in ("input_tokens", "output_tokens"))
    if prompt is None and output is None:
        return None
    prompt, output = prompt or 0, output or 0
    unbilled = max((count(counted, "input_tokens") or 0) - prompt, 0)
    cached = min(max((count(raw, "cached_tokens") or 0) - unbilled, 0), prompt)
    told = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    kept = {"billed_units": billed, "tokens": counted}
    return {**told, **{name: value for name, value in kept.items() if value}}


def _either(billed: Mapping[str, Any], counted: Mapping[str, Any], name: str) -> int | None:
    found = count(billed, name)
    return found if found is not None else count(counted, name)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value))
    return value
