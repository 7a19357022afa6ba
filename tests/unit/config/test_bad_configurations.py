"""What cannot be used is named with its path, all of it at once, and no secret is repeated."""

import re
from contextlib import suppress

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.config.loader import settings_of
from broker.errors import ConfigError
from tests.unit.config.yaml_text import problems_of, settings_from

TWO = """
model_list:
  - {model_name: one, litellm_params: {model: openai/one}}
  - {model_name: two, litellm_params: {model: openai/two}}
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("modle_list: []", "modle_list: unknown key; the nearest known one is model_list"),
        (
            "router_settings: {num_retires: 2}",
            "router_settings.num_retires: unknown key; the nearest known one is num_retries",
        ),
        ("litellm_settings: {drop_parms: true}", "litellm_settings.drop_parms: unknown key; the nearest known one is"),
        (
            "general_settings: {masterkey: sk-1}",
            "general_settings.masterkey: unknown key; the nearest known one is master_key",
        ),
        ("kafka: {bootstrap_server: x}", "kafka.bootstrap_server: unknown key; the nearest known one is bootstrap_"),
        (
            "workers: {pools: {a: {inflight: 3}}}",
            "workers.pools.a.inflight: unknown key; the nearest known one is in_flight",
        ),
        (
            "model_list: [{model_name: a, litellm_params: {model: b, api_bse: c}}]",
            "model_list[0].litellm_params.api_bse: unknown key; the nearest known one is api_base",
        ),
        (
            "model_list: [{model_name: a, litellm_parms: {model: b}}]",
            "model_list[0].litellm_parms: unknown key; the nearest known one is litellm_params",
        ),
        (
            "model_list: [{model_name: a, params: {model: b}, model_info: {base_modle: c}}]",
            "model_list[0].model_info.base_modle: unknown key; the nearest known one is base_model",
        ),
        (
            f"{TWO}\naliases: {{one: {{timeouts: 3}}}}",
            "aliases.one.timeouts: unknown key; the nearest known one is timeout",
        ),
        ("tenants: {anonymus: x}", "tenants.anonymus: unknown key; the nearest known one is anonymous"),
    ],
)
def test_an_unknown_key_names_its_path_and_the_nearest_known_one(text: str, expected: str) -> None:
    found = problems_of(text)
    assert found[0].startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model_list: {a: 1}", "model_list: a list is needed, not a mapping"),
        ("model_list: [text]", "model_list[0]: a mapping is needed, not text"),
        ("router_settings: [1]", "router_settings: a mapping is needed, not a list"),
        ("model_list: [{litellm_params: {model: b}}]", "model_list[0].model_name: a name is needed, not nothing"),
        (
            "model_list: [{model_name: a, litellm_params: {}}]",
            "model_list[0].litellm_params.model: a model is needed, not nothing",
        ),
        (
            "model_list: [{model_name: a, params: {model: b}, litellm_params: {model: b}}]",
            "model_list[0].params: it means the same as litellm_params",
        ),
        ("keys: [{tenant: a}]", "keys[0]: exactly one of `key` and `hash` is needed"),
        ("keys: [{tenant: a, key: sk, hash: ab}]", "keys[0]: exactly one of `key` and `hash` is needed"),
        ("keys: [{key: sk}]", "keys[0].tenant: Field required"),
        ("keys: [{key: sk, tenant: a}, {key: sk, tenant: b}]", "keys[1]: the same key stands in this list already"),
        ("keys: [{key: sk, tenant: a, expires: soon}]", "keys[0].expires: an ISO date or time is needed"),
        ("tenants: {anonymous: 3}", "tenants.anonymous: a name or null is needed, not a number"),
        ("general_settings: {master_key: 1234}", "general_settings.master_key: text is needed, not a number"),
        ("include: [a.yaml]\nserver: {port_base: 70000}", "server.port_base: Input should be less than or equal to"),
    ],
)
def test_a_value_of_the_wrong_kind_names_its_path(text: str, expected: str) -> None:
    assert problems_of(text)[0].startswith(expected)


def test_a_type_error_names_the_field_and_what_kind_of_value_it_is() -> None:
    entry = "model_list: [{model_name: a, params: {model: b, rpm: many, weight: [1]}}]"
    assert problems_of(entry) == (
        "model_list[0].params.rpm: Input should be a valid integer, unable to parse string as an integer; it is text",
        "model_list[0].params.weight: Input should be a valid number; it is a list",
    )


def test_every_problem_is_found_at_once() -> None:
    text = """
    modle_list: []
    model_list: [{model_name: a, params: {model: os.environ/ABSENT, rpm: 0}}]
    kafka: {replication_factor: 0}
    router_settings: {routing_strategy: fastest, fallbacks: [{a: [b]}]}
    """
    assert len(problems_of(text)) == 6


def test_a_missing_variable_names_the_field_and_the_variable() -> None:
    text = "model_list: [{model_name: a, params: {model: b, api_key: os.environ/NO_SUCH_KEY}}]"
    assert problems_of(text) == ("model_list[0].params.api_key: environment variable NO_SUCH_KEY is not set",)


def test_a_fallback_to_an_alias_that_does_not_exist_names_it_and_the_nearest() -> None:
    assert problems_of(f"{TWO}\nrouter_settings: {{fallbacks: [{{one: [tow]}}]}}") == (
        "router_settings.fallbacks[0].one[0]: no alias 'tow' in model_list; the nearest one is 'two'",
    )


def test_fallbacks_of_an_alias_that_does_not_exist_name_it() -> None:
    assert problems_of(f"{TWO}\nlitellm_settings: {{context_window_fallbacks: [{{three: [two]}}]}}") == (
        "litellm_settings.context_window_fallbacks[0].three: no alias 'three' in model_list; the nearest one is 'two'",
    )


@pytest.mark.parametrize(
    "text",
    [
        f"{TWO}\nworkers: {{pools: {{p: {{aliases: [three]}}}}}}",
        f"{TWO}\nkeys: [{{key: sk, tenant: t, aliases: [three]}}]",
        f"{TWO}\naliases: {{three: {{}}}}",
        f"{TWO}\nrouter_settings: {{model_group_alias: {{x: three}}}}",
        f"{TWO}\nlitellm_settings: {{default_fallbacks: [three]}}",
    ],
)
def test_an_alias_that_does_not_exist_is_named_wherever_it_stands(text: str) -> None:
    assert "no alias 'three' in model_list" in problems_of(text)[0]


def test_an_unknown_strategy_names_the_nearest_one() -> None:
    assert problems_of("router_settings: {routing_strategy: least-bussy}") == (
        "router_settings.routing_strategy: no strategy 'least-bussy'; the nearest one is least-busy",
    )


@pytest.mark.parametrize(("one", "other"), [("a/b", "a-b"), ("a/b", "a:b"), ("a.b", "a_b")])
def test_two_names_that_would_share_a_topic_are_refused(one: str, other: str) -> None:
    entries = [{"model_name": name, "params": {"model": "m"}} for name in (one, other)]
    with pytest.raises(ConfigError, match="would share one Kafka topic"):
        settings_of({"model_list": entries}, {})


def test_an_alias_longer_than_a_topic_allows_is_refused() -> None:
    assert (
        "longer than 200 characters"
        in problems_of(f"model_list: [{{model_name: {'a' * 201}, params: {{model: m}}}}]")[0]
    )


def test_two_deployments_of_one_name_are_refused() -> None:
    entry = "{model_name: a, params: {model: m}, model_info: {id: same}}"
    assert problems_of(f"model_list: [{entry}, {entry}]") == (
        "model_list: two deployments are called 'same' (of 'a' and 'a')",
    )


SECRET = "sk-very-secret-12345"


@pytest.mark.parametrize(
    "text",
    [
        f"model_list: [{{model_name: a, params: {{model: b, rpm: {SECRET}, api_key: {SECRET}}}}}]",
        f"model_list: [{{model_name: a, params: {{model: b, api_key: [{SECRET}]}}}}]",
        f"keys: [{{hash: {SECRET}, tenant: t}}]",
        f"keys: [{{key: {SECRET}, tenant: [t]}}]",
        f"kafka: {{sasl_password: {{x: {SECRET}}}}}",
        f"redis: {{url: [{SECRET}]}}",
        f"general_settings: {{master_key: [{SECRET}]}}",
        f"environment_variables: [{SECRET}]",
        f"environment_variables: {{A: [{SECRET}]}}",
    ],
)
def test_no_problem_repeats_a_secret(text: str) -> None:
    assert SECRET not in "\n".join(problems_of(text))


def test_a_value_from_the_environment_is_never_repeated() -> None:
    text = "model_list: [{model_name: a, params: {model: b, rpm: os.environ/LIMIT}}]"
    assert SECRET not in "\n".join(problems_of(text, {"LIMIT": SECRET}))


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
SECTIONS = re.findall(
    r"\w+",
    "model_list router_settings litellm_settings general_settings environment_variables credential_list aliases "
    "kafka redis clickhouse workers server keys tenants prices",
)
FIELDS = re.findall(
    r"\w+",
    "model_name litellm_params model_info api_key model rpm fallbacks default_fallbacks routing_strategy timeout "
    "master_key key hash tenant expires pools aliases anonymous url dsn model_group_alias extra_headers extra_body id "
    "credential_name credential_values",
)
sections = st.recursive(
    yaml_values,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(SECTIONS), sections, max_size=4))
def test_any_tree_gives_settings_or_a_configuration_error_and_nothing_else(tree: dict[str, object]) -> None:
    with suppress(ConfigError):
        assert len(settings_of(tree, {}).config_hash) == 12


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=60).filter(lambda name: "*" not in name))
def test_any_model_name_becomes_an_alias_that_kafka_allows(name: str) -> None:
    tree = {"model_list": [{"model_name": name, "params": {"model": "m"}}]}
    loaded = settings_of(tree, {})
    (alias,) = loaded.aliases
    assert set(alias) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert loaded.alias_names.get(name, name) == alias


def test_a_configuration_survives_a_round_trip_through_yaml() -> None:
    tree = yaml.safe_load(TWO)
    assert settings_from(yaml.safe_dump(tree)) == settings_from(TWO)
