"""Converse's answers as OpenAI's: content blocks to a message, stop reasons, usage. Pure."""

import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

import orjson

from workers.providers.dialect import count

ANSWER_TOOL: Final = "structured_answer"
"""The tool that stands in for a structured output; its input is the answer, and no caller ever sees it."""

FINISH: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "malformed_model_output": "stop",
    "malformed_tool_use": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
"""OpenAI's `finish_reason` by `stopReason`."""
TOLD: Final = frozenset(
    {"malformed_model_output", "malformed_tool_use", "guardrail_intervened", "model_context_window_exceeded"}
)
"""Reasons that OpenAI has no word for: they stand beside the choice's own as `stop_reason`."""

TIERS: Final = {"reserved": "scale"}
"""OpenAI's name of a tier where it is not the same."""

THINKING: Final = "thinking"
SERVER_TOOL: Final = "server_tool_use"
"""A call that Bedrock answers itself (Nova's search of the web), and that is none for the caller."""


def completion_of(body: Mapping[str, Any], model: str, identity: str, *, forced: bool) -> dict[str, Any]:
    """Return the chat completion of an answer. Raises KeyError, TypeError and the like where it is none."""
    told = body["output"]["message"]
    if told["role"] != "assistant":
        raise ValueError(told["role"])
    message = _message(told["content"], forced=forced)
    usage = usage_of(body.get("usage"), body.get("additionalModelResponseFields"))
    choice = {"index": 0, "message": message, "logprobs": None}
    return {
        "id": identity or f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": invoked(body) or model,
        "choices": [{**choice, **ending(body.get("stopReason"), calls="tool_calls" in message)}],
        **({} if usage is None else {"usage": usage}),
        **beside(body),
    }


def ending(reason: object, *, calls: bool) -> dict[str, str]:
    """Return why a choice ended; a structured answer ends with its stand-in's call, which is none for the caller."""
    found = FINISH.get(reason, "stop") if isinstance(reason, str) else "stop"
    if found == "tool_calls" and not calls:
        found = "stop"
    return {"finish_reason": found, **({"stop_reason": reason} if isinstance(reason, str) and reason in TOLD else {})}


def beside(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands beside the choices: the tier that served, a guardrail's trace, fields that were asked for."""
    found: dict[str, Any] = {}
    tier = body.get("serviceTier")
    if isinstance(tier, dict) and isinstance(tier.get("type"), str):
        found["service_tier"] = TIERS.get(tier["type"], tier["type"])
    if isinstance(body.get("trace"), dict):
        found["trace"] = body["trace"]
    if body.get("additionalModelResponseFields"):
        found["additionalModelResponseFields"] = body["additionalModelResponseFields"]
    return found


def invoked(body: Mapping[str, Any]) -> str:
    """Return the model that a prompt router chose; empty where none did."""
    trace = body.get("trace")
    router = trace.get("promptRouter") if isinstance(trace, dict) else None
    arn = router.get("invokedModelId") if isinstance(router, dict) else None
    return arn.rpartition("/")[2] if isinstance(arn, str) else ""


def _message(blocks: list[Mapping[str, Any]], *, forced: bool) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    citations: list[Any] = []
    images: list[dict[str, Any]] = []
    answered: str | None = None
    for block in blocks:
        if "text" in block:
            texts.append(text_in(block["text"]))
        elif "reasoningContent" in block:
            thoughts.append(thought_of(block["reasoningContent"]))
        elif "toolUse" in block:
            use = block["toolUse"]
            if use.get("type") == SERVER_TOOL:
                continue
            arguments = orjson.dumps(use["input"]).decode()
            if forced and use["name"] == ANSWER_TOOL:
                answered = arguments if answered is None else answered
            else:
                calls.append(call_of(text_in(use["toolUseId"]), text_in(use["name"]), arguments))
        elif "citationsContent" in block:
            cited = block["citationsContent"]
            texts += [text_in(part["text"]) for part in cited.get("content") or []]
            citations += cited.get("citations") or []
        elif "image" in block:
            image = block["image"]
            images.append(image_of(text_in(image["format"]), text_in(image["source"]["bytes"])))
    content = answered if answered is not None else "".join(texts)
    message: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else "")}
    if thoughts:
        message["thinking_blocks"] = thoughts
    thinking = "".join(block.get(THINKING, "") for block in thoughts)
    more = {"reasoning_content": thinking, "tool_calls": calls, "citations": citations, "images": images}
    return {**message, **{name: value for name, value in more.items() if value}}


def thought_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a thought in the shape that goes back in `thinking_blocks`, with its signature."""
    if "redactedContent" in content:
        return {"type": "redacted_thinking", "data": text_in(content["redactedContent"])}
    told = content["reasoningText"]
    block = {"type": THINKING, THINKING: text_in(told["text"])}
    signature = told.get("signature")
    return block if signature is None else {**block, "signature": text_in(signature)}


def call_of(identity: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a tool call as OpenAI writes it."""
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def image_of(form: str, data: str) -> dict[str, Any]:
    """Return an image of an answer; `data` is base64."""
    return {"type": "image_url", "image_url": {"url": f"data:image/{form};base64,{data}"}}


def usage_of(raw: object, fields: object = None) -> dict[str, Any] | None:
    """Return OpenAI's usage; None where it is absent.

    What the cache took and gave is part of the prompt there, and beside `inputTokens` here (docs, "Prompt caching").
    Its writes by time to live stand as they came, in `cacheDetails`. `fields` may tell the tokens of Claude's thoughts.
    """
    if not isinstance(raw, dict):
        return None
    read, written = count(raw, "cacheReadInputTokens"), count(raw, "cacheWriteInputTokens")
    prompt, output = count(raw, "inputTokens") + read + written, count(raw, "outputTokens")
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
    }
    told = fields.get("usage") if isinstance(fields, dict) else None
    details = told.get("output_tokens_details") if isinstance(told, dict) else None
    if isinstance(details, dict) and "thinking_tokens" in details:
        usage["completion_tokens_details"] = {"reasoning_tokens": count(details, "thinking_tokens")}
    if raw.get("cacheDetails"):
        usage["cacheDetails"] = raw["cacheDetails"]
    return usage


def text_in(value: object) -> str:
    """Return a field that has to be a text. Raises TypeError where it is none."""
    if not isinstance(value, str):
        raise TypeError(type(value))
    return value
