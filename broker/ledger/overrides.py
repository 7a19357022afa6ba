"""Prices that correct the package: our own list with its sources, and the configuration's `price_overrides` before it.

An entry is a mapping:

- `provider` (its name in the package; `azure`, `bedrock` and `vertex_ai` for what those clouds sell), `models` (exact
  names, or `*`), `tier` (absent: standard; `batch`: the provider's batch API), `from` (first day it holds, ISO, UTC),
  `source`, `why`.
- `region`: where it holds, `*` for every region that is no global one. Such an entry without a tier is for every tier.
- `rates`: USD per unit by the names of `UNITS`; or `{"times": 0.5}`, a factor on the prices this tier or region is
  compared to (a tier's: standard; a region's: the global ones), with `cache_read_times` where that of cached tokens
  differs, `unknown` where nobody says; or `standard`, the same as a factor of one; or `unpriced`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib.resources import files
from typing import Any, Final

import orjson

from broker.errors import ConfigError
from broker.ledger.published import FOREVER, LIKE_TEXT
from broker.ledger.rates import Brackets, Rates, rates_of
from broker.ledger.stated import exact_pico

ANY: Final = "*"
GLOBAL: Final = ""
UNKNOWN_REGION: Final = "?"
"""A region that nobody named, of a seller whose prices depend on it."""
STANDARD_RATES: Final = "standard"
UNPRICED: Final = "unpriced"
UNKNOWN: Final = "unknown"
_KEYS: Final = frozenset({"provider", "models", "tier", "region", "rates", "from", "why", "source"})
UNITS: Final = {
    "input_mtok": ("input", 1_000_000),
    "output_mtok": ("output", 1_000_000),
    "cache_read_mtok": ("cached", 1_000_000),
    "cache_write_mtok": ("cache_write", 1_000_000),
    "cache_write_1h_mtok": ("cache_write_1h", 1_000_000),
    "cache_write_12h_mtok": ("cache_write_12h", 1_000_000),
    "output_reasoning_mtok": ("reasoning", 1_000_000),
    "input_audio_mtok": ("audio_input", 1_000_000),
    "output_audio_mtok": ("audio_output", 1_000_000),
    "cache_audio_read_mtok": ("audio_cached", 1_000_000),
    "input_image_mtok": ("image_input", 1_000_000),
    "output_image_mtok": ("image_output", 1_000_000),
    "cache_image_read_mtok": ("image_cached", 1_000_000),
    "input_images": ("image_given", 1),
    "output_images": ("image", 1),
    "input_mchars": ("character", 1_000_000),
    "input_audio_hours": ("hour", 1),
    "search_units_kcount": ("search_unit", 1_000),
    "web_searches_kcount": ("web_search", 1_000),
    "storage_searches_kcount": ("file_search", 1_000),
    "requests_kcount": ("per_request", 1_000),
}
"""Name of a price → the rate it is, and how many of the rate's unit it is for."""
CONTEXTS: Final = {f"requests_{size}_kcount": size for size in ("low", "medium", "high")}
"""Fees of a thousand requests by the size of their search context."""


@dataclass(frozen=True, slots=True)
class Override:
    """One entry: rates of its own, or factors and what cached tokens cost all the same. `from_ms` is unix ms."""

    provider: str
    models: frozenset[str]
    tier: str
    region: str
    brackets: Brackets | None = None
    times: Decimal | None = None
    cached_times: Decimal | None = None
    cached: int | None = None
    from_ms: int = -FOREVER
    source: str = ""

    def covers(self, provider: str, model: str, tier: str, region: str) -> bool:
        """Whether this entry speaks of the model in this tier and region, whatever the date."""
        if provider != self.provider or not (model.lower() in self.models or ANY in self.models):
            return False
        here = self.region == region or (self.region == ANY and region not in {GLOBAL, UNKNOWN_REGION})
        return here and (self.tier == tier or bool(region and not self.tier))

    def apply(self, compared: Brackets | None) -> Brackets | None:
        """Return the rates it says; `compared` are those that its factor is of."""
        if self.times is None or compared is None:
            return self.brackets
        scaled = compared.times(self.times, self.cached_times)
        if self.cached is None:
            return scaled
        steps = tuple((above, replace(rates, cached=self.cached)) for above, rates in scaled.steps)
        return Brackets(replace(scaled.base, cached=self.cached), steps)


@cache
def shipped() -> tuple[Override, ...]:
    """Return our own list."""
    name = "price_overrides"
    return tuple(parse(orjson.loads(files("broker.ledger").joinpath(f"{name}.json").read_bytes()), name))


def parse(entries: Sequence[Mapping[str, Any]], where: str) -> list[Override]:
    """Read entries; raises `ConfigError` naming the entry under `where` and what is wrong with it."""
    return [_parse(entry, f"{where}[{number}]") for number, entry in enumerate(entries)]


def _parse(entry: Mapping[str, Any], where: str) -> Override:
    unknown = entry.keys() - _KEYS
    if unknown:
        raise ConfigError(f"{where}: unknown key {min(unknown)!r}; known are {', '.join(sorted(_KEYS))}")
    models = entry.get("models")
    provider = entry.get("provider")
    if not isinstance(provider, str) or not isinstance(models, list) or not models:
        raise ConfigError(f"{where}: needs `provider`, a text, and `models`, a list of names")
    made = Override(
        provider=provider,
        models=frozenset(str(each).lower() for each in models),
        tier=str(entry.get("tier") or ""),
        region=str(entry.get("region") or "").lower(),
        from_ms=_day_ms(entry.get("from"), where),
        source=str(entry.get("source") or ""),
    )
    rates = entry.get("rates")
    if isinstance(rates, Mapping):
        return _with_rates(made, rates, where)
    if rates == STANDARD_RATES:
        return replace(made, times=Decimal(1), cached_times=Decimal(1))
    if rates != UNPRICED:
        raise ConfigError(f"{where}: `rates` is a mapping, `{STANDARD_RATES}` or `{UNPRICED}`, not {rates!r}")
    return made


def _with_rates(made: Override, stated: Mapping[str, Any], where: str) -> Override:
    times = stated.get("times")
    own = {key: value for key, value in stated.items() if key not in {"times", "cache_read_times"}}
    if times is None:
        if "cache_read_times" in stated:
            raise ConfigError(f"{where}: `cache_read_times` needs `times`")
        return replace(made, brackets=Brackets(_rates(own, made.provider, where)))
    if own.keys() - {"cache_read_mtok"}:
        raise ConfigError(f"{where}: beside `times` only `cache_read_mtok` and `cache_read_times` may stand")
    factor = _decimal(times, f"{where}.times")
    cached = stated.get("cache_read_times", factor)
    return replace(
        made,
        times=factor,
        cached_times=None if cached == UNKNOWN else _decimal(cached, f"{where}.cache_read_times"),
        cached=_rates(own, made.provider, where).cached if own else None,
    )


def _day_ms(day: object, where: str) -> int:
    if day is None:
        return -FOREVER
    try:
        return int(datetime.fromisoformat(str(day)).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError as error:
        raise ConfigError(f"{where}: `from` is not a day: {day!r}") from error


def _rates(stated: Mapping[str, Any], provider: str, where: str) -> Rates:
    pico: dict[str, int | None] = {}
    contexts: list[tuple[str, int]] = []
    for key, value in stated.items():
        if key in CONTEXTS:
            contexts.append((CONTEXTS[key], exact_pico(_decimal(value, f"{where}.{key}") / 1000, f"{where}.{key}")))
            continue
        if key not in UNITS:
            raise ConfigError(f"{where}: unknown rate {key!r}; known are {', '.join([*UNITS, *CONTEXTS])}")
        name, per = UNITS[key]
        pico[name] = exact_pico(_decimal(value, f"{where}.{key}") / per, f"{where}.{key}")
    fee = pico.pop("per_request", None) or 0
    like_text = provider in LIKE_TEXT
    return rates_of(pico, audio_like_text=like_text, per_request=fee, by_context=tuple(contexts))


def _decimal(value: object, where: str) -> Decimal:
    try:
        amount = Decimal(str(value))
    except InvalidOperation as error:
        raise ConfigError(f"{where}: not an amount in USD: {value!r}") from error
    if not amount.is_finite() or amount < 0:
        raise ConfigError(f"{where}: not an amount in USD: {value!r}")
    return amount
