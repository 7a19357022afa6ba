"""The price list for eyes and files: every rate with its unit, tier and step, whose it is, and what changed in it."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

from genai_prices.data import providers

from broker.config import Deployment
from broker.ledger.money import PICO
from broker.ledger.overrides import shipped
from broker.ledger.prices import CLOUDS, PriceTable, Sheet
from broker.ledger.published import STANDARD, find_model
from broker.ledger.rates import Brackets, Rates
from broker.ledger.regions import PACKAGE_NAMES

TIERS: Final = (STANDARD, "batch", "flex", "priority", "fast", "ultrafast")
"""Tiers that are asked for; the configuration and the overrides may name more."""
STANDARD_NAME: Final = "standard"
GEOGRAPHIES: Final = ("", "us")
"""Places that an answer itself may name (Anthropic)."""

MILLION: Final = 1_000_000
_UNITS: Final = {
    **dict.fromkeys(
        (
            *("input", "output", "cached", "cache_write", "cache_write_1h", "cache_write_12h", "reasoning"),
            *("audio_input", "audio_output", "audio_cached", "image_input", "image_output", "image_cached"),
        ),
        (MILLION, "1M tokens"),
    ),
    "character": (MILLION, "1M characters"),
    "hour": (1, "hour of sound"),
    "image": (1, "picture made"),
    "image_given": (1, "picture read"),
    "search_unit": (1_000, "1,000 search units"),
    "web_search": (1_000, "1,000 web searches"),
    "file_search": (1_000, "1,000 file searches"),
    "per_request": (1_000, "1,000 requests"),
}
"""Rate → how many of its unit the price shown is for, and what they are called."""
_LIKE: Final = {f"{medium}_{side}": side for medium in ("audio", "image") for side in ("input", "output", "cached")}
"""Rates that are shown only where they are not those of text."""

RECORDED_SQL: Final = """SELECT deployment, model, argMax(price_version, created_at) AS version, count() AS answers
FROM attempts FINAL
WHERE outcome = 'answered' AND price_version != '' AND created_at >= toDateTime64({since:Float64}, 3, 'UTC')
GROUP BY deployment, model
ORDER BY deployment, model
SETTINGS do_not_merge_across_partitions_select_final = 1"""
"""The last price version that the ledger recorded; `since` is unix seconds."""


class Line(NamedTuple):
    """One rate: USD per `unit`, for requests of more than `above` input tokens."""

    rate: str
    usd: str
    unit: str
    above: int


@dataclass(frozen=True, slots=True)
class Entry:
    """The prices of one deployment, or of one model of a provider, in one tier; no lines where none is known."""

    name: str
    model: str
    tier: str
    version: str
    source: str
    lines: tuple[Line, ...]


class Change(NamedTuple):
    """What differs between two lists; an empty text stands for a rate that is not there."""

    name: str
    tier: str
    rate: str
    before: str
    after: str


def entries(
    table: PriceTable, deployment: Deployment, at_ms: int, tiers: Sequence[str] = (), model: str = ""
) -> list[Entry]:
    """Return a deployment's prices, the standard tier first; one that has none is left out unless it is asked for."""
    asked = tuple(tiers) or tuple(dict.fromkeys((*TIERS, *table.stated_tiers(deployment.name))))
    found = []
    for tier in asked:
        sheet = table.sheet(deployment.name, model or deployment.model, tier, at_ms)
        if sheet.brackets is not None or tier == STANDARD or tiers:
            found.append(_entry(deployment.name, model or deployment.model, tier, sheet))
    return found


def _entry(name: str, model: str, tier: str, sheet: Sheet) -> Entry:
    lines = tuple(_lines(sheet.brackets)) if sheet.brackets is not None else ()
    return Entry(name, model, tier or STANDARD_NAME, sheet.version, sheet.source, lines)


def _lines(brackets: Brackets) -> Iterator[Line]:
    for above, rates in ((0, brackets.base), *reversed(brackets.steps)):
        for name, (number, unit) in _UNITS.items():
            pico = getattr(rates, name)
            if pico is None or _goes_without_saying(name, pico, rates):
                continue
            yield Line(name, _usd(pico * number), unit, above)
        for size, fee in rates.by_context:
            yield Line(f"per_request ({size} search context)", _usd(fee * 1000), "1,000 requests", above)


def _goes_without_saying(name: str, pico: int, rates: Rates) -> bool:
    if name in _LIKE:
        return bool(pico == getattr(rates, _LIKE[name]))
    if name in {"cached", "cache_write", "cache_write_1h", "cache_write_12h"}:
        return pico == rates.input
    return name == "per_request" and not pico


def _usd(pico: int) -> str:
    text = format(Decimal(pico) / PICO, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def versions(table: PriceTable, deployment: Deployment, model: str, at_ms: int) -> frozenset[str]:
    """Return every price version that answers of a deployment and served model may have now."""
    tiers = dict.fromkeys((*TIERS, *table.stated_tiers(deployment.name)))
    return frozenset(
        table.sheet(deployment.name, model, tier, at_ms, place).version for tier in tiers for place in GEOGRAPHIES
    )


def listed(model: str, provider: str | None, region: str | None) -> list[Deployment]:
    """Return a deployment for every provider whose list, ours or the package's, names `model` exactly.

    `model` may be `provider/model`. `provider` is LiteLLM's name of one, or the package's.
    """
    head, slash, tail = model.partition("/")
    if provider is None and slash and PACKAGE_NAMES.get(head, head) in _sellers():
        provider, model = head, tail
    if provider is not None:
        return [_deployment(provider, model, region)]
    # The package lists Claude under Google, which sells it on Vertex only.
    claude = model.lower().startswith("claude")
    names = {
        each.id for each in providers if find_model(each, model) is not None and not (claude and each.id == "google")
    }
    names |= {each.provider for each in shipped() if model.lower() in each.models}
    return [_deployment(name, model, region) for name in sorted(names)]


def _deployment(provider: str, model: str, region: str | None) -> Deployment:
    ours = "vertex_ai" if provider.startswith("vertex_ai") else provider
    if region is None and ours == "vertex_ai":
        region = "global"
    base = f"azure/{model}" if ours in {"azure", "azure_ai"} else None
    return Deployment(
        name=f"{provider}/{model}", alias=model, provider=ours, model=model, base_model=base, region=region
    )


def everything() -> list[Deployment]:
    """Return a deployment for every model that the package or our list names."""
    named = {(each.id, model.id) for each in providers if each.id not in {"azure", "aws"} for model in each.models}
    named |= {("bedrock", model.id) for each in providers if each.id == "aws" for model in each.models}
    named |= {(each.provider, model) for each in shipped() for model in each.models if model != "*"}
    return [_deployment(provider, model, None) for provider, model in sorted(named)]


def _sellers() -> frozenset[str]:
    return frozenset({each.id for each in providers} | {each.provider for each in shipped()} | CLOUDS)


def nearest(model: str) -> list[str]:
    """Return at most five known names that are like `model`."""
    known = {each.model for each in everything()}
    return difflib.get_close_matches(model.rpartition("/")[2], sorted(known), n=5, cutoff=0.5)


def as_plain(found: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """Return entries as a snapshot keeps them: name → tier → version, and rates as texts."""
    kept: dict[str, dict[str, Any]] = {}
    for entry in found:
        rates = {_said(line): f"{line.usd} per {line.unit}" for line in entry.lines}
        kept.setdefault(entry.name, {})[entry.tier] = {"version": entry.version, "rates": rates}
    return kept


def _said(line: Line) -> str:
    return f"{line.rate} above {line.above:,} tokens" if line.above else line.rate


def compare(before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]) -> list[Change]:
    """Return every rate that two snapshots do not say alike, by name, tier and rate."""
    changes = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, {}), after.get(name, {})
        for tier in sorted({*old, *new}):
            was, now = (side.get(tier, {}).get("rates", {}) for side in (old, new))
            rates = sorted(rate for rate in {*was, *now} if was.get(rate) != now.get(rate))
            changes += [Change(name, tier, rate, was.get(rate, ""), now.get(rate, "")) for rate in rates]
    return changes
