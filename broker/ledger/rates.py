"""Rates in whole pico-dollars and what an answer costs by them. Imports the standard library and `money`."""

import hashlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final, Protocol

UNSEEN_FEES: Final = ("server_tool_use", "num_search_queries", "num_sources_used")
"""Keys of a provider's usage that tell of tools with fees of their own (Anthropic; Perplexity; xAI), which we do not
price: an answer that used one has no known price."""

PLAIN_GEOGRAPHIES: Final = frozenset({None, "", "global", "not_available"})
"""`inference_geo` of Anthropic's usage that carry no regional multiplier."""

PLAIN_SPEEDS: Final = frozenset({None, "", "standard"})


class Tokens(Protocol):
    """Tokens of one answer. Cached and cache-write tokens are part of input, reasoning tokens are part of output."""

    @property
    def input_tokens(self) -> int: ...  # noqa: D102 - named by itself
    @property
    def cached_tokens(self) -> int: ...  # noqa: D102
    @property
    def cache_write_tokens(self) -> int: ...  # noqa: D102
    @property
    def output_tokens(self) -> int: ...  # noqa: D102
    @property
    def reasoning_tokens(self) -> int: ...  # noqa: D102
    @property
    def audio_tokens(self) -> int: ...  # noqa: D102
    @property
    def raw(self) -> Mapping[str, Any] | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Pico-dollars per token, and per request. None is not known: an answer with such tokens has no known price.

    Audio has rates of its own where `audio_differs`; they can be used (`audio_known`) where only one side has one, as
    usage tells audio tokens without their side.
    """

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    reasoning: int | None = None
    audio_in: int | None = None
    audio_out: int | None = None
    audio_differs: bool = False
    audio_known: bool = False
    per_request: int = 0
    splits_reasoning: bool = False
    splits_cache_writes: bool = False

    def amount(self, usage: Tokens) -> int | None:  # noqa: C901, PLR0911 - a guard per kind of token, in line for speed
        """Whole pico-dollars of one answer; None when it has tokens without a rate, or counts that contradict."""
        cached, written = usage.cached_tokens, usage.cache_write_tokens
        plain = usage.input_tokens - cached - written
        output = usage.output_tokens
        if plain < 0 or output < 0 or cached < 0 or written < 0:
            return None
        total = self.per_request
        if self.audio_differs and usage.audio_tokens:
            audio = self._audio(usage.audio_tokens, plain, output, cached)
            if audio is None:
                return None
            total, plain, output = total + audio[0], audio[1], audio[2]
        if plain:
            if self.input is None:
                return None
            total += plain * self.input
        if cached:
            if self.cached is None:
                return None
            total += cached * self.cached
        if written:
            cost = self._written(written, usage.raw)
            if cost is None:
                return None
            total += cost
        if output:
            if self.splits_reasoning:
                return self._with_reasoning(total, output, usage.reasoning_tokens)
            if self.output is None:
                return None
            total += output * self.output
        return total

    def _audio(self, audio: int, plain: int, output: int, cached: int) -> tuple[int, int, int] | None:
        """Cost of the audio, and what is left of plain input and of output; None where its side cannot be told."""
        if not self.audio_known or (self.audio_in is not None and cached):
            return None
        if self.audio_in is not None and audio <= plain:
            return audio * self.audio_in, plain - audio, output
        if self.audio_out is not None and audio <= output:
            return audio * self.audio_out, plain, output - audio
        return None

    def _written(self, written: int, raw: Mapping[str, Any] | None) -> int | None:
        """Cache writes by their time to live; without a breakdown they are of 5 minutes, Anthropic's default."""
        hour = 0
        if self.splits_cache_writes and raw:
            breakdown = raw.get("cache_creation")
            found = breakdown.get("ephemeral_1h_input_tokens") if isinstance(breakdown, Mapping) else 0
            hour = min(found, written) if isinstance(found, int) and found > 0 else 0
        short = written - hour
        if (hour and self.cache_write_1h is None) or (short and self.cache_write is None):
            return None
        return hour * (self.cache_write_1h or 0) + short * (self.cache_write or 0)

    def _with_reasoning(self, total: int, output: int, reasoning: int) -> int | None:
        spoken = output - reasoning
        if spoken < 0 or (spoken and self.output is None) or (reasoning and self.reasoning is None):
            return None
        return total + spoken * (self.output or 0) + reasoning * (self.reasoning or 0)


@dataclass(frozen=True, slots=True)
class Brackets:
    """Rates by the size of the request: `steps` are `(more input tokens than, rates)`, largest first.

    Crossing a step re-prices the whole request.
    """

    base: Rates
    steps: tuple[tuple[int, Rates], ...] = ()

    def amount(self, usage: Tokens) -> int | None:
        """Whole pico-dollars of one answer, None when no price is known."""
        for above, rates in self.steps:
            if usage.input_tokens > above:
                return rates.amount(usage)
        return self.base.amount(usage)

    def digest(self) -> str:
        """First 8 hex digits of the SHA-256 of every rate: equal rates have equal digests, in any process."""
        parts = [(-1, *astuple(self.base)), *((above, *astuple(rates)) for above, rates in self.steps)]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def has_unseen_fees(raw: Mapping[str, Any], tier: str) -> bool:
    """Whether a provider's usage tells of something it charges for that no token count shows."""
    for key in UNSEEN_FEES:
        value = raw.get(key)
        if value and (any(value.values()) if isinstance(value, Mapping) else True):
            return True
    if raw.get("inference_geo") not in PLAIN_GEOGRAPHIES:
        return True
    speed = raw.get("speed")
    return speed not in PLAIN_SPEEDS and speed != tier
