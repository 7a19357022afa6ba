"""LiteLLM's files, unchanged: what becomes of each setting."""

import hashlib
from decimal import Decimal
from pathlib import Path

import pytest

from broker.config import Prices, Settings, Strategy, load

FILES = Path(__file__).parent / "files"
ENVIRON = {"OPENAI_API_KEY": "openai-secret", "MASTER_KEY": "sk-master", "ANTHROPIC_API_KEY": "a", "GROQ_KEY": "g"}


@pytest.fixture(scope="module")
def balanced() -> Settings:
    return load(FILES / "litellm_balanced.yaml", ENVIRON)


@pytest.fixture(scope="module")
def wildcards() -> Settings:
    return load(FILES / "litellm_wildcards.yaml", ENVIRON)


def test_several_deployments_under_one_model_name_are_one_alias(balanced: Settings) -> None:
    assert [each.name for each in balanced.aliases["chat"].deployments] == ["chat-eu", "chat/1"]


def test_the_first_part_of_a_model_is_its_provider_and_further_slashes_stay(balanced: Settings) -> None:
    local, chat = balanced.aliases["local"].deployments[0], balanced.aliases["chat"].deployments
    assert (local.provider, local.model) == ("openai", "meta-llama/Llama-3.1-8B")
    assert [(each.provider, each.model) for each in chat] == [("azure", "chat-eu"), ("openai", "gpt-4o")]


def test_a_deployment_keeps_its_limits_times_and_weights(balanced: Settings) -> None:
    europe, america = balanced.aliases["chat"].deployments
    assert (europe.rpm, europe.tpm, europe.timeout, europe.stream_timeout) == (60, 90_000, 30.0, 10.0)
    assert (america.weight, america.order, america.tags) == (2.0, 2, ("paid", "us"))
    assert balanced.aliases["openai-gpt-4o-mini"].deployments[0].max_parallel_requests == 8


def test_request_parameters_of_an_entry_go_into_every_body(balanced: Settings) -> None:
    assert balanced.aliases["chat"].deployments[1].extra_body == {"temperature": 0.2, "seed": 7}


def test_headers_and_the_organization_are_sent_and_are_secret(balanced: Settings) -> None:
    headers = balanced.aliases["chat"].deployments[1].headers
    assert {name: value.get_secret_value() for name, value in headers.items()} == {
        "x-team": "research",
        "OpenAI-Organization": "org-1",
    }
    assert "research" not in repr(balanced)


def test_cost_overrides_stand_in_the_parameters_or_in_model_info(balanced: Settings) -> None:
    mini, local = (balanced.aliases[name].deployments[0].prices for name in ("openai-gpt-4o-mini", "local"))
    assert mini == Prices(input_cost_per_token=Decimal("1.5E-7"), output_cost_per_token=Decimal("6E-7"))
    assert local == Prices(input_cost_per_token=Decimal(0), output_cost_per_token=Decimal(0))
    assert balanced.aliases["chat"].deployments[0].base_model == "azure/gpt-4o"


def test_router_settings_go_before_litellm_settings(balanced: Settings) -> None:
    chat = balanced.aliases["chat"]
    assert (chat.num_retries, chat.timeout, chat.cooldown_time, chat.allowed_fails) == (3, 45.0, 30.0, 2)
    assert chat.strategy is Strategy.USAGE_BASED


def test_litellm_settings_reach_every_deployment_that_is_silent(balanced: Settings) -> None:
    assert all(each.drop_params for alias in balanced.aliases.values() for each in alias.deployments)
    assert balanced.aliases["local"].deployments[0].additional_drop_params == ("response_format",)


def test_fallbacks_of_each_kind_name_aliases(balanced: Settings) -> None:
    chat, local = balanced.aliases["chat"], balanced.aliases["local"]
    assert chat.fallbacks == ("openai-gpt-4o-mini", "local")
    assert chat.content_policy_fallbacks == ("local",)
    assert local.context_window_fallbacks == ("chat",)
    assert local.fallbacks == ()
    assert balanced.default_fallbacks == ("local",)


def test_names_that_kafka_forbids_and_group_aliases_lead_to_an_alias(balanced: Settings) -> None:
    assert balanced.alias_names == {"openai/gpt-4o-mini": "openai-gpt-4o-mini", "gpt-4": "chat", "old": "local"}


def test_the_master_key_becomes_a_key_of_the_admin_tenant_known_by_its_hash(balanced: Settings) -> None:
    digest = hashlib.sha256(b"sk-master").hexdigest()
    assert [(key.hash, key.key_id, key.tenant) for key in balanced.keys.values()] == [(digest, "master", "admin")]


def test_without_a_signing_key_one_is_derived_from_the_master_key(balanced: Settings) -> None:
    other = load(FILES / "litellm_balanced.yaml", {**ENVIRON, "MASTER_KEY": "sk-other"})
    assert balanced.signing_key is not None
    assert other.signing_key is not None
    assert balanced.signing_key.get_secret_value() != other.signing_key.get_secret_value()
    assert "sk-master" not in balanced.signing_key.get_secret_value()


def test_the_files_own_variables_serve_references_and_a_real_variable_goes_first(balanced: Settings) -> None:
    overridden = load(FILES / "litellm_balanced.yaml", {**ENVIRON, "EU_KEY": "from-outside"})
    keys = [settings.aliases["chat"].deployments[0].api_key for settings in (balanced, overridden)]
    assert [key.get_secret_value() for key in keys if key is not None] == ["eu-secret", "from-outside"]


def test_known_keys_we_do_not_act_on_are_listed_and_their_variables_need_not_be_set(balanced: Settings) -> None:
    assert balanced.unacted == (
        "litellm_settings.success_callback",
        "litellm_settings.cache",
        "litellm_settings.cache_params",
        "router_settings.redis_host",
        "router_settings.redis_port",
        "general_settings.database_url",
        "general_settings.alerting",
    )


def test_wildcards_become_legal_aliases_and_are_listed_as_not_acted_on(wildcards: Settings) -> None:
    assert set(wildcards.aliases) == {"-", "anthropic--", "cheap"}
    assert wildcards.alias_names == {"*": "-", "anthropic/*": "anthropic--"}
    assert {"model_list[].model_name=*", "model_list[].model_name=anthropic/*"} <= set(wildcards.unacted)


def test_a_fallback_of_a_model_that_only_a_wildcard_serves_is_no_error(wildcards: Settings) -> None:
    assert "litellm_settings.context_window_fallbacks[0].gpt-5" in wildcards.unacted


def test_a_star_as_the_source_of_a_fallback_means_every_alias(wildcards: Settings) -> None:
    assert wildcards.default_fallbacks == ("cheap",)


def test_a_named_credential_fills_in_what_the_entry_leaves_out(wildcards: Settings) -> None:
    key = wildcards.aliases["cheap"].deployments[0].api_key
    assert key is not None
    assert key.get_secret_value() == "g"


def test_sections_of_the_proxy_that_have_no_part_in_calls_are_listed(wildcards: Settings) -> None:
    assert {"guardrails", "mcp_servers", "litellm_settings.callbacks"} <= set(wildcards.unacted)
