"""Prices that a configuration states by LiteLLM's names, and properties of every price."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.config import Prices
from broker.errors import ConfigError
from broker.ledger.prices import PROVIDER_BATCH, PriceTable
from broker.ledger.units import Units
from tests.unit.ledger.priced import MTOK, NOON, USD, Used, cost, deployment


def own(provider: str = "openai", **prices: Any) -> Any:
    return deployment(provider, "ours", prices=Prices.model_validate(prices))


BY_TIER = {
    "input_cost_per_token": "1e-6",
    "output_cost_per_token": "2e-6",
    "input_cost_per_token_flex": "5e-7",
    "output_cost_per_token_flex": "1e-6",
    "input_cost_per_token_batches": "4e-7",
}


def test_a_tier_costs_its_own_prices_and_one_that_is_not_named_is_unknown() -> None:
    served = own(**BY_TIER)
    assert cost(served, Used(1000, 10)) == 1000 * MTOK + 10 * 2 * MTOK
    assert cost(served, Used(1000, 10), tier="flex") == 1000 * 500_000 + 10 * MTOK
    assert cost(served, Used(1000), lane=PROVIDER_BATCH) == 1000 * 400_000
    assert cost(served, Used(1000, 10), lane=PROVIDER_BATCH) is None
    assert cost(served, Used(1000), tier="priority") is None


def test_prices_of_no_tier_hold_for_every_tier() -> None:
    assert cost(own(input_cost_per_token="1e-6"), Used(1000), tier="priority") == 1000 * MTOK


def test_prices_above_a_size_hold_for_the_whole_request() -> None:
    served = own(
        input_cost_per_token="1e-6", output_cost_per_token="2e-6", input_cost_per_token_above_200k_tokens="3e-6"
    )
    assert cost(served, Used(200_000, 10)) == 200_000 * MTOK + 10 * 2 * MTOK
    assert cost(served, Used(200_001, 10)) == 200_001 * 3 * MTOK + 10 * 2 * MTOK


def test_a_size_of_a_tier_is_its_own() -> None:
    served = own(
        input_cost_per_token="1e-6",
        input_cost_per_token_priority="2e-6",
        input_cost_per_token_above_128k_tokens="3e-6",
        input_cost_per_token_above_128k_tokens_priority="6e-6",
    )
    assert cost(served, Used(128_001), tier="priority") == 128_001 * 6 * MTOK


@pytest.mark.parametrize(
    ("prices", "used", "expected"),
    [
        ({"input_cost_per_audio_token": "4e-6"}, Used(100, audio_tokens=100), 100 * 4 * MTOK),
        ({"output_cost_per_image": "0.04"}, Used(units=Units(images=2)), USD * 8 // 100),
        ({"input_cost_per_character": "1.5e-5"}, Used(units=Units(characters=10)), 10 * 15 * MTOK),
        ({"input_cost_per_second": "0.0001"}, Used(units=Units(seconds=Decimal("1.5"))), USD * 15 // 100_000),
        ({"input_cost_per_query": "0.002"}, Used(units=Units(search_units=3)), USD * 6 // 1000),
        (
            {"output_cost_per_token": "1e-6", "output_cost_per_reasoning_token": "3e-6"},
            Used(0, 10, reasoning_tokens=4),
            6 * MTOK + 4 * 3 * MTOK,
        ),
        (
            {"cache_creation_input_token_cost": "2e-6", "cache_creation_input_token_cost_above_1hr": "5e-6"},
            Used(10, cache_write_tokens=10, raw={"cache_creation": {"ephemeral_1h_input_tokens": 4}}),
            6 * 2 * MTOK + 4 * 5 * MTOK,
        ),
        ({"input_cost_per_token": "1e-6"}, Used(10, cache_write_tokens=10), 10 * MTOK),
        (
            {"input_cost_per_image_token": "2e-6"},
            Used(9, raw={"prompt_tokens_details": {"image_tokens": 9}}),
            18 * MTOK,
        ),
    ],
)
def test_each_unit_costs_what_the_configuration_states(prices: dict[str, str], used: Used, expected: int) -> None:
    assert cost(own(**prices), used) == expected


def test_the_fee_of_a_search_context_is_one_of_a_request_at_perplexity_and_of_a_search_elsewhere() -> None:
    sizes = {f"search_context_size_{size}": "0.01" for size in ("low", "medium", "high")}
    prices = {"input_cost_per_token": "1e-6", "output_cost_per_token": "1e-6", "search_context_cost_per_query": sizes}
    asked = Used(10, raw={"search_context_size": "low"})
    assert cost(own("perplexity", **prices), asked) == 10 * MTOK + USD // 100
    searched = Used(10, units=Units(web_searches=2))
    assert cost(own("openai", **prices), searched) == 10 * MTOK + 2 * USD // 100
    assert cost(own("openai", **prices), Used(10)) == 10 * MTOK


def test_a_region_multiplies_the_deployment_s_own_prices() -> None:
    prices = Prices.model_validate({"input_cost_per_token": "1e-6", "regional_processing_uplift_multiplier_eu": "1.1"})
    for address, expected in (("https://eu.api.openai.com/v1", 1_100_000), ("https://api.openai.com/v1", MTOK)):
        assert cost(deployment("openai", "gpt-9", prices=prices, api_base=address), Used(1)) == expected


def test_what_is_free_of_charge_is_so_whatever_it_is() -> None:
    free = own(input_cost_per_token=0, output_cost_per_token=0)
    assert cost(free, Used(units=Units(characters=10))) == 0
    assert cost(own(input_cost_per_request="0.5"), Used(units=Units(images=1))) == USD // 2


def test_a_price_that_is_too_small_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match="a/0: input_cost_per_token_flex: 1E-13 USD is less"):
        PriceTable.compile([own(input_cost_per_token_flex="1e-13")])


MODELS = [
    ("openai", "gpt-4o"),
    ("openai", "gpt-audio"),
    ("openai", "gpt-image-1.5"),
    ("openai", "whisper-1"),
    ("openai", "nobody-knows"),
    ("anthropic", "claude-opus-5"),
    ("gemini", "gemini-2.5-flash"),
    ("cohere", "rerank-v3.5"),
    ("perplexity", "sonar"),
    ("bedrock", "us.anthropic.claude-opus-5"),
]
DEPLOYMENTS = [
    deployment(provider, model).model_copy(update={"name": f"a/{number}"})
    for number, (provider, model) in enumerate(MODELS)
]
TABLE = PriceTable.compile(DEPLOYMENTS, (), NOON)
COUNTS = st.integers(min_value=0, max_value=10**7)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        *("inference_geo", "speed", "server_tool_use", "billed_units", "meta", "cache_creation", "cacheDetails"),
        *("prompt_tokens_details", "completion_tokens_details", "promptTokensDetails", "candidatesTokensDetails"),
        *("search_context_size", "prompt_audio_seconds", "num_sources_used", "cacheTokensDetails", "seconds", "type"),
    ]
)
UNITS = st.builds(
    Units,
    audio_input=COUNTS,
    image_output=COUNTS,
    images=COUNTS,
    seconds=st.decimals(min_value=0, max_value=10**6, places=3),
    characters=COUNTS,
    search_units=COUNTS,
    web_searches=COUNTS,
)
USED = st.builds(
    Used,
    input_tokens=st.integers(),
    output_tokens=st.integers(),
    cached_tokens=COUNTS,
    cache_write_tokens=COUNTS,
    reasoning_tokens=COUNTS,
    audio_tokens=COUNTS,
    units=st.none() | UNITS,
    raw=st.none() | st.dictionaries(KEYS, ANYTHING, max_size=4),
)


@settings(deadline=None)
@given(place=st.integers(0, len(MODELS) - 1), used=USED, tier=st.sampled_from([None, "flex", "batch", "x"]))
def test_pricing_never_raises_and_never_owes_the_caller(place: int, used: Used, tier: str | None) -> None:
    found = TABLE.price(f"a/{place}", "", used, tier, "interactive", NOON).cost_pico
    assert found is None or found >= 0


@settings(deadline=None)
@given(used=USED)
def test_nothing_that_an_unknown_model_used_costs_zero(used: Used) -> None:
    unknown = MODELS.index(("openai", "nobody-knows"))
    assert TABLE.price(f"a/{unknown}", "", used, None, "interactive", NOON).cost_pico is None


@settings(deadline=None)
@given(
    place=st.integers(0, len(MODELS) - 1),
    units=st.integers(1, 10**6).flatmap(
        lambda number: st.sampled_from(
            [
                Units(images=number),
                Units(characters=number),
                Units(seconds=Decimal(number)),
                Units(search_units=number),
                Units(web_searches=number),
                Units(file_searches=number),
                Units(unpriced=number),
            ]
        )
    ),
)
def test_a_unit_that_was_used_is_never_free(place: int, units: Units) -> None:
    used = Used(units=units)
    assert TABLE.price(f"a/{place}", "", used, None, "interactive", NOON).cost_pico != 0


@settings(deadline=None)
@given(place=st.integers(0, len(MODELS) - 1), given_tokens=st.integers(0, 10**6), made=st.integers(0, 10**6))
def test_tokens_are_never_free_where_tokens_are_sold(place: int, given_tokens: int, made: int) -> None:
    found = TABLE.price(f"a/{place}", "", Used(given_tokens, made), None, "interactive", NOON).cost_pico
    assert found != 0 or not (given_tokens or made)
