"""Tokens of an answer in OpenAI's format: as the provider counted them, or estimated where it said nothing."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final, TypeGuard

from workers.providers.base import SoFar, Usage

CHARACTERS_PER_TOKEN: Final = 4
"""English text under OpenAI's tokenizers: help.openai.com/en/articles/4936856. An estimate is marked as one."""


MOST_TOKENS: Final = (1 << 31) - 1
"""A larger count is none: no model takes as much, and the ledger's columns end there (UInt32, two of them added)."""


def usage_of(raw: object) -> Usage | None:
    """Read a `usage` object; None when it is absent or counts nothing. An explicit zero is a count.

    Where a provider counts reasoning beside its completion tokens (xAI), the total tells, and it is added to output.
    """
    if not isinstance(raw, dict):
        return None
    found = raw.get("prompt_tokens", raw.get("input_tokens"))
    answered = raw.get("completion_tokens", raw.get("output_tokens"))
    if not _is_count(found):
        total = raw.get("total_tokens")
        if type(answered) is int or not _is_count(total):
            return None
        found = total
    if type(answered) is int and answered > MOST_TOKENS:
        return None
    prompt: int = found
    output = answered if type(answered) is int and answered > 0 else 0
    into, out = raw.get("prompt_tokens_details"), raw.get("completion_tokens_details")
    if not into and not out and len(raw) <= 3:  # noqa: PLR2004 - the three plain counts: most local servers, hot path
        return Usage(input_tokens=prompt, output_tokens=output, raw=raw)
    into = _dict(into or raw.get("input_tokens_details") or raw.get("input_token_details"))
    out = _dict(out or raw.get("output_tokens_details"))
    reasoning = _count(out, "reasoning_tokens") or _count(raw, "reasoning_tokens")
    if reasoning and raw.get("total_tokens") == prompt + output + reasoning:
        output += reasoning
    cached = (
        _count(into, "cached_tokens")
        or _count(raw, "prompt_cache_hit_tokens")  # DeepSeek
        or _count(raw, "cached_tokens")  # Moonshot
        or _count(raw, "cache_read_input_tokens")  # a LiteLLM proxy before Anthropic
    )
    written = (
        _count(into, "cache_write_tokens")  # OpenRouter
        or _count(into, "cache_creation_tokens")
        or _count(raw, "cache_creation_input_tokens")
    )
    return Usage(
        input_tokens=prompt,
        cached_tokens=min(cached, prompt),
        cache_write_tokens=min(written, prompt),
        output_tokens=output,
        reasoning_tokens=min(reasoning, output),
        audio_tokens=_count(into, "audio_tokens") + _count(out, "audio_tokens"),
        raw=raw,
    )


def estimate(asked: Mapping[str, Any], answered: Mapping[str, Any]) -> Usage:
    """Count the characters of request and answer, four a token, tokens given as numbers as one each."""
    fields = ("messages", "prompt", "input", "instructions", "tools", "query", "documents")
    sent = sum(_size(asked.get(name)) for name in fields)
    got = _size(answered.get("choices")) + _size(answered.get("output"))
    return Usage(
        input_tokens=-(-sent // CHARACTERS_PER_TOKEN), output_tokens=-(-got // CHARACTERS_PER_TOKEN), estimated=True
    )


def produced(asked: Mapping[str, Any], so_far: SoFar) -> Usage:
    """Return the tokens of a stream that did not come to its end: as counted, else estimated and marked.

    Where a provider has told the input alone, that is taken as told. One that counts no output beside text that came
    has not counted it yet.
    """
    told, guess = usage_of(so_far.body.get("usage")), estimate(asked, so_far.body)
    if told is None:
        return guess
    if so_far.counted and (told.output_tokens or not guess.output_tokens):
        return told
    return replace(told, output_tokens=max(told.output_tokens, guess.output_tokens), estimated=True)


def openai_usage(usage: Usage) -> dict[str, int]:
    """Return the plain counts as a body tells them."""
    into, out = usage.input_tokens, usage.output_tokens
    return {"prompt_tokens": into, "completion_tokens": out, "total_tokens": into + out}


def stated_cost(raw: object, field: str, exponent: int) -> str | None:
    """Return the cost that `usage` states in `field`, times ten to `exponent`, as decimal text; None where none is."""
    value = raw.get(field) if field and isinstance(raw, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    return format(Decimal(str(value)).scaleb(exponent), "f")


_NOT_TEXT: Final = frozenset(
    {
        "role",
        "type",
        "id",
        "index",
        "status",
        "finish_reason",
        "logprobs",
        "thinking_blocks",
        "image_url",
        "input_audio",
        "file",
    }
)
"""Fields of messages and choices that are no text of the conversation, repeat it, or are billed by other rules."""


def _size(value: object) -> int:
    """Characters of all texts inside a value; a number stands for one token. Walks without recursion."""
    total, stack = 0, [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, dict):
            stack.extend(inner for name, inner in item.items() if name not in _NOT_TEXT)
        elif isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, int) and not isinstance(item, bool):
            total += CHARACTERS_PER_TOKEN
    return total


def _count(source: Mapping[str, Any], name: str) -> int:
    value = source.get(name)
    return value if type(value) is int and 0 < value <= MOST_TOKENS else 0


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= MOST_TOKENS


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
