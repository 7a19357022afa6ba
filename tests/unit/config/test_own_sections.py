"""Our own sections of the file, and the variables that go before it."""

import hashlib
import re
from decimal import Decimal
from pathlib import Path

import pytest

from broker.config import Settings, Strategy, load
from broker.config.loader import settings_of
from broker.config.problems import ConfigProblems
from broker.config.views import masked
from tests.unit.config.yaml_text import settings_from

FILE = Path(__file__).parent / "files" / "own.yaml"
ENVIRON = {"KAFKA_PASSWORD": "kp", "REDIS_URL": "redis://:rp@redis:6379/1", "TEAM_KEY": "sk-team", "SIGNING": "sign"}

END_OF_JANUARY_31_2030_MS = 1_896_134_399_999


@pytest.fixture(scope="module")
def own() -> Settings:
    return load(FILE, ENVIRON)


def test_params_means_litellm_params(own: Settings) -> None:
    assert own.aliases["fast"].deployments[0].model == "fast"


def test_one_alias_may_have_a_policy_of_its_own(own: Settings) -> None:
    slow, fast = own.aliases["slow"], own.aliases["fast"]
    assert (slow.deadline, slow.num_retries, slow.strategy, slow.fallbacks) == (
        3600.0,
        0,
        Strategy.LEAST_BUSY,
        ("fast",),
    )
    assert (fast.deadline, fast.num_retries, fast.strategy, fast.fallbacks) == (
        86_400.0,
        2,
        Strategy.SIMPLE_SHUFFLE,
        (),
    )


def test_kafka_redis_and_clickhouse_are_read_with_their_secrets(own: Settings) -> None:
    assert (own.kafka.bootstrap_servers, own.kafka.topic_prefix) == ("kafka-1:9092,kafka-2:9092", "prod.llm.")
    assert own.kafka.sasl_password is not None
    assert own.kafka.sasl_password.get_secret_value() == "kp"
    assert own.redis.url is not None
    assert (own.redis.url.get_secret_value(), own.redis.answer_ttl) == ("redis://:rp@redis:6379/1", 7200.0)
    assert own.clickhouse.ttl_days == 30


def test_pools_take_what_they_leave_out_from_the_section(own: Settings) -> None:
    quick, batch = own.pools["quick"], own.pools["batch"]
    assert (quick.aliases, quick.processes, quick.in_flight) == (("fast",), 2, 500)
    assert (batch.aliases, batch.in_flight, batch.drain_seconds) == (("*",), 50, 5.0)


def test_without_pools_there_is_one_for_every_alias() -> None:
    settings = settings_from("workers: {processes: 3}")
    assert [(pool.name, pool.aliases, pool.processes) for pool in settings.pools.values()] == [("default", ("*",), 3)]


def test_a_key_is_kept_by_its_hash_only(own: Settings) -> None:
    key = own.keys[hashlib.sha256(b"sk-team").hexdigest()]
    assert (key.key_id, key.tenant, key.team, key.aliases) == ("research", "acme", "research", ("fast",))
    assert (key.rpm_limit, key.tpm_limit, key.max_parallel_requests, key.max_budget) == (60, 10_000, 4, Decimal("12.5"))
    assert "sk-team" not in repr(own)


def test_a_key_may_be_given_as_its_hash_and_a_star_allows_every_alias(own: Settings) -> None:
    key = own.keys[hashlib.sha256(b"password").hexdigest()]
    assert (key.key_id, key.tenant, key.aliases, key.blocked) == ("5e884898da28", "beta", (), True)


def test_a_key_that_expires_on_a_date_lives_to_the_end_of_that_day_utc(own: Settings) -> None:
    assert own.keys[hashlib.sha256(b"sk-team").hexdigest()].expires_ms == END_OF_JANUARY_31_2030_MS


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2030-01-31", END_OF_JANUARY_31_2030_MS),
        ('"2030-01-31"', END_OF_JANUARY_31_2030_MS),
        ("2030-01-31T12:00:00Z", 1_896_091_200_000),
        ('"2030-01-31T12:00:00+02:00"', 1_896_084_000_000),
        ('"2030-01-31T12:00:00"', 1_896_091_200_000),
    ],
)
def test_an_expiry_is_an_iso_date_or_time(written: str, expected: int) -> None:
    settings = settings_from(f"keys: [{{key: sk, tenant: t, expires: {written}}}]")
    assert [key.expires_ms for key in settings.keys.values()] == [expected]


def test_an_explicit_null_refuses_requests_without_a_key(own: Settings) -> None:
    assert own.anonymous_tenant is None
    assert settings_from("tenants: {anonymous: guests}").anonymous_tenant == "guests"
    assert settings_from("tenants: {}").anonymous_tenant == "anonymous"


def test_price_overrides_are_kept_as_written(own: Settings) -> None:
    assert own.price_overrides == (
        {"provider": "openai", "models": ["fast"], "rates": {"input_mtok": 0.5, "output_mtok": 1.5}},
    )


def test_variables_of_the_broker_go_before_the_file() -> None:
    settings = load(
        FILE,
        {
            **ENVIRON,
            "BROKER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:4001",
            "BROKER_REDIS_URL": "redis://127.0.0.1:4002",
            "BROKER_CLICKHOUSE_DSN": "clickhouse://127.0.0.1:4004/llm",
            "BROKER_SIGNING_KEY": "from-outside",
        },
    )
    assert settings.kafka.bootstrap_servers == "127.0.0.1:4001"
    assert settings.redis.url is not None
    assert settings.redis.url.get_secret_value() == "redis://127.0.0.1:4002"
    assert settings.clickhouse.dsn is not None
    assert settings.clickhouse.dsn.get_secret_value() == "clickhouse://127.0.0.1:4004/llm"
    assert settings.signing_key is not None
    assert settings.signing_key.get_secret_value() == "sign"


def test_the_signing_key_of_the_environment_serves_where_the_file_has_none() -> None:
    settings = settings_from("general_settings: {master_key: sk-m}", {"BROKER_SIGNING_KEY": "from-outside"})
    assert settings.signing_key is not None
    assert settings.signing_key.get_secret_value() == "from-outside"


def test_with_neither_key_nor_master_key_there_is_no_signing_key() -> None:
    assert settings_from("{}").signing_key is None


def test_the_providers_own_variables_serve_a_deployment_that_names_no_address() -> None:
    entry = "model_list: [{model_name: m, params: {model: groq/llama}}]"
    key = settings_from(entry, {"GROQ_API_KEY": "g"}).aliases["m"].deployments[0].api_key
    assert key is not None
    assert key.get_secret_value() == "g"


def test_the_providers_own_credential_never_goes_to_an_address_of_the_file() -> None:
    entry = "model_list: [{model_name: m, params: {model: openai/x, api_base: 'http://elsewhere.example'}}]"
    assert settings_from(entry, {"OPENAI_API_KEY": "o"}).aliases["m"].deployments[0].api_key is None


def test_a_provider_of_the_configuration_is_named_like_any_other() -> None:
    rows = {"acme": {"base_url": "https://api.acme.test/v1", "lacks": ["seed"], "headers": {"x-team": "os.environ/T"}}}
    models = [{"model_name": "a", "litellm_params": {"model": "acme/m"}}]
    settings = settings_of({"providers": rows, "model_list": models}, {"T": "team-secret"})
    row = settings.aliases["a"].deployments[0].row
    assert row is not None
    assert (row.base_url, row.lacks, row.dialect) == ("https://api.acme.test/v1", ("seed",), "openai")
    assert "team-secret" not in str(masked(settings))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({}, "providers.acme.base_url: Field required"),
        ({"base_url": "x", "dialect": "klingon"}, "providers.acme.dialect"),
        ({"base_url": "x", "auht": "bearer"}, "providers.acme.auht: unknown key; the nearest known one is auth"),
    ],
)
def test_what_is_wrong_with_a_provider_is_named(row: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigProblems, match=re.escape(problem)):
        settings_of({"providers": {"acme": row}}, {})
