"""Tenants, unknown outcomes, the limits of a day, leases and the batch lane's share: what arrives, what is refused."""

from decimal import Decimal

import pytest

from broker.config import OnUnknown, Tenant
from tests.unit.config.yaml_text import problems_of, settings_from

ONE = "model_list: [{model_name: one, params: {model: m}}]\n"


def test_what_a_tenant_may_use_and_its_share_arrive() -> None:
    settings = settings_from("""
    tenants:
      policies:
        acme: {weight: 3, rpm_limit: 60, tpm_limit: 9000, max_parallel_requests: 4, max_budget: 12.5}
        beta: {}
    """)
    assert settings.tenants == {
        "acme": Tenant(
            name="acme",
            weight=3,
            rpm_limit=60,
            tpm_limit=9_000,
            max_parallel_requests=4,
            max_budget=Decimal("12.5"),
        ),
        "beta": Tenant(name="beta"),
    }


def test_a_tenant_of_which_little_is_said_has_weight_one_and_no_limits() -> None:
    tenant = settings_from("tenants: {policies: {beta: }}").tenants["beta"]
    assert (tenant.weight, tenant.max_budget) == (1.0, None)
    assert (tenant.rpm_limit, tenant.tpm_limit, tenant.max_parallel_requests) == (None, None, None)


def test_policies_say_nothing_of_requests_without_a_key() -> None:
    assert settings_from("tenants: {policies: {acme: {weight: 2}}}").anonymous_tenant == "anonymous"
    both = settings_from("tenants: {anonymous: null, policies: {acme: {weight: 2}}}")
    assert (both.anonymous_tenant, both.tenants["acme"].weight) == (None, 2.0)


def test_a_value_of_a_tenant_may_stand_in_the_environment() -> None:
    settings = settings_from("tenants: {policies: {acme: {weight: os.environ/SHARE}}}", {"SHARE": "2.5"})
    assert settings.tenants["acme"].weight == 2.5


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("weight: 0", "weight: Input should be greater than 0; it is a number"),
        ("weight: -1", "weight: Input should be greater than 0; it is a number"),
        ("weight: 1001", "weight: Input should be less than or equal to 1000; it is a number"),
        ("weight: .nan", "weight: Input should be"),
        ("weight: much", "weight: Input should be a valid number"),
        ("rpm_limit: 0", "rpm_limit: Input should be greater than or equal to 1; it is a number"),
        ("tpm_limit: many", "tpm_limit: Input should be a valid integer"),
        ("max_parallel_requests: 0.5", "max_parallel_requests: Input should be a valid integer"),
        ("max_budget: -0.01", "max_budget: Input should be greater than or equal to 0; it is a number"),
        ("max_budget: .inf", "max_budget: Input should be a finite number"),
        ("rpm: 3", "rpm: unknown key; the nearest known one is rpm_limit"),
        ("wieght: 3", "wieght: unknown key; the nearest known one is weight"),
        ("name: other", "name: unknown key"),
    ],
)
def test_a_bad_value_of_a_tenant_names_the_tenant_and_the_field(fields: str, problem: str) -> None:
    (found,) = problems_of(f"tenants: {{policies: {{acme: {{{fields}}}}}}}")
    assert found.startswith(f"tenants.policies.acme.{problem}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tenants: {policies: [acme]}", "tenants.policies: a mapping is needed, not a list"),
        ("tenants: {policies: {acme: 3}}", "tenants.policies.acme: a mapping is needed, not a number"),
        ("tenants: {polices: {acme: {}}}", "tenants.polices: unknown key; the nearest known one is policies"),
    ],
)
def test_policies_of_the_wrong_shape_are_named(text: str, expected: str) -> None:
    assert problems_of(text) == (expected,)


def test_every_bad_tenant_is_named_at_once() -> None:
    text = "tenants: {policies: {acme: {weight: 0, rpm_limit: 0}, beta: {max_budget: -1}, fine: {weight: 2}}}"
    paths = sorted(problem.split(": ")[0] for problem in problems_of(text))
    assert paths == [
        "tenants.policies.acme.rpm_limit",
        "tenants.policies.acme.weight",
        "tenants.policies.beta.max_budget",
    ]


@pytest.mark.parametrize(
    ("fields", "on_unknown", "fail_open"),
    [
        ("", OnUnknown.RETRY, False),
        ("on_unknown: retry, fail_open: false", OnUnknown.RETRY, False),
        ("on_unknown: fail", OnUnknown.FAIL, False),
        ("fail_open: true", OnUnknown.RETRY, True),
    ],
)
def test_an_alias_says_what_becomes_of_an_unknown_outcome_and_without_redis(
    fields: str, on_unknown: OnUnknown, *, fail_open: bool
) -> None:
    alias = settings_from(f"{ONE}aliases: {{one: {{{fields}}}}}").aliases["one"]
    assert (alias.on_unknown, alias.fail_open) == (on_unknown, fail_open)


def test_one_alias_alone_may_fail_open_or_fail_on_an_unknown_outcome() -> None:
    text = """
    model_list: [{model_name: one, params: {model: m}}, {model_name: two, params: {model: m}}]
    aliases: {two: {on_unknown: fail, fail_open: true}}
    """
    aliases = settings_from(text).aliases
    assert [(alias.on_unknown, alias.fail_open) for alias in aliases.values()] == [
        (OnUnknown.RETRY, False),
        (OnUnknown.FAIL, True),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aliases: {one: {on_unknown: maybe}}", "aliases.one.on_unknown: Input should be 'retry' or 'fail'"),
        ("aliases: {one: {on_unknown: true}}", "aliases.one.on_unknown: Input should be 'retry' or 'fail'"),
        ("aliases: {one: {fail_open: perhaps}}", "aliases.one.fail_open: Input should be a valid boolean"),
        ("aliases: {one: {fail_opne: true}}", "aliases.one.fail_opne: unknown key; the nearest known one is fail_open"),
        ("router_settings: {on_unknown: fail}", "router_settings.on_unknown: unknown key"),
    ],
)
def test_a_bad_word_for_an_unknown_outcome_or_failing_open_is_named(text: str, expected: str) -> None:
    (found,) = problems_of(ONE + text)
    assert found.startswith(expected)


def test_limits_of_input_output_and_the_day_are_found_in_all_three_places_the_entry_first() -> None:
    text = """
    model_list:
      - model_name: one
        itpm: 1
        params: {model: m, itpm: 20, otpm: 2, rpd: 3}
        model_info: {rpd: 30, tpd: 4}
    """
    deployment = settings_from(text).aliases["one"].deployments[0]
    assert (deployment.itpm, deployment.otpm, deployment.rpd, deployment.tpd) == (1, 2, 3, 4)
    assert (deployment.rpm, deployment.tpm) == (None, None)


@pytest.mark.parametrize("field", ["itpm", "otpm", "rpd", "tpd"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("0", "Input should be greater than or equal to 1; it is a number"),
        ("-5", "Input should be greater than or equal to 1; it is a number"),
        ("1.5", "Input should be a valid integer"),
        ("many", "Input should be a valid integer"),
    ],
)
def test_a_bad_limit_of_a_deployment_is_named(field: str, value: str, problem: str) -> None:
    (found,) = problems_of(f"model_list: [{{model_name: one, params: {{model: m, {field}: {value}}}}}]")
    assert found.startswith(f"model_list[0].params.{field}: {problem}")


def test_the_times_of_leases_and_markers_arrive() -> None:
    redis = settings_from("redis: {lease_seconds: 5, marker_ttl: 60}").redis
    assert (redis.lease_seconds, redis.marker_ttl) == (5.0, 60.0)
    default = settings_from("{}").redis
    assert (default.lease_seconds, default.marker_ttl) == (30.0, 86_400.0)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("lease_seconds: 0.5", "redis.lease_seconds: Input should be greater than or equal to 1; it is a number"),
        ("lease_seconds: soon", "redis.lease_seconds: Input should be a valid number"),
        ("marker_ttl: 0", "redis.marker_ttl: Input should be greater than 0; it is a number"),
        ("marker_ttl: [1]", "redis.marker_ttl: Input should be a valid number; it is a list"),
        ("leese_seconds: 3", "redis.leese_seconds: unknown key; the nearest known one is lease_seconds"),
    ],
)
def test_a_bad_time_of_leases_or_markers_is_named(fields: str, expected: str) -> None:
    (found,) = problems_of(f"redis: {{{fields}}}")
    assert found.startswith(expected)


def test_a_pool_takes_its_batch_share_from_itself_else_from_the_section_else_a_twentieth() -> None:
    pools = settings_from("workers: {batch_share: 0.2, pools: {own: {batch_share: 0}, other: {}}}").pools
    assert {name: pool.batch_share for name, pool in pools.items()} == {"own": 0.0, "other": 0.2}
    assert settings_from("{}").pools["default"].batch_share == 0.05
    assert settings_from("workers: {batch_share: 1}").pools["default"].batch_share == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{pools: {p: {batch_share: 1.01}}}", "p.batch_share: Input should be less than or equal to 1; it is a number"),
        ("{pools: {p: {batch_share: -0.1}}}", "p.batch_share: Input should be greater than or equal to 0"),
        ("{pools: {p: {batch_share: half}}}", "p.batch_share: Input should be a valid number"),
        ("{batch_share: 2}", "default.batch_share: Input should be less than or equal to 1"),
    ],
)
def test_a_bad_batch_share_names_the_pool(text: str, expected: str) -> None:
    (found,) = problems_of(f"workers: {text}")
    assert found.startswith(f"workers.pools.{expected}")
