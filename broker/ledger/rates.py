"""Rates in whole pico-dollars and what an answer costs by them. Imports the standard library and this folder."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, fields, replace
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final, Protocol

from broker.ledger.units import PLAIN, Units

SECONDS_PER_HOUR: Final = 3600
BY_UNIT: Final = ("character", "hour", "image", "image_given", "search_unit")
"""Rates of what is no token. A model that is sold by these alone charges nothing for tokens."""


class Tokens(Protocol):
    """Usage of one answer. Cached and cache-write tokens are part of input, reasoning tokens are part of output."""

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
    def units(self) -> Units | None: ...  # noqa: D102
    @property
    def raw(self) -> Mapping[str, Any] | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Pico-dollars of one token, picture, character, hour of sound, search or request.

    None is not known: an answer with something of that kind has no known price. Where sound or pictures cost what text
    costs, their rates say so.
    """

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    cache_write_12h: int | None = None
    reasoning: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    audio_cached: int | None = None
    image_input: int | None = None
    image_output: int | None = None
    image_cached: int | None = None
    image: int | None = None
    image_given: int | None = None
    character: int | None = None
    hour: int | None = None
    search_unit: int | None = None
    web_search: int | None = None
    file_search: int | None = None
    per_request: int = 0
    by_context: tuple[tuple[str, int], ...] = ()
    """Fee of a request by the size of its search context, `low`, `medium`, `high`."""
    free: bool = False
    """Whether nothing but the fee of a request is charged, whatever was used."""
    splits_reasoning: bool = False
    """Whether reasoning costs its own rate, known or not, rather than what output costs."""

    @property
    def is_text(self) -> bool:
        """Whether tokens of text and a fee per request are all there is to know."""
        pictures = self.image_input != self.input or self.image_output != self.output
        return not pictures and not self.by_context and all(getattr(self, name) is None for name in BY_UNIT)

    def text(self, usage: Tokens) -> int | None:
        """Whole pico-dollars of text without cache writes; None with tokens without a rate, or contradicting counts."""
        cached, output = usage.cached_tokens, usage.output_tokens
        plain = usage.input_tokens - cached
        if plain < 0 or output < 0 or cached < 0:
            return None
        total = self.per_request
        if plain:
            if self.input is None:
                return None
            total += plain * self.input
        if cached:
            if self.cached is None:
                return None
            total += cached * self.cached
        if output:
            if self.splits_reasoning:
                return self._spoken(total, output, usage.reasoning_tokens)
            if self.output is None:
                return None
            total += output * self.output
        return total

    def amount(self, usage: Tokens, units: Units) -> int | None:  # noqa: PLR0911 - one return a reason
        """Whole pico-dollars of any answer; None when it used something without a known rate, or contradicts itself."""
        if self.free:
            return self.per_request
        audio, image = units.audio_input - units.audio_cached, units.image_input - units.image_cached
        cached = usage.cached_tokens - units.audio_cached - units.image_cached
        plain = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens - audio - image
        output = usage.output_tokens - units.audio_output - units.image_output
        parts = (
            (plain, self.input),
            (cached, self.cached),
            (audio, self.audio_input),
            (units.audio_cached, self.audio_cached),
            (image, self.image_input),
            (units.image_cached, self.image_cached),
            (units.audio_output, self.audio_output),
            (units.image_output, self.image_output),
            (units.characters, self.character),
            (units.search_units, self.search_unit),
            (units.web_searches, self.web_search),
            (units.file_searches, self.file_search),
        )
        if output < 0 or any(number < 0 for number, _ in parts) or self._cannot_tell(usage, units):
            return None
        total = self.per_request
        for number, rate in parts:
            if number and rate is None:
                return None
            total += number * (rate or 0)
        written = self._written(usage.cache_write_tokens, units)
        others = self._others(usage, units)
        if written is None or others is None:
            return None
        total += written + others
        if self.splits_reasoning:
            return self._spoken(total, output, usage.reasoning_tokens)
        if output and self.output is None:
            return None
        return total + output * (self.output or 0)

    def _cannot_tell(self, usage: Tokens, units: Units) -> bool:
        """Whether something has a rate of its own and the usage does not say how much of it there is."""
        sold = any(getattr(self, name) is not None for name in BY_UNIT)
        told = (units.characters, units.seconds, units.images, units.images_given, units.search_units)
        if units.unpriced or (sold and not any(told) and not (self.input or self.output)):
            return True
        given = usage.input_tokens and not (units.tells_input or units.image_input)
        made = usage.output_tokens and not (units.tells_output or units.image_output)
        if (given and self.image_input != self.input) or (made and self.image_output != self.output):
            return True
        mixed = usage.cached_tokens and not units.tells_cached
        audio = units.audio_input and (self.audio_input, self.audio_cached) != (self.input, self.cached)
        image = units.image_input and (self.image_input, self.image_cached) != (self.input, self.cached)
        return bool(mixed and (audio or image))

    def _written(self, written: int, units: Units) -> int | None:
        """Cache writes by their time to live; without a breakdown they are of the usual one (Anthropic: 5 minutes)."""
        usual = written - units.written_1h - units.written_12h
        kinds = (
            (usual, self.cache_write),
            (units.written_1h, self.cache_write_1h),
            (units.written_12h, self.cache_write_12h),
        )
        if usual < 0 or any(number and rate is None for number, rate in kinds):
            return None
        return sum(number * (rate or 0) for number, rate in kinds)

    def _others(self, usage: Tokens, units: Units) -> int | None:
        """Pictures, sound by its length, and the fee by the size of the search context."""
        total = 0
        if units.images and not usage.output_tokens and self.image is None:
            return None
        if units.images_given and self.image_given is None and not units.image_input:
            return None
        total += units.images * (self.image or 0) + units.images_given * (self.image_given or 0)
        if units.seconds:
            if self.hour is None:
                return None
            exact = self.hour * units.seconds / SECONDS_PER_HOUR
            total += int(exact.to_integral_value(ROUND_HALF_EVEN))
        if self.by_context:
            fee = dict(self.by_context).get(units.search_context)
            if fee is None:
                return None
            total += fee
        return total

    def _spoken(self, total: int, output: int, reasoning: int) -> int | None:
        spoken = output - reasoning
        if spoken < 0 or (spoken and self.output is None) or (reasoning and self.reasoning is None):
            return None
        return total + spoken * (self.output or 0) + reasoning * (self.reasoning or 0)

    def times(self, factor: Decimal, cached: Decimal | None) -> "Rates":
        """Every rate times `factor`, cached ones times `cached`; None there makes them unknown."""

        def scaled(name: str, rate: int | None) -> int | None:
            by = cached if name == "cached" or name.endswith("_cached") else factor
            return None if rate is None or by is None else int((rate * by).to_integral_value(ROUND_HALF_EVEN))

        changed: dict[str, Any] = {
            each.name: scaled(each.name, getattr(self, each.name))
            for each in fields(self)
            if each.name not in {"by_context", "free", "splits_reasoning"} | FEES
        }
        return replace(self, **changed)


FEES: Final = {"per_request", "web_search", "file_search"}
"""Rates that a tier or a region does not change: they are per call."""


def rates_of(
    known: Mapping[str, int | None],
    *,
    audio_like_text: bool,
    flat_writes: bool = False,
    per_request: int = 0,
    by_context: tuple[tuple[str, int], ...] = (),
) -> Rates:
    """Return rates from the fields that are known; a field that is None is one that has a rate nobody knows.

    Pictures cost what text costs unless they have rates; so does sound where `audio_like_text`. Cache writes cost the
    same however long they are kept where `flat_writes`. Tokens cost nothing where only something else has a price.
    """
    named = {name for name, rate in known.items() if rate is not None} - FEES
    free = 0 if named and named <= set(BY_UNIT) else None
    text = {name: known.get(name, free) for name in ("input", "output")}
    text["cached"] = known.get("cached", text["input"])
    text["cache_write"] = known.get("cache_write", text["input"])
    kept = dict.fromkeys(("cache_write_1h", "cache_write_12h"), text["cache_write"]) if flat_writes else {}
    media = dict(_media(known, text, "image", like_text=True))
    media |= dict(_media(known, text, "audio", like_text=audio_like_text or free == 0))
    made: dict[str, Any] = {**kept, **known, **text, **media}
    return Rates(**made, per_request=per_request, by_context=by_context, splits_reasoning="reasoning" in known)


def _media(
    known: Mapping[str, int | None], text: Mapping[str, int | None], medium: str, *, like_text: bool
) -> Iterator[tuple[str, int | None]]:
    for side in ("input", "output"):
        yield f"{medium}_{side}", known.get(f"{medium}_{side}", text[side] if like_text else None)
    same = f"{medium}_input" not in known and like_text
    yield f"{medium}_cached", known.get(f"{medium}_cached", text["cached"] if same else None)


Flat = tuple[int, int, int, int, int]
"""Input tokens above which it holds; pico-dollars of a request, an input, a cached and an output token."""


def _flat(sizes: Iterable[tuple[int, Rates]]) -> list[Flat]:
    found: list[Flat] = []
    for above, rates in sizes:
        if rates.splits_reasoning or rates.input is None or rates.cached is None or rates.output is None:
            return []
        found.append((above, rates.per_request, rates.input, rates.cached, rates.output))
    return found


@dataclass(frozen=True, slots=True)
class Brackets:
    """Rates by the size of the request: `steps` are `(more input tokens than, rates)`, largest first.

    Crossing a step re-prices the whole request.
    """

    base: Rates
    steps: tuple[tuple[int, Rates], ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether `text` prices every answer that is text, at every size."""
        return self.base.is_text and all(rates.is_text for _, rates in self.steps)

    @property
    def flat(self) -> tuple[Flat, ...]:
        """Fee and rates of input, cached and output tokens by size; empty where reasoning matters or one is unknown."""
        return tuple(_flat((*self.steps, (-1, self.base))))

    def of(self, input_tokens: int) -> Rates:
        """Return the rates of a request of this size."""
        for above, rates in self.steps:
            if input_tokens > above:
                return rates
        return self.base

    def text(self, usage: Tokens) -> int | None:
        """Whole pico-dollars of an answer that is text, None when no price is known."""
        return (self.of(usage.input_tokens) if self.steps else self.base).text(usage)

    def amount(self, usage: Tokens, units: Units = PLAIN) -> int | None:
        """Whole pico-dollars of any answer, None when no price is known."""
        return self.of(usage.input_tokens).amount(usage, units)

    def times(self, factor: Decimal, cached: Decimal | None) -> "Brackets":
        """Every rate of a token times `factor`, those of cached ones times `cached`."""
        steps = tuple((above, rates.times(factor, cached)) for above, rates in self.steps)
        return Brackets(self.base.times(factor, cached), steps)

    def digest(self) -> str:
        """First 8 hex digits of the SHA-256 of every rate: equal rates have equal digests, in any process."""
        parts = [(-1, *astuple(self.base)), *((above, *astuple(rates)) for above, rates in self.steps)]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]
