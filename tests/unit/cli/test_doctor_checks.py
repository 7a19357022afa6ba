"""What `broker doctor` makes of what it finds."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from broker.adapters.memory_log import MemoryAdmin
from broker.adapters.memory_store import MemoryLog
from broker.adapters.redis_probe import RedisState
from broker.cli.doctor import as_text
from broker.cli.doctor_checks import (
    Finding,
    State,
    bounded,
    check_addresses,
    check_clock,
    check_config,
    check_deployments,
    check_kafka,
    check_redis,
    check_topics,
)
from broker.clock import ManualClock
from broker.config import Deployment, Settings
from broker.errors import ConfigError, InvalidRequest, RequestError, Unavailable, UpstreamError
from broker.ports import TopicState
from broker.topics import TopicNames, TopicSpec, topic_specs
from tests.unit.config.yaml_text import settings_from

ONE = "model_list: [{model_name: a, params: {model: openai/m, api_base: 'http://127.0.0.1:1'}}]"
SPEC = TopicSpec("llm.requests.a", 12, (("retention.ms", "1000"), ("max.message.bytes", "500")))
AS_WANTED = TopicState("llm.requests.a", 12, {"retention.ms": "1000", "max.message.bytes": "500"})


def states(findings: Sequence[Finding]) -> list[tuple[str, State]]:
    return [(finding.part, finding.state) for finding in findings]


def exists(*specs: TopicSpec) -> MemoryLog:
    log = MemoryLog()
    for spec in specs:
        log.create(spec.name, spec.partitions, dict(spec.settings))
    return log


def test_a_configuration_without_aliases_is_a_failure() -> None:
    assert states(check_config(Settings(), 0)) == [("configuration", State.FAILED), ("signing key", State.NOTE)]


def test_a_complete_configuration_needs_no_word() -> None:
    settings = settings_from(f"{ONE}\ngeneral_settings: {{signing_key: s}}")
    assert states(check_config(settings, 0)) == [("configuration", State.OK)]


def test_keys_that_are_not_acted_on_are_worth_a_note() -> None:
    settings = settings_from(f"{ONE}\ngeneral_settings: {{signing_key: s, alerting: [slack]}}")
    assert states(check_config(settings, 0)) == [("configuration", State.OK), ("configuration", State.NOTE)]


def test_prices_that_cannot_be_used_are_a_failure() -> None:
    settings = settings_from(f"{ONE}\ngeneral_settings: {{signing_key: s}}\nprices: [{{provider: openai}}]")
    assert states(check_config(settings, 0)) == [("configuration", State.OK), ("prices", State.FAILED)]


async def test_topics_that_all_exist_are_fine() -> None:
    settings = settings_from(ONE)
    specs = topic_specs(TopicNames(), ["a"], max_message_bytes=settings.kafka.max_message_bytes)
    findings = await check_kafka(settings, MemoryAdmin(exists(*specs)))
    assert states(findings) == [("kafka", State.OK), ("topics", State.OK)]


async def test_missing_topics_are_named_with_the_command_that_makes_them() -> None:
    findings = await check_kafka(settings_from(ONE), MemoryAdmin(MemoryLog()))
    assert findings[1] == Finding(
        "topics",
        State.FAILED,
        "missing: llm.requests.a, llm.batch.a, llm.delay.30s, llm.delay.2m, llm.delay.10m and 4 more",
        "run `broker topics apply`",
    )


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (replace(AS_WANTED, partitions=6), "too small: llm.requests.a (6 of 12 partitions)"),
        (
            replace(AS_WANTED, settings={"max.message.bytes": "499"}),
            "too small: llm.requests.a (max.message.bytes 499 instead of 500)",
        ),
        (
            replace(AS_WANTED, settings={"retention.ms": "999"}),
            "too small: llm.requests.a (retention.ms 999 instead of 1000)",
        ),
    ],
)
def test_a_topic_that_is_too_small_says_by_how_much(state: TopicState, found: str) -> None:
    finding = check_topics([SPEC], {SPEC.name: state})
    assert (finding.state, finding.found) == (State.FAILED, found)


@pytest.mark.parametrize(
    "state",
    [
        AS_WANTED,
        replace(AS_WANTED, partitions=24, settings={"retention.ms": "-1", "max.message.bytes": "501"}),
        replace(AS_WANTED, settings={}),
    ],
)
def test_a_topic_may_be_larger_than_wanted(state: TopicState) -> None:
    assert check_topics([SPEC], {SPEC.name: state}).state is State.OK


def test_a_control_topic_that_is_not_compacted_is_a_failure() -> None:
    spec = TopicSpec("llm.control", 1, (("cleanup.policy", "compact"),))
    finding = check_topics([spec], {spec.name: TopicState(spec.name, 1, {"cleanup.policy": "delete"})})
    assert finding.found == "too small: llm.control (cleanup.policy delete instead of compact)"


async def redis(state: RedisState) -> list[Finding]:
    async def look() -> RedisState:
        return state

    return await check_redis(look, ManualClock(1_000_000))


async def test_a_current_redis_with_our_time_is_fine() -> None:
    findings = await redis(RedisState("8.2.0", 1_000_400, "noeviction"))
    assert states(findings) == [("redis", State.OK), ("clock of redis", State.OK)]


async def test_an_old_redis_is_a_failure_and_one_that_evicts_is_worth_a_note() -> None:
    findings = await redis(RedisState("6.2.1", 1_000_000, "allkeys-lru"))
    assert states(findings)[:2] == [("redis", State.FAILED), ("redis", State.NOTE)]


@pytest.mark.parametrize(
    ("theirs", "found"),
    [(98_500, "1.5 s behind this machine's"), (102_000, "1.8 s ahead of this machine's")],
)
def test_a_clock_that_differs_says_by_how_much_and_which_way(theirs: int, found: str) -> None:
    assert check_clock("redis", theirs, 100_000, 100_200).found == found


def test_a_slow_answer_is_not_taken_for_a_wrong_clock() -> None:
    assert check_clock("redis", 103_000, 100_000, 105_000).state is State.OK


async def test_a_check_that_takes_too_long_is_a_failure() -> None:
    async def never() -> Sequence[Finding]:
        await asyncio.Event().wait()
        return []

    assert await bounded("kafka", never, "start it", 0.01) == [
        Finding("kafka", State.FAILED, "no answer within 0.01 s", "start it")
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Unavailable("away"), Finding("kafka", State.FAILED, "away", "start it")),
        (ConfigError("wrong"), Finding("kafka", State.FAILED, "wrong", "correct the configuration")),
        (ZeroDivisionError("ours"), Finding("kafka", State.FAILED, "ZeroDivisionError: ours", "start it")),
    ],
)
async def test_whatever_a_check_raises_is_a_finding(error: Exception, expected: Finding) -> None:
    async def broken() -> Sequence[Finding]:
        raise error

    assert await bounded("kafka", broken, "start it") == [expected]


class Upstream:
    """Answers each call with the next of `outcomes`; keeps what was asked."""

    def __init__(self, *outcomes: RequestError | str) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[tuple[str, str, Mapping[str, Any]]] = []

    async def call(self, deployment: Deployment, endpoint: str, body: Mapping[str, Any]) -> str:
        self.asked.append((deployment.name, endpoint, body))
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, RequestError):
            raise outcome
        return outcome


def test_a_deployment_that_could_not_be_called_is_a_failure_without_a_call() -> None:
    def refuse(deployment: Deployment) -> None:
        raise ConfigError(f"deployment {deployment.name}: no address")

    assert check_addresses(settings_from(ONE), refuse) == [
        Finding("deployments", State.FAILED, "deployment a/0: no address", "correct the deployment in model_list")
    ]


async def test_a_deployment_that_answers_is_fine() -> None:
    upstream = Upstream("answered by m (5 + 1 tokens)")
    assert await check_deployments(settings_from(ONE), upstream.call) == [
        Finding("call a/0", State.OK, "answered by m (5 + 1 tokens)")
    ]
    assert [(endpoint, body["max_tokens"]) for _, endpoint, body in upstream.asked] == [("/v1/chat/completions", 1)]


async def test_a_model_that_refuses_max_tokens_is_asked_in_its_own_words() -> None:
    upstream = Upstream(InvalidRequest("max_tokens is not supported"), "answered")
    assert states(await check_deployments(settings_from(ONE), upstream.call)) == [("call a/0", State.OK)]
    assert "max_completion_tokens" in upstream.asked[1][2]


async def test_an_embedding_model_is_asked_for_an_embedding() -> None:
    upstream = Upstream("answered")
    text = "model_list: [{model_name: e, params: {model: openai/text-embedding-3-small}}]"
    await check_deployments(settings_from(text), upstream.call)
    assert upstream.asked[0][1] == "/v1/embeddings"


async def test_a_refused_credential_says_which_to_check() -> None:
    upstream = Upstream(UpstreamError("Incorrect API key provided", status=401, code="invalid_api_key"))
    assert await check_deployments(settings_from(ONE), upstream.call) == [
        Finding(
            "call a/0",
            State.FAILED,
            "401 invalid_api_key: Incorrect API key provided",
            "check api_key of this deployment",
        )
    ]


async def test_a_wildcard_is_not_called() -> None:
    text = "model_list: [{model_name: '*', params: {model: 'openai/*'}}]"
    assert states(await check_deployments(settings_from(text), Upstream().call)) == [("call -/0", State.NOTE)]


def test_the_text_has_a_sign_a_line_and_what_to_do_below() -> None:
    findings = [
        Finding("kafka", State.OK, "reached"),
        Finding("redis", State.FAILED, "away", "start it"),
        Finding("clickhouse", State.NOTE, "not configured"),
    ]
    assert as_text(findings).splitlines() == [
        "✓ kafka       reached",
        "✗ redis       away",
        "              → start it",
        "– clickhouse  not configured",
        "1 of 3 checks failed",
    ]
