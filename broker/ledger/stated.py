"""Prices of a deployment as its configuration states them, as rates by tier. Imports configuration models."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from broker.config import Prices
from broker.config.price_names import SEARCH_CONTEXT, UPLIFTS, price_name
from broker.errors import ConfigError
from broker.ledger.money import to_pico
from broker.ledger.published import STANDARD
from broker.ledger.rates import FEES, SECONDS_PER_HOUR, Brackets, Rates, rates_of

ANY_REGION: Final = "*"
BY_CONTEXT: Final = "perplexity"
"""The provider whose requests cost a fee by the size of their search context: docs.perplexity.ai."""


@dataclass(frozen=True, slots=True)
class Stated:
    """A deployment's own prices: brackets by tier, the standard one `""`, and factors by region."""

    tiers: Mapping[str, Brackets]
    uplifts: Mapping[str, Decimal]

    def of(self, tier: str, region: str) -> Brackets | None:
        """Return the rates of a tier in a region, "" a provider's global one; None where the tier has no price.

        Where no tier but the standard one is stated, its prices hold for every tier.
        """
        found = self.tiers.get(tier) if len(self.tiers) > 1 else self.tiers.get(STANDARD)
        factor = self.uplifts.get(region, self.uplifts.get(ANY_REGION)) if region else None
        return found if found is None or factor is None else found.times(factor, factor)


def exact_pico(usd: Decimal, where: str) -> int:
    """Whole pico-dollars of a rate; raises `ConfigError` for one so small that it would become free of charge."""
    pico = to_pico(usd)
    if usd and not pico:
        raise ConfigError(f"{where}: {usd} USD is less than the ledger's smallest unit, 1e-12 USD")
    return pico


def stated(prices: Prices, deployment: str, provider: str) -> Stated | None:
    """Read a deployment's prices; None where there are none.

    Tokens without a price of their own cost what input costs where they are input, sound and pictures what text costs.
    With a price per request alone, tokens are free of charge. Raises `ConfigError` naming the price that is too small.
    """
    known = {name: value for name, value in prices if value is not None}
    found: dict[str, dict[int, dict[str, int]]] = {}
    for name, value in known.items():
        read = price_name(name)
        if read is not None:
            by_second = SECONDS_PER_HOUR if read.rate == "hour" else 1
            rates = found.setdefault(read.tier, {}).setdefault(read.above, {})
            rates[read.rate] = exact_pico(value * by_second, f"{deployment}: {name}")
    contexts = _contexts(known.get(SEARCH_CONTEXT), deployment)
    if not found and not contexts:
        return None
    if contexts and provider != BY_CONTEXT:
        contexts = _as_searches(contexts, found)
    standard = found.setdefault(STANDARD, {})
    tiers = {tier: _brackets(sizes, contexts, {} if tier == STANDARD else standard) for tier, sizes in found.items()}
    return Stated(tiers, {UPLIFTS[name]: value for name, value in known.items() if name in UPLIFTS})


def _contexts(sizes: object, deployment: str) -> tuple[tuple[str, int], ...]:
    if not isinstance(sizes, Mapping):
        return ()
    return tuple(
        (size.rpartition("_")[2], exact_pico(value, f"{deployment}: {SEARCH_CONTEXT}.{size}"))
        for size, value in sorted(sizes.items())
    )


def _as_searches(
    contexts: tuple[tuple[str, int], ...], found: dict[str, dict[int, dict[str, int]]]
) -> tuple[tuple[str, int], ...]:
    """The fee is one of a web search at every other provider; usage tells their number and not their size."""
    fees = {fee for _, fee in contexts}
    if len(fees) == 1:
        for sizes in (found.setdefault(STANDARD, {}), *found.values()):
            sizes.setdefault(0, {})["web_search"] = min(fees)
    return ()


def _brackets(
    sizes: Mapping[int, Mapping[str, int]],
    contexts: tuple[tuple[str, int], ...],
    standard: Mapping[int, Mapping[str, int]],
) -> Brackets:
    """`standard` are the standard tier's: what it prices and this one does not is unknown here, but for fees."""
    steps = sorted({*sizes, *standard} - {0}, reverse=True)
    return Brackets(
        _rates(_at(sizes, 0), _at(standard, 0), contexts),
        tuple((step, _rates(_at(sizes, step), _at(standard, step), contexts)) for step in steps),
    )


def _at(sizes: Mapping[int, Mapping[str, int]], step: int) -> dict[str, int]:
    """Each rate as it is above `step` tokens: that of the largest step that does not lie above it."""
    merged: dict[str, int] = {}
    for above in sorted(sizes):
        if above <= step:
            merged |= sizes[above]
    return merged


def _rates(own: Mapping[str, int], standard: Mapping[str, int], contexts: tuple[tuple[str, int], ...]) -> Rates:
    missing: dict[str, int | None] = {
        name: standard[name] if name in FEES else None for name in standard.keys() - own.keys()
    }
    known: dict[str, int | None] = {**missing, **own}
    fee = known.pop("per_request", None)
    if not known and (fee is not None or contexts):
        known = {"input": 0, "output": 0}
    made = rates_of(
        known,
        audio_like_text=True,
        flat_writes=not {"cache_write", "cache_write_1h"} & known.keys(),
        per_request=fee or 0,
        by_context=contexts,
    )
    nothing = {"input", "output"} <= known.keys() and not any(rate != 0 for rate in known.values())
    return replace(made, free=True) if nothing and not contexts else made
