"""The checks of `broker doctor`: each looks at one part and says what it found and what to do."""

import asyncio
import textwrap
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from broker.adapters.clickhouse_migrations import migrations
from broker.adapters.redis_probe import RedisState
from broker.clock import Clock
from broker.config import Deployment, Settings
from broker.errors import BrokerError, ConfigError, RequestError
from broker.ledger.prices import PriceTable
from broker.ports import Ledger, LogAdmin, TopicState
from broker.topics import TopicNames, TopicSpec, topic_specs

CHECK_SECONDS: Final = 10.0
"""Of one check, connection included."""

CALL_SECONDS: Final = 60.0
"""Of one call of a deployment: a local model may have to load first."""

CALLS_AT_ONCE: Final = 8

SKEW_MS: Final = 1_000
"""Clock difference that is worth a word: deadlines and ledger times are unix milliseconds of several machines."""

LONGEST: Final = 240
"""Characters of a client library's message: its end repeats its beginning."""

NAMED: Final = 5
"""Topics named in full; of more, the number."""

OLDEST_REDIS: Final = 7
"""Major version; the streams of commands and the scripts in use are those of Redis 7 and later."""

KEPT_SETTINGS: Final = ("retention.ms", "max.message.bytes")
"""Settings of a topic that must be at least what is wanted; -1 is without end."""


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    FAILED = "failed"
    NOTE = "note"
    """Not checked, or worth knowing; no failure."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `todo` says what to do about it, empty where there is nothing to do."""

    part: str
    state: State
    found: str
    todo: str = ""


CallDeployment = Callable[[Deployment, str, Mapping[str, Any]], Awaitable[str]]
"""Sends a body to an endpoint of a deployment and says what answered; raises a `RequestError`."""

Check = Callable[[], Awaitable[Sequence[Finding]]]


async def bounded(part: str, check: Check, todo: str, seconds: float = CHECK_SECONDS) -> Sequence[Finding]:
    """Run a check for at most `seconds`; what it raises is a failure of `part` with this `todo`."""
    try:
        async with asyncio.timeout(seconds):
            return await check()
    except TimeoutError:
        return [Finding(part, State.FAILED, f"no answer within {seconds:g} s", todo)]
    except ConfigError as error:
        return [Finding(part, State.FAILED, str(error), "correct the configuration")]
    except BrokerError as error:
        return [Finding(part, State.FAILED, textwrap.shorten(str(error), LONGEST, placeholder="…"), todo)]
    except Exception as error:  # noqa: BLE001 - a check that breaks is a finding, and the others go on
        return [Finding(part, State.FAILED, f"{type(error).__name__}: {error}", todo)]


def check_config(settings: Settings, now_ms: int) -> list[Finding]:
    """Look at what the configuration leaves open; reaches nothing."""
    deployments = [each for alias in settings.aliases.values() for each in alias.deployments]
    findings = []
    if deployments:
        counts = f"{len(settings.aliases)} aliases, {len(deployments)} deployments ({settings.config_hash})"
        findings.append(Finding("configuration", State.OK, counts))
    else:
        findings.append(
            Finding("configuration", State.FAILED, "no alias is defined", "add model_list; give it with --config FILE")
        )
    if settings.unacted:
        count = f"{len(settings.unacted)} LiteLLM keys are understood but not acted on yet"
        findings.append(Finding("configuration", State.NOTE, count, "`broker config check` lists them"))
    if settings.signing_key is None and settings.keys:
        todo = "set general_settings.signing_key, BROKER_SIGNING_KEY or general_settings.master_key"
        findings.append(Finding("signing key", State.FAILED, "none is set; with keys no worker starts without", todo))
    elif settings.signing_key is None:
        findings.append(
            Finding(
                "signing key",
                State.NOTE,
                "none is set: each worker process draws its own and believes no other's reroutes",
                "for more than one process set general_settings.signing_key or BROKER_SIGNING_KEY",
            )
        )
    return findings + _check_prices(settings, deployments, now_ms)


def _check_prices(settings: Settings, deployments: Sequence[Deployment], now_ms: int) -> list[Finding]:
    try:
        PriceTable.compile(deployments, settings.price_overrides, now_ms)
    except ConfigError as error:
        return [Finding("prices", State.FAILED, str(error), "correct `prices` in the configuration")]
    return []


async def check_kafka(settings: Settings, admin: LogAdmin) -> list[Finding]:
    """Reach the log and compare its topics with those the aliases need."""
    kafka = settings.kafka
    specs = topic_specs(
        TopicNames(kafka.topic_prefix), sorted(settings.aliases), max_message_bytes=kafka.max_message_bytes
    )
    await admin.start()
    try:
        existing = await admin.topics(kafka.topic_prefix)
    finally:
        await admin.stop()
    return [Finding("kafka", State.OK, f"reached {kafka.bootstrap_servers}"), check_topics(specs, existing)]


def check_topics(specs: Sequence[TopicSpec], existing: Mapping[str, TopicState]) -> Finding:
    """Compare topics: missing, with too few partitions, or keeping less than wanted."""
    missing = [spec.name for spec in specs if spec.name not in existing]
    small = [
        f"{spec.name} ({', '.join(short)})"
        for spec in specs
        if spec.name in existing and (short := _shortcomings(spec, existing[spec.name]))
    ]
    if not missing and not small:
        return Finding("topics", State.OK, f"{len(specs)} of {len(specs)} exist and are large enough")
    found = [_named("missing", missing)] if missing else []
    found += [_named("too small", small)] if small else []
    return Finding("topics", State.FAILED, "; ".join(found), "run `broker topics apply`")


def _shortcomings(spec: TopicSpec, state: TopicState) -> list[str]:
    short = [f"{state.partitions} of {spec.partitions} partitions"] if state.partitions < spec.partitions else []
    for name, wanted in spec.settings:
        actual = state.settings.get(name)
        if actual is None or actual == wanted:
            continue
        if name not in KEPT_SETTINGS or -1 < int(actual) < int(wanted):
            short.append(f"{name} {actual} instead of {wanted}")
    return short


def _named(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{what}: {', '.join(names[:NAMED])}{more}"


async def check_redis(look: Callable[[], Awaitable[RedisState]], clock: Clock) -> list[Finding]:
    """Reach Redis, and compare its version, its way with full memory and its clock."""
    before = clock.now_ms()
    state = await look()
    findings = [Finding("redis", State.OK, f"reached, version {state.version}")]
    if int(state.version.split(".")[0]) < OLDEST_REDIS:
        findings = [Finding("redis", State.FAILED, f"version {state.version}", f"use Redis {OLDEST_REDIS} or later")]
    if state.evicts not in {"noeviction", ""}:
        findings.append(
            Finding(
                "redis",
                State.NOTE,
                f"maxmemory-policy is {state.evicts}: stored answers may vanish before their time",
                "set maxmemory-policy noeviction",
            )
        )
    return [*findings, check_clock("redis", state.now_ms, before, clock.now_ms())]


async def check_clickhouse(ledger: Ledger, clock: Clock) -> list[Finding]:
    """Reach ClickHouse, and compare its schema and its clock."""
    await ledger.start()
    try:
        before = clock.now_ms()
        table = await ledger.query("SELECT version(), toUnixTimestamp64Milli(now64(3))")
        after = clock.now_ms()
        version, now_ms = table.rows[0]
        reached = Finding("clickhouse", State.OK, f"reached, version {version}")
        schema = await bounded("schema", lambda: _check_schema(ledger), "run `broker clickhouse migrate`")
    finally:
        await ledger.stop()
    return [reached, *schema, check_clock("clickhouse", int(now_ms), before, after)]


async def _check_schema(ledger: Ledger) -> Sequence[Finding]:
    applied = {str(row[0]) for row in (await ledger.query("SELECT name FROM schema_migrations")).rows}
    wanted = [each.name for each in migrations()]
    missing = [name for name in wanted if name not in applied]
    newer = sorted(applied - set(wanted))
    if missing:
        return [
            Finding("schema", State.FAILED, _named("not applied", missing), "run `broker clickhouse migrate`"),
        ]
    if newer:
        found = _named("newer than this version of the broker", newer)
        return [Finding("schema", State.NOTE, found, "update this installation")]
    return [Finding("schema", State.OK, f"{len(wanted)} of {len(wanted)} migrations applied")]


def check_clock(part: str, theirs_ms: int, before_ms: int, after_ms: int) -> Finding:
    """Compare a server's clock with ours: it answered at some time between `before_ms` and `after_ms`."""
    skew = theirs_ms - before_ms if theirs_ms < before_ms else max(0, theirs_ms - after_ms)
    if abs(skew) < SKEW_MS:
        return Finding(f"clock of {part}", State.OK, f"within {SKEW_MS / 1000:g} s of this machine's")
    ahead = "ahead of" if skew > 0 else "behind"
    return Finding(
        f"clock of {part}",
        State.FAILED,
        f"{abs(skew) / 1000:.1f} s {ahead} this machine's",
        "synchronise both clocks (NTP): deadlines and the ledger's times are compared between machines",
    )


def check_addresses(settings: Settings, resolve: Callable[[Deployment], object]) -> list[Finding]:
    """Ask of each deployment whether it could be called at all; reaches nothing."""
    findings = []
    for deployment in (each for alias in settings.aliases.values() for each in alias.deployments):
        try:
            resolve(deployment)
        except ConfigError as error:
            findings.append(Finding("deployments", State.FAILED, str(error), "correct the deployment in model_list"))
    return findings


async def check_deployments(settings: Settings, call: CallDeployment) -> list[Finding]:
    """Make one tiny call of each deployment, a few at once; each costs about ten tokens."""
    gate = asyncio.Semaphore(CALLS_AT_ONCE)

    async def one(deployment: Deployment) -> Sequence[Finding]:
        part = f"call {deployment.name}"
        async with gate:
            todo = "check model, api_base and api_key of this deployment"
            return await bounded(part, lambda: _call(part, deployment, call), todo, CALL_SECONDS)

    deployments = [each for alias in settings.aliases.values() for each in alias.deployments]
    found = await asyncio.gather(*(one(each) for each in deployments))
    return [finding for findings in found for finding in findings]


async def _call(part: str, deployment: Deployment, call: CallDeployment) -> Sequence[Finding]:
    if "*" in deployment.model:
        return [Finding(part, State.NOTE, "not called: a wildcard names no model")]
    last: RequestError | None = None
    for endpoint, body in tiny_bodies(deployment):
        try:
            answered = await call(deployment, endpoint, body)
        except RequestError as error:
            last = error
            if error.status != 400:  # noqa: PLR2004 - the status that says the request does not suit the model
                break
        else:
            return [Finding(part, State.OK, answered)]
    return [_failed_call(part, deployment, last)]


def tiny_bodies(deployment: Deployment) -> list[tuple[str, dict[str, Any]]]:
    """Return endpoint and body of the smallest requests worth trying, in order.

    OpenAI's reasoning models refuse `max_tokens`; nothing in the configuration tells an embedding model but its name.
    """
    if "embed" in deployment.model.lower():
        return [("/v1/embeddings", {"model": deployment.alias, "input": "ping"})]
    chat = {"model": deployment.alias, "messages": [{"role": "user", "content": "ping"}]}
    path = "/v1/chat/completions"
    return [(path, {**chat, "max_tokens": 1}), (path, {**chat, "max_completion_tokens": 16})]


def _failed_call(part: str, deployment: Deployment, error: RequestError | None) -> Finding:
    if error is None:
        return Finding(part, State.FAILED, "no answer")
    todo = {
        401: "check api_key of this deployment",
        403: "check api_key of this deployment, and what it may use",
        404: f"check model ({deployment.model}) and api_base of this deployment",
        408: "it answered too late: check timeout, or try again",
        429: "the provider limits this key: wait, or set rpm and tpm",
        502: "check api_base of this deployment, and that its server runs",
    }.get(error.status, "see the provider's message")
    return Finding(part, State.FAILED, f"{error.status} {error.code}: {error.message}", todo)
