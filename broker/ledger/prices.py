"""What an answer costs: deployments compiled once at start into rates in pico-dollars, looked up in under 1 µs.

Order of sources: the deployment's own prices in the configuration, the configuration's `price_overrides`, our list of
overrides, the package's published prices. What none of them knows has no price: None, never 0. A price the provider
states in its answer is kept beside ours in `raw_usage` and does not replace it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from genai_prices.types import ModelInfo, Provider

from broker.config import Deployment, Prices
from broker.ledger.overrides import STANDARD_RATES, Override, exact_pico, parse, shipped
from broker.ledger.published import (
    BATCH,
    FOREVER,
    PACKAGE,
    STANDARD,
    STANDARD_TIERS,
    find_model,
    provider_at,
    provider_of,
    published,
)
from broker.ledger.rates import Brackets, Rates, Tokens, has_unseen_fees

PROVIDER_BATCH: Final = "provider-batch"
"""The lane of calls made through a provider's own batch API; our own batch lane makes ordinary calls at full price."""

MAX_SHEETS: Final = 10_000
"""Combinations of deployment, served model and tier that are kept; a served name comes from an upstream."""

_PACKAGE_NAMES: Final = {
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "moonshot": "moonshotai",
    "text-completion-openai": "openai",
    "together_ai": "together",
    "voyage": "voyageai",
    "xai": "x-ai",
    "azure_ai": "azure",
    "azure_text": "azure",
    "bedrock": "aws",
    "vertex_ai": "google",
}
"""Our provider names (LiteLLM's) to the package's, where they differ."""

_NAMED_BY_REGION: Final = frozenset({"azure", "azure_ai", "azure_text", "bedrock", "vertex_ai"})
"""Providers whose price depends on a region and whose model names are the user's own: `base_model` says the price."""

_LOOPBACK: Final = re.compile(r"^https?://(localhost|127\.|\[::1\]|0\.0\.0\.0)", re.IGNORECASE)


class Priced(NamedTuple):
    """What an answer costs.

    `cost_pico` is whole pico-dollars, None when no price is known; `price_version` says by which rates: their source
    and the hash of the rates used.
    """

    cost_pico: int | None
    price_version: str


@dataclass(frozen=True, slots=True)
class _Sheet:
    """Rates of one deployment, served model and tier while `from_ms` ≤ now < `until_ms`."""

    brackets: Brackets | None
    version: str
    checks_fees: bool
    from_ms: int = -FOREVER
    until_ms: int = FOREVER


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a deployment's prices come from: its own, or the package's provider and a fixed model name."""

    own: Brackets | None
    provider: Provider | None
    base_model: str | None
    model: str


class PriceTable:
    """Prices of every deployment; made with `compile`."""

    def __init__(self, sources: Mapping[str, _Source], overrides: Sequence[Override]) -> None:
        self._sources = sources
        self._overrides = overrides
        self._sheets: dict[tuple[str, str, str], _Sheet] = {}

    @classmethod
    def compile(
        cls, deployments: Sequence[Deployment], overrides: Sequence[Mapping[str, Any]] = (), now_ms: int = 0
    ) -> "PriceTable":
        """Make the table. `overrides` is the configuration's `price_overrides`, before our own list.

        Raises `ConfigError` naming the price that cannot be used.
        """
        table = cls(
            {each.name: _source(each) for each in deployments}, [*parse(overrides, "price_overrides"), *shipped()]
        )
        for each in deployments:
            table._find((each.name, each.model, STANDARD), now_ms)
        return table

    def price(  # noqa: PLR0913, PLR0917 - one argument per thing a price depends on
        self, deployment: str, model: str, usage: Tokens, service_tier: str | None, lane: str, at_ms: int
    ) -> Priced:
        """Cost of one answer of `deployment`, by the model and the tier that the provider says it served.

        An empty `model` stands for the deployment's own. `service_tier` None is the standard one. `at_ms` is when the
        call started, unix milliseconds. A deployment that was not compiled has no price.
        """
        tier = BATCH if lane == PROVIDER_BATCH else (service_tier or STANDARD)
        key = (deployment, model, tier)
        sheet = self._sheets.get(key)
        if sheet is None or not sheet.from_ms <= at_ms < sheet.until_ms:
            sheet = self._find(key, at_ms)
        if sheet.brackets is None or (sheet.checks_fees and usage.raw and has_unseen_fees(usage.raw, tier)):
            return Priced(None, sheet.version)
        return Priced(sheet.brackets.amount(usage), sheet.version)

    def _find(self, key: tuple[str, str, str], at_ms: int) -> _Sheet:
        if len(self._sheets) >= MAX_SHEETS:
            self._sheets.clear()
        source = self._sources.get(key[0])
        sheet = self._sheets[key] = (
            _Sheet(None, "", checks_fees=False) if source is None else self._sheet(source, key, at_ms)
        )
        return sheet

    def _sheet(self, source: _Source, key: tuple[str, str, str], at_ms: int) -> _Sheet:
        _, served, tier = key
        if source.own is not None:
            return _Sheet(source.own, f"config+{source.own.digest()}", checks_fees=False)
        if source.provider is None:
            return _Sheet(None, f"{PACKAGE}+unpriced", checks_fees=False)
        name = source.base_model or served or source.model
        tier = STANDARD if tier in STANDARD_TIERS else tier
        override, from_ms, until_ms = self._override(source.provider.id, name, tier, at_ms)
        if override is not None and override.rates != STANDARD_RATES:
            version = f"override+{override.brackets.digest()}" if override.brackets else "override+unpriced"
            return _Sheet(override.brackets, version, checks_fees=True, from_ms=from_ms, until_ms=until_ms)
        model = _model(source, name, moving=override is not None)
        if model is None:
            return _Sheet(None, f"{PACKAGE}+unpriced", checks_fees=False, from_ms=from_ms, until_ms=until_ms)
        found = published(model, STANDARD if override is not None else tier, at_ms)
        digest = found.brackets.digest() if found.brackets else "unpriced"
        first, last = max(from_ms, found.from_ms), min(until_ms, found.until_ms)
        return _Sheet(found.brackets, f"{PACKAGE}+{digest}", checks_fees=True, from_ms=first, until_ms=last)

    def _override(self, provider: str, name: str, tier: str, at_ms: int) -> tuple[Override | None, int, int]:
        """Return the entry that holds at `at_ms` and the span in which that answer stays the same."""
        covering = [each for each in self._overrides if each.covers(provider, name, tier)]
        found = next((each for each in covering if each.from_ms <= at_ms), None)
        from_ms = max((each.from_ms for each in covering if each.from_ms <= at_ms), default=-FOREVER)
        until_ms = min((each.from_ms for each in covering if each.from_ms > at_ms), default=FOREVER)
        return found, from_ms, until_ms


def _model(source: _Source, name: str, *, moving: bool) -> ModelInfo | None:
    """Find the package's model; `moving` lets a `-latest` name through that an override vouches for."""
    provider = source.provider
    if provider is None:
        return None
    found = find_model(provider, name)
    if found is None and moving:
        found = next((each for each in provider.models if each.id.lower() == name.lower()), None)
    if found is None and source.base_model:
        others = (provider_of(each) for each in provider.fallback_model_providers or ())
        found = next((model for each in others if each and (model := find_model(each, name))), None)
    return found


def _source(deployment: Deployment) -> _Source:
    own = _own_prices(deployment.prices, deployment.name)
    if deployment.base_model:
        head, _, tail = deployment.base_model.partition("/")
        named = provider_of(_PACKAGE_NAMES.get(head, head)) if tail else None
        provider = named or provider_of(_PACKAGE_NAMES.get(deployment.provider, deployment.provider))
        return _Source(own, provider, tail if named else deployment.base_model, deployment.model)
    return _Source(own, _provider(deployment), None, deployment.model)


def _provider(deployment: Deployment) -> Provider | None:
    """Whose prices hold: by the address called, else by the provider's name; None where nobody publishes them."""
    if deployment.provider in _NAMED_BY_REGION:
        return None
    if deployment.api_base is None:
        return provider_of(_PACKAGE_NAMES.get(deployment.provider, deployment.provider))
    if _LOOPBACK.match(deployment.api_base):
        return None
    found = provider_at(deployment.api_base)
    return None if found is None or found.id in {"azure", "aws"} else found


def _own_prices(prices: Prices, name: str) -> Brackets | None:
    """Rates of the configuration. Cached tokens without a price of their own cost what input costs.

    With a price per request alone, tokens are free of charge.
    """
    stated = {key: value for key, value in prices if value is not None}
    if not stated:
        return None
    pico = {key: exact_pico(value, f"{name}: {key}") for key, value in stated.items()}
    free = 0 if stated.keys() == {"input_cost_per_request"} else None
    plain = pico.get("input_cost_per_token", free)
    return Brackets(
        Rates(
            input=plain,
            output=pico.get("output_cost_per_token", free),
            cached=pico.get("cache_read_input_token_cost", plain),
            cache_write=pico.get("cache_creation_input_token_cost", plain),
            per_request=pico.get("input_cost_per_request", 0),
        )
    )
