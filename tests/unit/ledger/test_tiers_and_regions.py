"""Tiers, batches and regions by published prices, where the package alone answers with the standard price."""

from typing import Any

import pytest

from broker.config import Aws, Vertex
from broker.errors import ConfigError
from broker.ledger.prices import PROVIDER_BATCH
from tests.unit.ledger.priced import MTOK, Used, cost, deployment

K = Used(1000, 100)


def of(input_mtok: float, output_mtok: float) -> int:
    """Pico-dollars of `K` at these USD a million."""
    return round(1000 * input_mtok * MTOK + 100 * output_mtok * MTOK)


@pytest.mark.parametrize(
    ("provider", "model", "tier", "expected"),
    [
        ("openai", "gpt-6-astra", "ultrafast", of(60, 300)),
        ("openai", "gpt-6.1-sol", "ultrafast", of(12, 60)),
        ("openai", "gpt-6-sol", "ultrafast", None),
        ("openai", "gpt-6-sol", "priority", of(4, 20)),
        ("openai", "gpt-6-sol", "fast", of(4, 20)),
        ("openai", "gpt-6-sol", "flex", of(1, 5)),
        ("openai", "gpt-6-sol", "scale", None),
        ("gemini", "gemini-2.5-flash", "flex", of(0.15, 1.25)),
        ("gemini", "gemini-2.5-flash", "priority", of(0.54, 4.5)),
        ("gemini", "gemini-2.5-pro", "priority", of(2.25, 18)),
        ("gemini", "gemini-3.5-flash", "flex", of(0.75, 4.5)),
        ("gemini", "gemini-2.0-flash", "flex", None),
        ("anthropic", "claude-opus-5", "priority", None),
        ("groq", "llama-3.3-70b-versatile", "flex", of(0.59, 0.79)),
    ],
)
def test_a_tier_costs_what_its_provider_publishes(provider: str, model: str, tier: str, expected: int | None) -> None:
    assert cost(deployment(provider, model), K, tier=tier) == expected


def test_cached_tokens_of_a_tier_may_cost_what_they_cost_otherwise() -> None:
    used = Used(1000, 0, cached_tokens=1000)
    assert cost(deployment("gemini", "gemini-2.5-pro"), used, tier="flex") == 1000 * 125_000
    assert cost(deployment("gemini", "gemini-3.5-flash"), used, tier="flex") == 1000 * 80_000
    assert cost(deployment("gemini", "gemini-3.6-flash"), used, tier="flex") == 1000 * 37_500


def test_a_tier_has_the_steps_of_the_standard_one() -> None:
    pro = deployment("gemini", "gemini-2.5-pro")
    assert cost(pro, Used(200_001), tier="flex") == 200_001 * 1_250_000


@pytest.mark.parametrize(
    ("model", "region", "tier", "expected"),
    [
        ("amazon.nova-pro-v1:0", "us-east-1", "flex", of(0.4, 1.6)),
        ("us.amazon.nova-pro-v1:0", "us-west-2", "priority", of(1.4, 5.6)),
        ("openai.gpt-oss-120b-1:0", "us-east-1", "flex", of(0.075, 0.3)),
        ("amazon.nova-pro-v1:0", "us-east-1", "reserved", None),
        ("amazon.nova-pro-v1:0", "eu-west-1", None, None),
        ("eu.amazon.nova-pro-v1:0", "eu-west-1", None, None),
        ("amazon.nova-pro-v1:0", "us-gov-west-1", None, None),
    ],
)
def test_bedrock_s_tiers_and_the_regions_whose_price_is_known(
    model: str, region: str, tier: str | None, expected: int | None
) -> None:
    assert cost(deployment("bedrock", model, aws=Aws(region=region)), K, tier=tier) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("global.anthropic.claude-opus-5", of(5, 25)),
        ("us.anthropic.claude-opus-5", of(5.5, 27.5)),
        ("eu.anthropic.claude-opus-5", of(5.5, 27.5)),
        ("us-gov.anthropic.claude-opus-5", None),
        ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-5", of(5.5, 27.5)),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3", None),
        ("us.anthropic.claude-opus-55", None),
    ],
)
def test_bedrock_s_profiles_have_prices_of_their_own(model: str, expected: int | None) -> None:
    assert cost(deployment("bedrock", model), K) == expected
    assert cost(deployment("bedrock_converse", model), K) == expected
    assert cost(deployment("bedrock", f"converse/{model}"), K) == expected


@pytest.mark.parametrize("served", ["", "amazon.nova-lite-v1:0"])
def test_a_region_in_a_bedrock_model_s_spelling_is_where_it_is_priced(served: str) -> None:
    spelled = {
        region: deployment("bedrock", f"{region}/amazon.nova-lite-v1:0") for region in ("us-east-1", "eu-west-1")
    }
    assert cost(spelled["us-east-1"], Used(1000), model=served) == 1000 * 60_000
    assert cost(spelled["eu-west-1"], Used(1000), model=served) is None


def test_a_profile_of_one_s_own_is_priced_as_its_base_model() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3"
    assert cost(deployment("bedrock", arn, base_model="bedrock/us.anthropic.claude-opus-5"), K) == of(5.5, 27.5)


@pytest.mark.parametrize(
    ("base_model", "tier", "expected"),
    [
        ("azure/gpt-4.1", None, of(2, 8)),
        ("azure/gpt-4.1", "priority", of(3.5, 14)),
        ("azure/gpt-4o", "priority", None),
        ("azure/eu/gpt-4.1", None, of(2.2, 8.8)),
        ("azure/global/gpt-4.1", None, of(2, 8)),
        ("azure/eu/gpt-6-sol", None, of(2.4, 12)),
        ("azure/us/gpt-6-sol", None, of(2.2, 11)),
        ("azure/eu/gpt-4-turbo", None, None),
        ("azure/gpt-4-turbo", None, None),
    ],
)
def test_azure_s_tiers_and_data_zones(base_model: str, tier: str | None, expected: int | None) -> None:
    assert cost(deployment("azure", "ours", base_model=base_model), K, tier=tier) == expected


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        (deployment("openai", "text-embedding-3-small"), 1000 * 10_000),
        (deployment("openai", "text-embedding-3-large"), 1000 * 65_000),
        (deployment("openai", "text-embedding-ada-002"), 1000 * 50_000),
        (deployment("azure", "ours", base_model="azure/gpt-4.1"), 1000 * 1 * MTOK),
        (deployment("azure", "ours", base_model="azure/gpt-3.5-turbo"), None),
        (deployment("bedrock", "us.amazon.nova-lite-v1:0"), 1000 * 30_000),
        (deployment("bedrock", "mistral.pixtral-large-2502-v1:0", region="us-east-1"), None),
        (deployment("vertex_ai", "gemini-2.5-flash", region="global"), 1000 * 150_000),
    ],
)
def test_a_provider_s_batch_costs_its_rate_where_one_is_published(served: Any, expected: int | None) -> None:
    assert cost(served, Used(1000), lane=PROVIDER_BATCH) == expected


@pytest.mark.parametrize(
    ("model", "address", "expected"),
    [
        ("gpt-6-sol", "https://eu.api.openai.com/v1", of(2.2, 11)),
        ("gpt-6-sol", "https://jp.api.openai.com/v1", of(2.2, 11)),
        ("gpt-6-sol", "https://api.openai.com/v1", of(2, 10)),
        ("gpt-4o", "https://eu.api.openai.com/v1", of(2.5, 10)),
        ("gpt-5.3-codex", "https://eu.api.openai.com/v1", None),
    ],
)
def test_openai_s_data_residency_costs_more_for_models_since_march_2026(
    model: str, address: str, expected: int | None
) -> None:
    assert cost(deployment("openai", model, api_base=address), K) == expected


def test_a_tier_in_a_region_costs_both() -> None:
    served = deployment("openai", "gpt-6-sol", api_base="https://eu.api.openai.com/v1")
    assert cost(served, K, tier="flex") == of(1.1, 5.5)


@pytest.mark.parametrize(
    ("model", "location", "expected"),
    [
        ("gemini-3.6-flash", "global", of(0.75, 3.75)),
        ("gemini-3.6-flash", "europe-west1", of(0.825, 4.125)),
        ("gemini-2.5-flash", "europe-west1", of(0.3, 2.5)),
        ("gemini-2.0-flash", "us-central1", of(0.15, 0.6)),
        ("claude-opus-5", "us-east5", of(5.5, 27.5)),
        ("claude-opus-5@default", "global", of(5, 25)),
        ("gemini-2.5-computer-use-preview-10-2025", "europe-west1", None),
        ("gemini-3.6-flash", None, None),
    ],
)
def test_vertex_s_regional_endpoints_cost_more_for_newer_models(
    model: str, location: str | None, expected: int | None
) -> None:
    assert cost(deployment("vertex_ai", model, vertex=Vertex(location=location)), K) == expected


def test_the_place_an_answer_names_counts() -> None:
    opus = deployment("anthropic", "claude-opus-5")
    assert cost(opus, Used(1000, 100, raw={"inference_geo": "us"})) == of(5.5, 27.5)
    assert cost(opus, Used(1000, 100, raw={"inference_geo": "global"})) == of(5, 25)
    assert cost(opus, Used(1000, 100, raw={"inference_geo": "moon"})) is None


def test_the_speed_an_answer_names_counts() -> None:
    opus = deployment("anthropic", "claude-opus-5")
    assert cost(opus, Used(1000, 100, raw={"speed": "fast"})) == of(10, 50)
    assert cost(opus, Used(1000, 100, raw={"speed": "fast"}), tier="batch") is None


def test_a_region_of_the_configuration_counts_and_an_override_of_it_comes_first() -> None:
    served = deployment("openai", "gpt-4o", region="mars")
    ours = {"provider": "openai", "models": ["gpt-4o"], "region": "mars", "rates": {"times": 3}}
    assert cost(served, K, overrides=(ours,)) == of(7.5, 30)


@pytest.mark.parametrize(
    "rates",
    [{"cache_read_times": 1}, {"times": 2, "output_mtok": 1}, {"times": "much"}, {"times": 2, "cache_read_times": -1}],
)
def test_a_wrong_factor_is_told(rates: dict[str, Any]) -> None:
    entry = {"provider": "openai", "models": ["gpt-4o"], "rates": rates}
    with pytest.raises(ConfigError, match=r"price_overrides\[0\].*times"):
        cost(deployment("openai", "gpt-4o"), K, overrides=(entry,))
