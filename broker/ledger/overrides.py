"""Prices that correct the package: our own list with its sources, and the configuration's `price_overrides` before it.

An entry is a mapping: `provider` (its name in the package), `models` (exact names, or `*`), `tier` (absent: standard;
`batch`: the provider's batch API), `rates` and `source`. `rates` is either USD per million tokens (`input_mtok`,
`output_mtok`, `cache_read_mtok`, `cache_write_mtok`) and per thousand requests (`requests_kcount`), or `standard` (this
tier costs what the package's standard tier costs), or `unpriced`. `from` is the first day it holds, ISO, UTC.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from typing import Any, Final

import orjson

from broker.errors import ConfigError
from broker.ledger.money import to_pico
from broker.ledger.published import FOREVER
from broker.ledger.rates import Brackets, Rates

ANY_MODEL: Final = "*"
STANDARD_RATES: Final = "standard"
UNPRICED: Final = "unpriced"
_KEYS: Final = frozenset({"provider", "models", "tier", "rates", "from", "why", "source"})
_UNITS: Final = {
    "input_mtok": 1_000_000,
    "output_mtok": 1_000_000,
    "cache_read_mtok": 1_000_000,
    "cache_write_mtok": 1_000_000,
    "requests_kcount": 1_000,
}


@dataclass(frozen=True, slots=True)
class Override:
    """One entry. `brackets` is None for `standard` and `unpriced` (see `rates`); `from_ms` is unix milliseconds."""

    provider: str
    models: frozenset[str]
    tier: str
    rates: str
    brackets: Brackets | None
    from_ms: int = -FOREVER

    def covers(self, provider: str, model: str, tier: str) -> bool:
        """Whether this entry speaks of the model in this tier, whatever the date."""
        known = ANY_MODEL in self.models or model.lower() in self.models
        return provider == self.provider and tier == self.tier and known


def shipped() -> list[Override]:
    """Return our own list."""
    return parse(orjson.loads(files("broker.ledger").joinpath("price_overrides.json").read_bytes()), "price_overrides")


def parse(entries: Sequence[Mapping[str, Any]], where: str) -> list[Override]:
    """Read entries; raises `ConfigError` naming the entry under `where` and what is wrong with it."""
    return [_parse(entry, f"{where}[{number}]") for number, entry in enumerate(entries)]


def _parse(entry: Mapping[str, Any], where: str) -> Override:
    unknown = entry.keys() - _KEYS
    if unknown:
        raise ConfigError(f"{where}: unknown key {min(unknown)!r}; known are {', '.join(sorted(_KEYS))}")
    models = entry.get("models")
    if not isinstance(entry.get("provider"), str) or not isinstance(models, list) or not models:
        raise ConfigError(f"{where}: needs `provider`, a text, and `models`, a list of names")
    rates = entry.get("rates")
    brackets = None
    if isinstance(rates, Mapping):
        brackets, rates = Brackets(_rates(rates, where)), "stated"
    elif rates not in {STANDARD_RATES, UNPRICED}:
        raise ConfigError(f"{where}: `rates` is a mapping, `{STANDARD_RATES}` or `{UNPRICED}`, not {rates!r}")
    return Override(
        provider=entry["provider"],
        models=frozenset(str(each).lower() for each in models),
        tier=str(entry.get("tier") or ""),
        rates=rates,
        brackets=brackets,
        from_ms=_day_ms(entry.get("from"), where),
    )


def _day_ms(day: object, where: str) -> int:
    if day is None:
        return -FOREVER
    try:
        return int(datetime.fromisoformat(str(day)).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError as error:
        raise ConfigError(f"{where}: `from` is not a day: {day!r}") from error


def _rates(stated: Mapping[str, Any], where: str) -> Rates:
    pico: dict[str, int] = {}
    for key, value in stated.items():
        if key not in _UNITS:
            raise ConfigError(f"{where}: unknown rate {key!r}; known are {', '.join(_UNITS)}")
        pico[key] = exact_pico(_decimal(value, f"{where}.{key}") / _UNITS[key], f"{where}.{key}")
    plain = pico.get("input_mtok")
    return Rates(
        input=plain,
        output=pico.get("output_mtok"),
        cached=pico.get("cache_read_mtok", plain),
        cache_write=pico.get("cache_write_mtok", plain),
        per_request=pico.get("requests_kcount", 0),
    )


def _decimal(value: object, where: str) -> Decimal:
    try:
        amount = Decimal(str(value))
    except InvalidOperation as error:
        raise ConfigError(f"{where}: not an amount in USD: {value!r}") from error
    if not amount.is_finite() or amount < 0:
        raise ConfigError(f"{where}: not an amount in USD: {value!r}")
    return amount


def exact_pico(usd: Decimal, where: str) -> int:
    """Whole pico-dollars of a rate; raises `ConfigError` for one so small that it would become free of charge."""
    pico = to_pico(usd)
    if usd and not pico:
        raise ConfigError(f"{where}: {usd} USD is less than the ledger's smallest unit, 1e-12 USD")
    return pico
