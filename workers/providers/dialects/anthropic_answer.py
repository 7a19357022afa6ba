"""Anthropic's answers as OpenAI's: content blocks to a message, stop reasons, usage. Pure."""

import time
from collections.abc import Mapping
from typing import Any, Final

import orjson

from workers.providers import legacy
from workers.providers.dialect import count

ANSWER_TOOL: Final = "structured_answer"
"""The tool that stands in for a structured output; its input is the answer, and no caller ever sees it."""

FINISH: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""OpenAI's `finish_reason` by `stop_reason`."""


PLAIN: Final = (None, "", "standard", "global", "not_available")
"""What those say where the price is the usual one."""
PRICED_BY: Final = ("inference_geo", "speed", "service_tier")
"""Of Anthropic's usage what OpenAI's has no words for and the price depends on; a stream tells it nowhere else."""


TIERS: Final = {"standard": "default", "priority": "priority"}
"""OpenAI's `service_tier` by the one that Anthropic says it served with."""


def message_of(body: Mapping[str, Any], model: str, *, forced: bool, functions: bool = False) -> dict[str, Any]:
    """Return the chat completion of a message. Raises KeyError, TypeError and the like where it is none.

    `forced`: a tool stands in for the structured answer. `functions`: the caller knows the older functions only.
    """
    if body["type"] != "message" or body["role"] != "assistant":
        raise ValueError(body["type"])
    message = _message(body["content"], forced=forced)
    reason = finish_of(body.get("stop_reason"), calls="tool_calls" in message)
    message["refusal"] = refusal_of(body)
    if functions:
        message, reason = legacy.as_function_call(message), legacy.finish(reason) or reason
    choice = {"index": 0, "message": message, "finish_reason": reason}
    completion = {
        "id": _text(body["id"]),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.get("model") or model,
        "choices": [{**choice, "logprobs": None}],
    }
    usage = usage_of(body.get("usage"))
    if usage is not None:
        completion["usage"] = usage
        tier = body["usage"].get("service_tier")
        if isinstance(tier, str) and tier in TIERS:
            completion["service_tier"] = TIERS[tier]
    return completion


def refusal_of(told: Mapping[str, Any]) -> str | None:
    """Return what a message, or the event that ends it, says of a refusal; None where nothing was refused."""
    if told.get("stop_reason") != "refusal":
        return None
    details = told.get("stop_details")
    said = details if isinstance(details, dict) else {}
    words = said.get("explanation") or said.get("category")
    return words if isinstance(words, str) else "refusal"


def _message(blocks: list[Mapping[str, Any]], *, forced: bool) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    citations: list[Any] = []
    annotations: list[dict[str, Any]] = []
    answered: str | None = None
    for block in blocks:
        kind = block["type"]
        if kind == "text":
            told, start = block.get("citations") or [], sum(map(len, texts))
            texts.append(_text(block["text"]))
            citations += told
            annotations += annotations_of(told, start, start + len(texts[-1]))
        elif kind in {"thinking", "redacted_thinking"}:
            thoughts.append(dict(block))
        elif kind == "tool_use" and forced and block["name"] == ANSWER_TOOL:
            answered = orjson.dumps(block["input"]).decode() if answered is None else answered
        elif kind == "tool_use":
            calls.append(call_of(_text(block["id"]), _text(block["name"]), orjson.dumps(block["input"]).decode()))
    content = answered if answered is not None else "".join(texts)
    message: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else "")}
    if thoughts:
        thinking = "".join(_text(block.get("thinking", "")) for block in thoughts)
        message |= {"reasoning_content": thinking, "thinking_blocks": thoughts}
    more = {"tool_calls": calls, "citations": citations, "annotations": annotations}
    return {**message, **{name: value for name, value in more.items() if value}}


def annotations_of(citations: list[Any], start: int, end: int) -> list[dict[str, Any]]:
    """Return the citations of pages of the web as OpenAI writes them; `start` to `end` is the text they belong to."""
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "url": _text(each["url"]),
                "title": each.get("title") or "",
                "start_index": start,
                "end_index": end,
            },
        }
        for each in citations
        if each["type"] == "web_search_result_location"
    ]


def call_of(identity: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a tool call as OpenAI writes it."""
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def finish_of(reason: object, *, calls: bool) -> str:
    """Return the finish reason; a structured answer ends with its stand-in's call, which is none for the caller."""
    found = FINISH.get(reason, "stop") if isinstance(reason, str) else "stop"
    return "stop" if found == "tool_calls" and not calls else found


def usage_of(raw: object) -> dict[str, Any] | None:
    """Return OpenAI's usage; None where it is absent. What the cache took and gave is part of the prompt there."""
    if not isinstance(raw, dict):
        return None
    read, written = count(raw, "cache_read_input_tokens"), count(raw, "cache_creation_input_tokens")
    prompt, output = count(raw, "input_tokens") + read + written, count(raw, "output_tokens")
    details = raw.get("output_tokens_details")
    thinking = count(details, "thinking_tokens") if isinstance(details, dict) else 0
    into: dict[str, Any] = {"cached_tokens": read, "cache_write_tokens": written}
    if written and isinstance(raw.get("cache_creation"), dict):
        into["cache_creation_token_details"] = raw["cache_creation"]  # by time to live, which have prices of their own
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": into,
        "completion_tokens_details": {"reasoning_tokens": thinking},
        **{name: raw[name] for name in PRICED_BY if raw.get(name) not in PLAIN},
    }
    searches = raw.get("server_tool_use")
    return {**usage, "server_tool_use": searches} if isinstance(searches, dict) else usage


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value))
    return value
