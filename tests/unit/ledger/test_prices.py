"""What an answer costs, and what has no known price."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import calc_price
from genai_prices import types as package

from broker.config import Prices
from broker.errors import ConfigError
from broker.ledger.prices import PROVIDER_BATCH, PriceTable
from tests.unit.ledger.priced import NOON, Used, cost, deployment


def package_cost(provider: str, model: str, at_ms: int = NOON, **usage: int) -> int:
    found = calc_price(
        package.Usage(**usage),
        model,
        provider_id=provider,
        genai_request_timestamp=datetime.fromtimestamp(at_ms / 1000, UTC),
    )
    return int(found.total_price * 10**12)


GPT = deployment("openai", "gpt-4o")


def test_tokens_cost_what_the_package_publishes() -> None:
    assert cost(GPT, Used(1000, 100)) == 1000 * 2_500_000 + 100 * 10_000_000


@pytest.mark.parametrize(
    ("provider", "ours", "model"),
    [
        ("openai", "openai", "gpt-4o-mini"),
        ("openai", "openai", "gpt-4.1"),
        ("anthropic", "anthropic", "claude-sonnet-4-5"),
        ("google", "gemini", "gemini-2.5-pro"),
        ("groq", "groq", "llama-3.3-70b-versatile"),
        ("mistral", "mistral", "mistral-large-2512"),
        ("x-ai", "xai", "grok-4-0709"),
        ("together", "together_ai", "openai/gpt-oss-120b"),
        ("cohere", "cohere", "command-a"),
    ],
)
def test_known_models_cost_what_the_package_s_calculator_says(provider: str, ours: str, model: str) -> None:
    found = [cost(deployment(ours, model), Used(tokens, 500)) for tokens in (1000, 250_000)]
    assert found == [
        package_cost(provider, model, input_tokens=tokens, output_tokens=500) for tokens in (1000, 250_000)
    ]


def test_cached_tokens_are_part_of_input_and_priced_once() -> None:
    assert cost(GPT, Used(1000, 0, cached_tokens=400)) == 600 * 2_500_000 + 400 * 1_250_000


def test_reasoning_is_part_of_output() -> None:
    assert cost(GPT, Used(0, 100, reasoning_tokens=80)) == 100 * 10_000_000


def test_crossing_a_tier_re_prices_the_whole_request() -> None:
    gemini = deployment("gemini", "gemini-2.5-pro")
    assert cost(gemini, Used(200_000)) == 200_000 * 1_250_000
    assert cost(gemini, Used(200_001)) == 200_001 * 2_500_000


def test_cache_writes_cost_by_their_time_to_live() -> None:
    claude = deployment("anthropic", "claude-sonnet-4-5")
    hour = {"cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 60}}
    assert cost(claude, Used(100, cache_write_tokens=100)) == 100 * 3_750_000
    assert cost(claude, Used(100, cache_write_tokens=100, raw=hour)) == 40 * 3_750_000 + 60 * 6_000_000


def test_explicit_zero_usage_is_free_of_charge() -> None:
    assert cost(GPT, Used()) == 0


@pytest.mark.parametrize(
    "model",
    [
        "gpt-4o-2099-01-01",  # a snapshot nobody published
        "gpt-4o-ultra",
        "gpt-5-nano-plus",  # the package's own prefix match would price it
        "gpt-4o-audio-preview-hd",
        "mistral-large-latest",
        "codex-mini-latest",
        "smollm2-135m",
        "",
    ],
)
def test_a_name_that_only_looks_like_a_known_family_has_no_price(model: str) -> None:
    for provider in ("openai", "mistral", "gemini", "anthropic"):
        assert cost(deployment(provider, model), Used(10, 10)) is None


@pytest.mark.parametrize(
    ("provider", "snapshot", "model"),
    [
        ("openai", "gpt-4o-2024-11-20", "gpt-4o"),
        ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("gemini", "gemini-2.0-flash-001", "gemini-2.0-flash"),
    ],
)
def test_a_documented_snapshot_costs_what_its_model_costs(provider: str, snapshot: str, model: str) -> None:
    dated, plain = (cost(deployment(provider, name), Used(1000, 1000)) for name in (snapshot, model))
    assert dated is not None
    assert dated == plain


def test_the_served_model_counts_and_not_the_one_asked_for() -> None:
    assert cost(GPT, Used(1000), model="gpt-4o-2024-05-13") == 1000 * 5_000_000
    assert cost(GPT, Used(1000), model="gpt-4o-2099-01-01") is None


@pytest.mark.parametrize("tier", [None, "", "default", "standard"])
def test_the_standard_tier_has_many_names(tier: str | None) -> None:
    assert cost(GPT, Used(1000), tier=tier) == 1000 * 2_500_000


def test_a_known_tier_has_its_own_price() -> None:
    assert cost(deployment("openai", "gpt-5"), Used(1000), tier="priority") == 1000 * 2_500_000
    assert cost(deployment("openai", "gpt-5"), Used(1000), tier="flex") == 1000 * 625_000


@pytest.mark.parametrize("tier", ["ultrafast", "auto", "scale"])
def test_a_tier_the_package_does_not_know_is_unpriced_rather_than_standard(tier: str) -> None:
    assert cost(GPT, Used(1000), tier=tier) is None


def test_a_tier_that_costs_the_same_is_priced_only_where_our_list_says_so() -> None:
    groq = deployment("groq", "llama-3.3-70b-versatile")
    assert cost(groq, Used(1000, 10), tier="flex") == cost(groq, Used(1000, 10))
    assert cost(groq, Used(1000, 10), tier="performance") is None


def test_our_own_batch_lane_pays_the_full_price_and_a_provider_s_batch_its_rate() -> None:
    assert cost(GPT, Used(1000), lane="batch") == 1000 * 2_500_000
    assert cost(GPT, Used(1000), lane=PROVIDER_BATCH) == 1000 * 1_250_000


def test_a_rate_that_a_tier_does_not_state_is_unknown() -> None:
    assert cost(GPT, Used(1000, cached_tokens=1), lane=PROVIDER_BATCH) is None


def test_embeddings_in_a_provider_s_batch_come_from_our_list() -> None:
    assert cost(deployment("openai", "text-embedding-3-small"), Used(1000), lane=PROVIDER_BATCH) == 1000 * 10_000


def test_the_deployment_s_own_prices_come_first() -> None:
    own = Prices(
        input_cost_per_token=Decimal("1e-6"),
        output_cost_per_token=Decimal("2e-6"),
        input_cost_per_request=Decimal("0.001"),
    )
    found = PriceTable.compile([deployment("openai", "gpt-4o", prices=own)]).price(
        "a/0", "gpt-4o", Used(1000, 10, cached_tokens=100), "ultrafast", "interactive", NOON
    )
    assert found.cost_pico == 1000 * 1_000_000 + 10 * 2_000_000 + 1_000_000_000
    assert found.price_version.startswith("config+")


def test_a_side_that_the_configuration_does_not_price_is_unknown_when_used() -> None:
    served = deployment("openai", "gpt-4o", prices=Prices(input_cost_per_token=Decimal("1e-6")))
    assert cost(served, Used(10)) == 10_000_000
    assert cost(served, Used(10, 1)) is None


def test_a_price_per_request_alone_makes_tokens_free() -> None:
    served = deployment("openai", "own", prices=Prices(input_cost_per_request=Decimal("0.5")))
    assert cost(served, Used(10, 10)) == 500_000_000_000


def test_a_configured_price_below_the_smallest_unit_is_refused_rather_than_zero() -> None:
    with pytest.raises(ConfigError, match=r"a/0: input_cost_per_token: 1E-13 USD is less"):
        PriceTable.compile([deployment("openai", "m", prices=Prices(input_cost_per_token=Decimal("1E-13")))])


def test_a_price_of_zero_in_the_configuration_is_a_price() -> None:
    free = Prices(input_cost_per_token=Decimal(0), output_cost_per_token=Decimal(0))
    assert cost(deployment("openai", "own", api_base="http://localhost:8000/v1", prices=free), Used(10, 10)) == 0


@pytest.mark.parametrize(
    "api_base",
    [
        "http://localhost:8000/v1",
        "http://127.0.0.1:8080",
        "https://gateway.example.com/v1",
    ],
)
def test_an_address_whose_prices_nobody_publishes_has_none(api_base: str) -> None:
    assert cost(deployment("openai", "gpt-4o", api_base=api_base), Used(10, 10)) is None


def test_the_address_says_whose_prices_hold() -> None:
    served = deployment("openai", "grok-4-0709", api_base="https://api.x.ai/v1")
    assert cost(served, Used(1000)) == package_cost("x-ai", "grok-4-0709", input_tokens=1000)


@pytest.mark.parametrize(
    ("provider", "model"),
    [("azure", "gpt-4o"), ("bedrock", "amazon.nova-lite-v1:0"), ("vertex_ai", "gemini-2.5-pro"), ("ollama", "llama3")],
)
def test_names_of_the_user_s_own_and_regional_prices_need_a_base_model(provider: str, model: str) -> None:
    assert cost(deployment(provider, model), Used(10, 10)) is None


@pytest.mark.parametrize("base_model", ["azure/gpt-4o", "openai/gpt-4o", "gpt-4o"])
def test_a_base_model_says_what_to_price_it_as(base_model: str) -> None:
    served = deployment("azure", "our-name", api_base="https://us.openai.azure.com", base_model=base_model)
    assert cost(served, Used(1000), model="gpt-4o-2099-01-01") == 1000 * 2_500_000


def test_the_configuration_s_overrides_come_before_our_list_and_the_package() -> None:
    ours = {"provider": "openai", "models": ["gpt-4o"], "rates": {"input_mtok": "7", "output_mtok": 1}, "source": "us"}
    assert cost(GPT, Used(1000, 1), overrides=(ours,)) == 1000 * 7_000_000 + 1_000_000
    assert cost(GPT, Used(1000), overrides=(ours | {"rates": "unpriced"},)) is None


def test_an_override_holds_from_its_day() -> None:
    dated = {"provider": "openai", "models": ["gpt-4o"], "rates": {"input_mtok": "7"}, "from": "2026-11-19"}
    table = PriceTable.compile([GPT], (dated,), NOON)
    day = 86_400_000
    found = [
        table.price("a/0", "gpt-4o", Used(1), None, "interactive", at).cost_pico for at in (NOON, NOON + day, NOON)
    ]
    assert found == [2_500_000, 7_000_000, 2_500_000]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"provider": "openai", "models": ["m"], "rate": {}}, "unknown key 'rate'"),
        ({"provider": "openai", "rates": {}}, "needs `provider`"),
        ({"provider": "openai", "models": ["m"], "rates": "free"}, "not 'free'"),
        ({"provider": "openai", "models": ["m"], "rates": {"input": 1}}, "unknown rate 'input'"),
        ({"provider": "openai", "models": ["m"], "rates": {"input_mtok": "x"}}, "not an amount"),
        ({"provider": "openai", "models": ["m"], "rates": {"input_mtok": -1}}, "not an amount"),
        ({"provider": "openai", "models": ["m"], "rates": {}, "from": "soon"}, "`from` is not a day"),
    ],
)
def test_a_wrong_override_names_itself(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"price_overrides\[0\].*{message}"):
        PriceTable.compile([], (entry,))


def test_peak_hours_cost_their_own_rate_on_weekdays_and_are_unknown_at_weekends() -> None:
    served = deployment("deepseek", "deepseek-chat")
    table = PriceTable.compile([served], (), NOON)
    hours = [NOON, NOON + 5 * 3_600_000, NOON, NOON + 3 * 86_400_000]
    found = [table.price("a/0", "deepseek-chat", Used(1000), None, "interactive", at).cost_pico for at in hours]
    assert found == [270_000_000, 135_000_000, 270_000_000, None]


def test_a_price_changes_on_its_first_day() -> None:
    served = deployment("deepseek", "deepseek-v4-flash")
    table = PriceTable.compile([served], (), NOON)
    days = [int(datetime(2026, 8, day, 10, tzinfo=UTC).timestamp() * 1000) for day in (12, 18, 12)]
    found = [table.price("a/0", "deepseek-v4-flash", Used(1000), None, "interactive", at).cost_pico for at in days]
    assert found == [package_cost("deepseek", "deepseek-v4-flash", at_ms=at, input_tokens=1000) for at in days]
    assert found[0] != found[1]


@pytest.mark.parametrize(
    "raw",
    [
        {"server_tool_use": {"code_execution_requests": 2}},
        {"num_sources_used": 3},
        {"inference_geo": "us"},
        {"speed": "fast"},
    ],
)
def test_an_answer_with_fees_that_no_token_count_shows_has_no_price(raw: dict[str, Any]) -> None:
    assert cost(deployment("anthropic", "claude-sonnet-4-5"), Used(10, 10, raw=raw)) is None


def test_tools_that_were_not_used_do_not_matter() -> None:
    raw = {"server_tool_use": {"web_search_requests": 0}, "inference_geo": "global", "speed": "standard"}
    assert cost(deployment("anthropic", "claude-sonnet-4-5"), Used(10, raw=raw)) == 30_000_000


def test_counts_that_contradict_each_other_have_no_price() -> None:
    assert cost(GPT, Used(10, cached_tokens=11)) is None


def test_audio_costs_its_own_rate_where_only_one_side_has_one() -> None:
    flash = deployment("gemini", "gemini-2.5-flash")
    assert cost(flash, Used(1000, audio_tokens=400)) == 600 * 300_000 + 400 * 1_000_000
    assert cost(flash, Used(1000, cached_tokens=1, audio_tokens=400)) is None
    assert cost(flash, Used(1000, audio_tokens=1001)) is None


def test_a_model_with_picture_rates_has_no_price_as_pictures_are_not_counted() -> None:
    assert cost(deployment("gemini", "gemini-2.5-flash-image"), Used(10, 10)) is None


def test_a_deployment_that_was_not_compiled_has_no_price() -> None:
    assert PriceTable.compile([]).price("x", "gpt-4o", Used(1), None, "interactive", NOON) == (None, "")


def test_the_version_tells_the_rates_used() -> None:
    table = PriceTable.compile([GPT], (), NOON)
    plain = table.price("a/0", "gpt-4o", Used(1), None, "interactive", NOON).price_version
    again = PriceTable.compile([GPT], (), NOON).price("a/0", "gpt-4o", Used(9), None, "batch", NOON).price_version
    other = table.price("a/0", "gpt-4o-2024-05-13", Used(1), None, "interactive", NOON).price_version
    assert plain == again
    assert plain != other
    assert plain.startswith("genai-prices-")


def test_served_names_without_end_do_not_fill_the_memory() -> None:
    table = PriceTable.compile([GPT], (), NOON)
    for number in range(10_100):
        table.price("a/0", f"unknown-{number}", Used(1), None, "interactive", NOON)
    assert len(table._sheets) <= 10_000  # noqa: SLF001 - the bound is not visible from outside
