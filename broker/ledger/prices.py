"""What an answer costs: deployments compiled once at start into rates in pico-dollars, looked up in under 1 µs.

Order of sources: the deployment's own prices in the configuration, the configuration's `price_overrides`, our list of
overrides, the package's published prices. What none of them knows has no price: None, never 0. A price the provider
states in its answer is kept beside ours in `raw_usage` and does not replace it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from genai_prices.types import ModelInfo

from broker.config import Deployment
from broker.ledger.overrides import GLOBAL, UNKNOWN_REGION, Override, parse, shipped
from broker.ledger.published import (
    BATCH,
    FOREVER,
    LIKE_TEXT,
    PACKAGE,
    STANDARD,
    STANDARD_TIERS,
    Published,
    find_model,
    published,
)
from broker.ledger.rates import Brackets, Flat, Tokens
from broker.ledger.regions import Seller, cloud_model, seller_of
from broker.ledger.stated import Stated, stated
from broker.ledger.units import Units, billed_units, count, units_in

PROVIDER_BATCH: Final = "provider-batch"
"""The lane of calls made through a provider's own batch API; our own batch lane makes ordinary calls at full price."""

MAX_SHEETS: Final = 10_000
"""Combinations of deployment, served model, tier and region that are kept; a served name comes from an upstream."""

CLOUDS: Final = frozenset({"azure", "bedrock", "vertex_ai"})

TELLING: Final = frozenset(
    {"server_tool_use", "num_search_queries", "num_sources_used", "inference_geo", "speed", "billed_units", "meta"}
)
"""Keys of a provider's usage that may tell of a fee, a place or a speed of its own (Anthropic, Perplexity, xAI), or of
what is billed rather than used (Cohere)."""

QUIET: Final = frozenset({"openai", "google", "groq", "mistral", "deepseek", "cerebras", "together", "fireworks"})
"""Sellers whose usage has none of these."""

PLAIN_GEOGRAPHIES: Final = frozenset({"", "global", "not_available"})
"""`inference_geo` of Anthropic's usage that carry no regional multiplier."""

PLAIN_SPEEDS: Final = frozenset({"", "standard"})
_NOWHERE: Final = (None, *PLAIN_GEOGRAPHIES)
_NO_SPEED: Final = (None, *PLAIN_SPEEDS)
_OTHERS_TELLING: Final = TELLING - {"server_tool_use", "inference_geo", "speed"}


_new: Final = tuple.__new__  # makes a named tuple in half the time


class Priced(NamedTuple):
    """What an answer costs.

    `cost_pico` is whole pico-dollars, None when no price is known; `price_version` says by which rates: their source
    and the hash of the rates used.
    """

    cost_pico: int | None
    price_version: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """Rates of one deployment, served model, tier and region while `from_ms` ≤ now < `until_ms`, and whose they are."""

    brackets: Brackets | None
    version: str
    source: str
    is_text: bool = False
    """Whether tokens and a fee per request are all there is to know."""
    is_quiet: bool = False
    """Whether its provider's usage has none of the keys of `TELLING`."""
    flat: tuple[Flat, ...] = ()
    """Where these hold for every plain answer, as with most chat models, its cost is found here."""
    from_ms: int = -FOREVER
    until_ms: int = FOREVER


class _Key(NamedTuple):
    deployment: str
    model: str
    tier: str
    region: str
    """As the answer names it; "" is the deployment's own."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a deployment's prices come from: its own, or whoever sells its answers."""

    own: Stated | None
    seller: Seller | None
    model: str


@dataclass(frozen=True, slots=True)
class _Billed:
    """Tokens as a provider bills them, where that is not what was used."""

    input_tokens: int
    output_tokens: int
    units: Units | None = None
    raw: Mapping[str, Any] | None = None
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0


class PriceTable:
    """Prices of every deployment; made with `compile`."""

    def __init__(self, sources: Mapping[str, _Source], overrides: Sequence[Override]) -> None:
        self._sources = sources
        self._overrides = overrides
        self._sheets: dict[tuple[str, str, str, str], Sheet] = {}

    @classmethod
    def compile(
        cls, deployments: Sequence[Deployment], overrides: Sequence[Mapping[str, Any]] = (), now_ms: int = 0
    ) -> "PriceTable":
        """Make the table. `overrides` is the configuration's `price_overrides`, before our own list.

        Raises `ConfigError` naming the price that cannot be used.
        """
        sources = {each.name: _source(each) for each in deployments}
        table = cls(sources, [*parse(overrides, "price_overrides"), *shipped()])
        for each in deployments:
            table.sheet(each.name, each.model, STANDARD, now_ms)
        return table

    def price(  # noqa: PLR0913, PLR0917 - one argument per thing a price depends on
        self, deployment: str, model: str, usage: Tokens, service_tier: str | None, lane: str, at_ms: int
    ) -> Priced:
        """Cost of one answer of `deployment`, by the model and the tier that the provider says it served.

        An empty `model` stands for the deployment's own. `service_tier` None is the standard one. `at_ms` is when the
        call started, unix milliseconds. A deployment that was not compiled has no price.
        """
        tier = BATCH if lane == PROVIDER_BATCH else (service_tier or STANDARD)
        key = (deployment, model, tier, GLOBAL)
        sheet = self._sheets.get(key)
        if sheet is None or not sheet.from_ms <= at_ms < sheet.until_ms:
            sheet = self._find(_Key(*key), at_ms)
        if sheet.brackets is None:
            return Priced(None, sheet.version)
        raw = usage.raw
        if (
            not sheet.is_text
            or usage.units is not None
            or usage.audio_tokens
            or usage.cache_write_tokens
            or not (raw is None or sheet.is_quiet or TELLING.isdisjoint(raw) or _tells_nothing(raw))
        ):
            return self._told(_Key(*key), sheet, usage, at_ms)
        given, cached, output = usage.input_tokens, usage.cached_tokens, usage.output_tokens
        if given >= cached >= 0 and output >= 0:
            for above, fee, text_rate, cached_rate, output_rate in sheet.flat:
                if given > above:
                    cost = fee + (given - cached) * text_rate + cached * cached_rate + output * output_rate
                    return _new(Priced, (cost, sheet.version))
        return Priced(sheet.brackets.text(usage), sheet.version)

    def sheet(self, deployment: str, model: str, tier: str, at_ms: int, place: str = GLOBAL) -> Sheet:
        """Return the rates by which answers of a deployment are priced; `model` and `tier` are as in `price`.

        `place` is where an answer says it was made, if it does.
        """
        return self._find(_Key(deployment, model, tier, place), at_ms)

    def _told(self, key: _Key, sheet: Sheet, usage: Tokens, at_ms: int) -> Priced:
        """Price an answer whose usage tells more than tokens of text."""
        raw = usage.raw or {}
        if self._sources[key.deployment].own is None:
            changed = _as_served(key, raw)
            if changed is None:
                return Priced(None, sheet.version)
            if changed != key:
                sheet = self._find(changed, at_ms)
        units = units_in(raw)
        if usage.units is not None:
            units = usage.units.with_(units)
        billed = billed_units(raw)
        if billed is not None:
            usage, units = _billed(usage, billed, units)
        sided = _with_audio(usage, units)
        if sheet.brackets is None or sided is None:
            return Priced(None, sheet.version)
        return Priced(sheet.brackets.amount(usage, sided), sheet.version)

    def _find(self, key: _Key, at_ms: int) -> Sheet:
        if len(self._sheets) >= MAX_SHEETS:
            self._sheets.clear()
        source = self._sources.get(key.deployment)
        sheet = Sheet(None, "", "no such deployment") if source is None else self._sheet(source, key, at_ms)
        self._sheets[key] = sheet
        return sheet

    def _sheet(self, source: _Source, key: _Key, at_ms: int) -> Sheet:
        tier = STANDARD if key.tier in STANDARD_TIERS else key.tier
        seller = source.seller
        if source.own is not None:
            brackets = source.own.of(
                tier, key.region or (seller.region if seller else GLOBAL).replace(UNKNOWN_REGION, GLOBAL)
            )
            return _made(brackets, "config", "the deployment's own prices")
        if seller is None:
            return Sheet(None, f"{PACKAGE}+unpriced", "nobody publishes prices of this address")
        name = seller.base_model or key.model or source.model
        return self._sold(seller, name, tier, key.region or seller.region, at_ms)

    def _sold(self, seller: Seller, name: str, tier: str, region: str, at_ms: int) -> Sheet:
        """Return what a seller's list says: overrides first; a region without an entry has no price."""
        model = _model(seller, name)
        if seller.name == "bedrock":
            region = GLOBAL  # its profiles and regions are models of their own there
        names = {name, model.id} if model is not None else {name}
        override, from_ms, until_ms = self._override(seller, names, tier, region, at_ms)
        if override is None:
            found = (
                Sheet(None, f"{PACKAGE}+unpriced", f"no known price in region {region}")
                if region
                else _published(seller, model, tier, at_ms)
            )
        elif override.times is None:
            found = _made(override.brackets, "override", f"override, {override.source}")
        else:
            found = self._compared(override, seller, name, tier, region, at_ms)
        quiet = seller.name in QUIET
        return replace(
            found, is_quiet=quiet, from_ms=max(from_ms, found.from_ms), until_ms=min(until_ms, found.until_ms)
        )

    def _compared(  # noqa: PLR0913, PLR0917 - what it is compared to is found as the sheet itself is
        self, override: Override, seller: Seller, name: str, tier: str, region: str, at_ms: int
    ) -> Sheet:
        if region:
            base = self._sold(seller, name, tier, GLOBAL, at_ms)
        elif tier:
            base = self._sold(seller, name, STANDARD, GLOBAL, at_ms)
        else:
            base = _published(seller, _model(seller, name, moving=True), STANDARD, at_ms)
        brackets = override.apply(base.brackets)
        if override.times == 1 and brackets == base.brackets:
            return base
        where = "" if base.brackets is None else f", of {base.source}"
        made = _made(brackets, "override", f"override, {override.source}{where}")
        return replace(made, from_ms=base.from_ms, until_ms=base.until_ms)

    def _override(
        self, seller: Seller, names: set[str], tier: str, region: str, at_ms: int
    ) -> tuple[Override | None, int, int]:
        """Return the entry that holds at `at_ms` and the span in which that answer stays the same."""
        providers = {seller.name}
        if seller.provider is not None and not region and not tier:
            providers.add(seller.provider.id)
        covering = [
            each
            for each in self._overrides
            if each.provider in providers
            and any(each.covers(provider, name, tier, region) for provider in providers for name in names)
        ]
        found = next((each for each in covering if each.from_ms <= at_ms), None)
        from_ms = max((each.from_ms for each in covering if each.from_ms <= at_ms), default=-FOREVER)
        until_ms = min((each.from_ms for each in covering if each.from_ms > at_ms), default=FOREVER)
        return found, from_ms, until_ms

    def stated_tiers(self, deployment: str) -> Iterator[str]:
        """Yield the tiers that the configuration or an override names, beside the standard one."""
        source = self._sources[deployment]
        if source.own is not None:
            yield from source.own.tiers
        elif source.seller is not None:
            yield from (each.tier for each in self._overrides if each.provider == source.seller.name)


def _tells_nothing(raw: Mapping[str, Any]) -> bool:
    """Whether such keys say nothing, as in Anthropic's plain answers; in tuples, as a value may be anything."""
    get = raw.get
    return (
        not get("server_tool_use")
        and get("inference_geo") in _NOWHERE
        and get("speed") in _NO_SPEED
        and _OTHERS_TELLING.isdisjoint(raw)
    )


def _made(brackets: Brackets | None, kind: str, source: str) -> Sheet:
    version = f"{kind}+{brackets.digest()}" if brackets else f"{kind}+unpriced"
    if brackets is None or not brackets.is_text:
        return Sheet(brackets, version, source)
    return Sheet(brackets, version, source, is_text=True, flat=brackets.flat)


def _published(seller: Seller, model: ModelInfo | None, tier: str, at_ms: int) -> Sheet:
    if model is None:
        return Sheet(None, f"{PACKAGE}+unpriced", "a model that nobody's list names")
    cloud = seller.name in CLOUDS
    like_text = seller.provider is not None and seller.provider.id in LIKE_TEXT
    found = published(model, tier, at_ms, audio_like_text=like_text)
    if cloud and tier:
        found = Published(None, found.from_ms, found.until_ms)  # the tiers of a cloud are not those of the maker
    made = _made(found.brackets, PACKAGE, f"{PACKAGE}, {model.id}")
    return replace(made, from_ms=found.from_ms, until_ms=found.until_ms)


def _model(seller: Seller, name: str, *, moving: bool = False) -> ModelInfo | None:
    """Find the package's model; `moving` lets a `-latest` name through that an override vouches for."""
    provider = seller.provider
    if provider is None:
        return None
    found = cloud_model(seller, name) if seller.name in CLOUDS else find_model(provider, name)
    if found is None and moving:
        found = next((each for each in provider.models if each.id.lower() == name.lower()), None)
    return found


def _source(deployment: Deployment) -> _Source:
    seller = seller_of(deployment)
    own = stated(deployment.prices, deployment.name, deployment.provider)
    return _Source(own, seller, deployment.model)


def _as_served(key: _Key, raw: Mapping[str, Any]) -> _Key | None:
    """Return the key with the speed and the place an answer names; None where they cannot be understood."""
    speed, place = raw.get("speed") or "", raw.get("inference_geo") or ""
    if not isinstance(speed, str) or not isinstance(place, str):
        return None
    if speed not in PLAIN_SPEEDS and speed != key.tier:
        if key.tier not in STANDARD_TIERS:
            return None
        key = key._replace(tier=speed)
    return key if place in PLAIN_GEOGRAPHIES else key._replace(region=place.lower())


def _billed(usage: Tokens, billed: Mapping[str, Any], units: Units) -> tuple[_Billed, Units]:
    """Read Cohere's billed units: docs.cohere.com/reference, `meta.billed_units`."""
    text, pictures = count(billed, "text_tokens"), count(billed, "image_tokens")
    given = count(billed, "input_tokens")
    unclear = bool(pictures and given and not text)  # nobody says whether the one is part of the other
    others = sum(count(billed, name) for name in ("classifications", "pages"))
    more = Units(
        image_input=pictures,
        tells_input=True,
        images_given=0 if pictures else count(billed, "images"),
        search_units=count(billed, "search_units"),
        unpriced=others + unclear,
    )
    tokens = text + pictures if text or pictures else given
    cached = min(usage.cached_tokens, tokens)
    return _Billed(tokens, count(billed, "output_tokens"), cached_tokens=cached), more.with_(units)


def _with_audio(usage: Tokens, units: Units) -> Units | None:
    """Return the units with audio tokens on their side where usage tells their sum only; None where it is unclear."""
    audio = usage.audio_tokens
    if not audio or units.audio_input + units.audio_output == audio:
        return units
    if units.audio_input or units.audio_output:
        return None
    if not usage.output_tokens:
        return replace(units, audio_input=audio)
    return None if usage.input_tokens else replace(units, audio_output=audio)
