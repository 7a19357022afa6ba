"""What is known of models, and what a configuration says instead."""

from importlib.resources import files
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from broker.config import Capabilities, Deployment
from broker.routing.capabilities import ABILITIES, UNKNOWN, capabilities, look_up
from tests.model_table import of_litellm, profile

PUBLIC = "https://api.openai.com/v1"


def of(provider: str, model: str, **fields: Any) -> Capabilities:
    return capabilities(Deployment(name="a/0", alias="a", provider=provider, model=model, **fields))


def test_a_model_is_found_by_its_provider_and_name() -> None:
    found = of("openai", "gpt-4o")
    assert (found.mode, found.max_input_tokens, found.max_output_tokens) == ("chat", 128_000, 16_384)
    assert (found.supports_vision, found.supports_function_calling, found.supports_response_schema) == (True,) * 3


def test_what_is_said_to_be_missing_is_told_from_what_is_not_said() -> None:
    found = of("openai", "o3-mini")
    assert (found.supports_vision, found.supports_parallel_function_calling) == (False, False)
    assert (found.supports_reasoning, found.supports_audio_input) == (True, None)


def test_a_list_of_modalities_without_one_says_that_it_is_missing() -> None:
    assert of("openai", "gpt-5").supports_audio_input is False


def test_the_same_name_at_another_provider_is_another_model() -> None:
    assert of("groq", "gpt-4o") == UNKNOWN


@pytest.mark.parametrize(
    "model",
    [
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "converse/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "us-gov-west-1/anthropic.claude-sonnet-4-5-20250929-v1:0",
        "af.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "anthropic.claude-sonnet-4-5-20250929-v1:0:200k",
    ],
)
def test_bedrock_names_a_model_with_regions_routes_and_throughputs(model: str) -> None:
    found = of("bedrock", model)
    assert (found.max_input_tokens, found.supports_vision) == (200_000, True)


def test_an_arn_says_nothing_of_its_model_and_a_base_model_does() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    assert of("bedrock", arn) == UNKNOWN
    assert of("bedrock", arn, base_model="anthropic.claude-sonnet-4-5-20250929-v1:0").max_input_tokens == 200_000


@pytest.mark.parametrize(
    ("provider", "dated", "plain"),
    [
        ("openai", "gpt-4o-2031-01-31", "gpt-4o"),
        ("anthropic", "claude-sonnet-4-5-20310131", "claude-sonnet-4-5"),
        ("vertex_ai", "claude-sonnet-4-5@20310131", "claude-sonnet-4-5"),
        ("gemini", "gemini-2.5-pro-009", "gemini-2.5-pro"),
        ("gemini", "models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("openai", "GPT-4o", "gpt-4o"),
    ],
)
def test_a_dated_snapshot_is_what_its_model_is(provider: str, dated: str, plain: str) -> None:
    assert of(provider, dated) == of(provider, plain)
    assert of(provider, plain) != UNKNOWN


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o-super"),
        ("openai", "my-gpt-4o"),
        ("openai", "gpt-4o-20"),
        ("anthropic", "claude-sonnet-latest"),
    ],
)
def test_a_name_that_is_only_like_a_known_one_is_not_known(provider: str, model: str) -> None:
    assert look_up(provider, model) is None


def test_an_azure_deployment_is_known_by_its_base_model_only() -> None:
    assert of("azure", "gpt-4o") == UNKNOWN
    for base in ("azure/gpt-4o", "gpt-4o"):
        assert of("azure", "my-deployment", base_model=base).max_input_tokens == 128_000


def test_a_base_model_without_its_provider_is_looked_for_at_the_makers() -> None:
    served = of("hosted_vllm", "ours", base_model="claude-sonnet-4-5", api_base="http://gpu:8000/v1")
    assert served.max_input_tokens == of("anthropic", "claude-sonnet-4-5").max_input_tokens


def test_a_base_model_nobody_knows_leaves_the_model_unknown() -> None:
    assert of("openai", "gpt-4o", base_model="ours") == UNKNOWN


def test_a_server_of_the_users_own_may_call_its_model_anything() -> None:
    assert of("openai", "gpt-4o", api_base="http://127.0.0.1:8080/v1") == UNKNOWN
    assert of("openai", "gpt-4o", api_base="http://[broken") == UNKNOWN
    for base in (PUBLIC, "https://eu.api.openai.com/v1"):
        assert of("openai", "gpt-4o", api_base=base) == of("openai", "gpt-4o")


def test_what_the_configuration_says_goes_before_what_is_known() -> None:
    stated = Capabilities(max_input_tokens=8_000, supports_vision=False)
    found = of("openai", "gpt-4o", model_info=stated)
    assert (found.max_input_tokens, found.supports_vision) == (8_000, False)
    assert (found.max_output_tokens, found.supports_function_calling) == (16_384, True)


def test_a_provider_that_cuts_long_inputs_has_a_window_only_where_the_configuration_says_so() -> None:
    cut = of("openrouter", "openai/gpt-4o")
    assert cut.max_input_tokens is None
    assert of("openrouter", "openai/gpt-4o", model_info=Capabilities(max_input_tokens=9)).max_input_tokens == 9


def test_a_beta_header_may_widen_the_window_so_that_the_known_one_says_nothing() -> None:
    header = {"Anthropic-Beta": SecretStr("context-1m-2025-08-07")}
    found = of("anthropic", "claude-sonnet-4-5", headers=header)
    assert (found.max_input_tokens, found.supports_vision) == (None, True)


def test_models_for_embeddings_and_reranking_are_told_apart() -> None:
    assert of("openai", "text-embedding-3-small").mode == "embedding"
    assert of("cohere", "rerank-v3.5").mode == "rerank"
    assert of("openai", "gpt-5-pro").mode == "responses"


def test_every_model_of_the_data_can_be_looked_up() -> None:
    data = orjson.loads(files("broker.routing").joinpath("model_table.json").read_bytes())
    listed = [
        (provider, name)
        for providers in data["models"].values()
        for provider, names in providers.items()
        for name in names.split()
    ]
    assert [pair for pair in listed if look_up(*pair) is None] == []
    assert len(set(listed)) == len(listed) > 3_000


def test_the_data_are_made_of_what_is_said_and_of_lists_of_modalities() -> None:
    said = {
        "mode": "responses",
        "litellm_provider": "vertex_ai-language-models",
        "max_input_tokens": 9.0,
        "supports_vision": True,
        "supports_reasoning": False,
        "supported_modalities": ["text"],
        "supported_endpoints": ["/v1/responses"],
    }
    made = list(of_litellm({"vertex_ai/M-1": said, "m-latest": said, "picture": {**said, "mode": "image_generation"}}))
    assert [(provider, name, profile(facts)) for provider, name, facts in made] == [
        ("vertex_ai", "m-1", "responses in=9 +vision -audio_in -video -reasoning")
    ]


def test_every_ability_of_the_data_is_a_field() -> None:
    assert ABILITIES.keys() == {name for name in Capabilities.model_fields if name.startswith("supports_")}
