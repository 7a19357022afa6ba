"""Published prices: the data of `genai-prices` as rates of our own. Its calculator and its updater are never called.

A model is found by its exact name, by a pattern that spells a whole name, or as a dated snapshot that the package
itself counts to that name. Prefixes, suffixes and substrings alone do not match: a new model whose name starts like a
known one has no known price. Names that move (`-latest`) are stale in the package and are found only by overrides.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.metadata import version
from typing import Final

from genai_prices.data import providers
from genai_prices.types import (
    ClauseEquals,
    ClauseOr,
    ClauseRegex,
    ConditionalPrice,
    MatchLogic,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from broker.ledger.money import to_pico
from broker.ledger.rates import Brackets, Rates, rates_of

PACKAGE: Final = f"genai-prices-{version('genai-prices')}"

BATCH: Final = "batch"
"""The tier of a provider's own batch API."""

STANDARD: Final = ""
STANDARD_TIERS: Final = frozenset({"", "default", "standard", "on_demand"})
"""Names providers give the standard tier in an answer: OpenAI `default`, Anthropic `standard`, Groq `on_demand`."""

SEARCHES: Final = frozenset({"web_searches_kcount", "storage_searches_kcount"})
"""Fees of tools: the same in every tier, and no price of a model by themselves."""

DAY_MS: Final = 86_400_000
FOREVER: Final = 1 << 62
SATURDAY: Final = 5

_SNAPSHOT: Final = re.compile(r"[-@](?:20\d{2}-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01]))(?:-v\d+(?::\d+)?)?$")
_GEMINI_STABLE: Final = re.compile(r"^gemini-.*(-\d{3})$")
_WHOLE: Final = re.compile(r"^\^.*\$$", re.DOTALL)

_FIELDS: Final = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cached",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output",
    "cache_audio_read_mtok": "audio_cached",
    "input_image_mtok": "image_input",
    "output_image_mtok": "image_output",
    "cache_image_read_mtok": "image_cached",
    "input_mchars": "character",
    "input_audio_hours": "hour",
    "web_searches_kcount": "web_search",
    "storage_searches_kcount": "file_search",
}
_PER: Final = {"mtok": 1_000_000, "mchars": 1_000_000, "hours": 1, "kcount": 1_000}
"""Units of the package by the ends of its names → how many of ours one price is for."""
_TOLD_ELSEWHERE: Final = frozenset({"social_searches_kcount", "code_executions_kcount"})
"""Fees of tools, whose use `units_in` finds in the answer's usage."""
_LIKE: Final = {"input": "input_mtok", "output": "output_mtok", "cache": "cache_read_mtok"}
LIKE_TEXT: Final = frozenset({"google"})
"""Whose sound costs what text costs where they publish no price of it: ai.google.dev/gemini-api/docs/pricing."""

Price = Decimal | TieredPrices


@dataclass(frozen=True, slots=True)
class Published:
    """What the package says of one model and tier at one time, and until when it says so (unix ms, end not included).

    `brackets` is None where it knows no price, or none that can be told from the standard one.
    """

    brackets: Brackets | None
    from_ms: int = -FOREVER
    until_ms: int = FOREVER


def provider_of(name: str) -> Provider | None:
    """Return the package's provider of this id."""
    return next((each for each in providers if each.id == name), None)


def provider_at(url: str) -> Provider | None:
    """Return the provider whose API answers at this URL; None for hosts of anyone else and for regional ones."""
    for each in providers:
        if re.match(f"(?:{each.api_pattern})", url):
            if each.id == "google" and not re.match(r"https://(generativelanguage|aiplatform)\.googleapis\.com", url):
                return None
            return each
    return None


def find_model(provider: Provider, name: str) -> ModelInfo | None:
    """Return the model of exactly this name, or the one this name is a dated snapshot of."""
    name = name.lower()
    if name.endswith("-latest"):
        return None
    for model in provider.models:
        if _is_exactly(model, name):
            return model
    for pattern in (_SNAPSHOT, _GEMINI_STABLE):
        found = pattern.search(name)
        if found is None:
            continue
        stem = name[: found.start(pattern.groups)]
        for model in provider.models:
            if _is_exactly(model, stem) and model.is_match(name):
                return model
    return None


def _is_exactly(model: ModelInfo, name: str) -> bool:
    return model.id.lower() == name or any(_spells(clause, name) for clause in _alternatives(model.match))


def _alternatives(clause: MatchLogic) -> Iterator[MatchLogic]:
    if isinstance(clause, ClauseOr):
        for each in clause.or_:
            yield from _alternatives(each)
    else:
        yield clause


def _spells(clause: MatchLogic, name: str) -> bool:
    if isinstance(clause, ClauseEquals):
        return clause.equals.lower() == name
    if isinstance(clause, ClauseRegex) and _WHOLE.match(clause.regex):
        return ".*" not in clause.regex and clause.is_match(name)
    return False


def published(model: ModelInfo, tier: str, at_ms: int, *, audio_like_text: bool = False) -> Published:
    """Rates of a model in a tier at a time.

    A tier's rate counts only where the package states one that differs from the standard rate: it answers with the
    standard price for tiers it does not know.
    """
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    from_ms, until_ms = _validity(model, at_ms)
    if _has_daily_window(model, at) and at.weekday() >= SATURDAY:
        return Published(None, from_ms, until_ms)  # the provider's windows are of weekdays, the package's are daily
    standard = _stated(model.get_prices(at))
    brackets = _brackets(standard, like_text=audio_like_text)
    if brackets is not None and tier not in STANDARD_TIERS:
        brackets = _tier_brackets(_of_tier(model, tier, at, standard), standard, like_text=audio_like_text)
    return Published(brackets, from_ms, until_ms)


def _tier_brackets(stated: Mapping[str, Price], standard: Mapping[str, Price], *, like_text: bool) -> Brackets | None:
    missing = frozenset(standard.keys() - stated.keys())
    if not stated or "requests_kcount" in missing:
        return None
    searches = {key: standard[key] for key in missing if key in SEARCHES}
    return _brackets({**stated, **searches}, missing - SEARCHES, like_text=like_text)


def _of_tier(model: ModelInfo, tier: str, at: datetime, standard: Mapping[str, Price]) -> dict[str, Price]:
    own: dict[str, Price] = {}
    for variant in model.price_variants or ():
        if variant.constraint is not None and not variant.constraint.active(at):
            continue
        if variant.when not in ({"service_tier": tier}, {"processing": tier}, {"speed": tier}):
            continue
        for key, price in _stated(variant.prices).items():
            own.setdefault(key, price)
    return {key: price for key, price in own.items() if price != standard.get(key) or not price}


def _stated(prices: ModelPrice) -> dict[str, Price]:
    return {key: price for key, price in vars(prices).items() if isinstance(price, Decimal | TieredPrices)}


def _brackets(
    stated: Mapping[str, Price], missing: frozenset[str] = frozenset(), *, like_text: bool
) -> Brackets | None:
    """Return None where the model has a rate in a unit that our usage does not count, or none at all.

    `missing` are the rates that the standard tier has and this one does not state: not known, rather than like text.
    """
    counted = {key: price for key, price in stated.items() if key in _FIELDS or key == "requests_kcount"}
    others = {key for key in stated if key not in counted and key not in _TOLD_ELSEWHERE}
    if "hour" in {_FIELDS.get(key) for key in counted}:
        others.discard("audio_hours")  # says the same of sound in either direction
    if counted.keys() <= SEARCHES or any(not _costs_like_text(key, stated) for key in others):
        return None
    starts = {step.start for price in counted.values() if isinstance(price, TieredPrices) for step in price.tiers}
    steps = tuple((start, _rates(counted, missing, start + 1, like_text)) for start in sorted(starts, reverse=True))
    return Brackets(_rates(counted, missing, 0, like_text), steps)


def _costs_like_text(key: str, stated: Mapping[str, Price]) -> bool:
    """Whether something that is not counted apart costs what text costs, so that nobody needs its number."""
    return key.endswith("_mtok") and stated[key] == stated.get(_LIKE[key.split("_", 1)[0]])


def _rates(stated: Mapping[str, Price], missing: frozenset[str], input_tokens: int, like_text: bool) -> Rates:  # noqa: FBT001 - handed on
    found: dict[str, int | None] = {_FIELDS[key]: None for key in missing if key in _FIELDS}
    found |= {_FIELDS[key]: _pico(key, price, input_tokens) for key, price in stated.items() if key in _FIELDS}
    fee = stated.get("requests_kcount")
    return rates_of(
        found,
        audio_like_text=like_text,
        per_request=0 if fee is None else _pico("requests_kcount", fee, input_tokens),
    )


def _pico(key: str, price: Price, input_tokens: int) -> int:
    return to_pico(_at(price, input_tokens) / _PER[key.rpartition("_")[2]])


def _at(price: Price, input_tokens: int) -> Decimal:
    if isinstance(price, Decimal):
        return price
    above = [step.price for step in price.tiers if input_tokens > step.start]
    return above[-1] if above else price.base


def _constraints(model: ModelInfo) -> Iterator[StartDateConstraint | TimeOfDateConstraint]:
    conditional: list[ConditionalPrice] = model.prices if isinstance(model.prices, list) else []
    for each in (*conditional, *(model.price_variants or ())):
        if each.constraint is not None:
            yield each.constraint


def _has_daily_window(model: ModelInfo, at: datetime) -> bool:
    """Whether a daily window decides the price of the day of `at`: one that no later start date has replaced."""
    if not isinstance(model.prices, list):
        return False
    for each in reversed(model.prices):
        if isinstance(each.constraint, TimeOfDateConstraint):
            return True
        if each.constraint is None or each.constraint.active(at):
            return False
    return False


def _validity(model: ModelInfo, at_ms: int) -> tuple[int, int]:
    """Return the widest known span around `at_ms` in which nothing about the model's prices changes."""
    midnight = at_ms - at_ms % DAY_MS
    moments: list[int] = []
    for each in _constraints(model):
        if isinstance(each, StartDateConstraint):
            moments.append(_day_ms(each.start_date))
        else:
            moments += [midnight, midnight + _time_ms(each.start_time), midnight + _time_ms(each.end_time)]
            moments.append(midnight + DAY_MS)
    before = [moment for moment in moments if moment <= at_ms]
    after = [moment for moment in moments if moment > at_ms]
    return max(before, default=-FOREVER), min(after, default=FOREVER)


def _day_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def _time_ms(moment: time) -> int:
    at = datetime.combine(date(1970, 1, 1), moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return int(at.timestamp() * 1000) % DAY_MS
