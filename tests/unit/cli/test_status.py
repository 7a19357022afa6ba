"""`broker status`: what it asks of the log and of the workers' shared state, and what it tells when one is away."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from broker.adapters.memory_limits import MemoryLimitStore
from broker.adapters.memory_log import MemoryAdmin, MemoryLog, MemoryReader
from broker.cli import status
from broker.cli.status_data import (
    LaneStatus,
    LogState,
    SharedState,
    ask_log,
    assemble,
)
from broker.cli.status_view import count, duration, money
from broker.clock import ManualClock
from broker.config import Alias, Deployment, Pool, Settings
from broker.errors import BrokerError, Unavailable
from broker.ports import Commit, Granted, LimitStore, LogAdmin, LogReader, Need, Units
from broker.records import OutRecord, Partition
from broker.topics import Lane, TopicNames, topic_specs
from workers.snapshot import FORMAT

NAMES = TopicNames()
NOW = 1_700_000_000_000
CHAT, BATCH = ("chat", Lane.INTERACTIVE), ("chat", Lane.BATCH)


def deployment(alias: str, number: int, **fields: Any) -> Deployment:
    return Deployment(name=f"{alias}/{number}", alias=alias, provider="openai", model="m", **fields)


SETTINGS = Settings(
    aliases={
        "chat": Alias(
            name="chat", deployments=(deployment("chat", 0, rpm=500, max_parallel_requests=8), deployment("chat", 1))
        ),
        "embed": Alias(name="embed", deployments=(deployment("embed", 0),)),
    },
    pools={"default": Pool(name="default", aliases=("chat",)), "bulk": Pool(name="bulk", aliases=("embed",))},
)


def lane(alias: str, name: str, **fields: Any) -> dict[str, Any]:
    empty = {
        "partitions": 0, "backlog": 0, "unfinished": 0, "waiting": 0, "oldest_ms": None,
        "read_rate": 0.0, "finished_rate": 0.0, "mean_tokens": None, "mean_cost_pico": None,
    }  # fmt: skip
    return {"alias": alias, "lane": name, **empty, **fields}


def said(*lanes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    who = {
        "format": FORMAT,
        "worker": "w",
        "pool": "default",
        "host": "h",
        "pid": 7,
        "version": "0.1.0",
        "started_ms": NOW - 60_000,
    }
    return {**who, "now_ms": NOW, "in_flight": 0, "problems": {}, "lanes": list(lanes), "deployments": {}, **fields}


def state(**workers: dict[str, Any]) -> SharedState:
    granted = {each.name: Granted() for alias in SETTINGS.aliases.values() for each in alias.deployments}
    return SharedState(granted, workers)


def log_state(**fields: Any) -> LogState:
    backlog = {(alias, each): 0 for alias in SETTINGS.aliases for each in Lane}
    known: dict[str, Any] = {"backlog": backlog, "oldest_ms": {}, "parked": {}, "dead": 0, "sink_lag": 0, **fields}
    return LogState(**{**known, "backlog": {**backlog, **known["backlog"]}})


def lane_of(log: LogState | None, shared: SharedState | None, place: tuple[str, Lane] = CHAT) -> LaneStatus:
    found = assemble(SETTINGS, ["chat"], log=log, shared=shared, missing={}, now_ms=NOW)
    return next(each for each in found.lanes if (each.alias, each.lane) == place)


def make_log(clock: ManualClock) -> MemoryLog:
    return MemoryLog({spec.name: 2 for spec in topic_specs(NAMES, list(SETTINGS.aliases))}, clock=clock)


async def asked(log: MemoryLog, aliases: Sequence[str] = ("chat",)) -> LogState:
    return await ask_log(SETTINGS, MemoryAdmin(log), MemoryReader(log), aliases)


async def test_the_backlog_is_what_the_pool_of_the_alias_has_not_committed() -> None:
    clock = ManualClock(NOW)
    log = make_log(clock)
    for number in range(10):
        clock.advance(1)
        log.append(OutRecord(NAMES.requests("chat"), b""), number % 2)
        log.append(OutRecord(NAMES.batch("chat"), b""), 0)
    log.group(NAMES.group("default")).commits[Partition(NAMES.requests("chat"), 0)] = Commit(3)
    log.group(NAMES.group("bulk")).commits[Partition(NAMES.batch("chat"), 0)] = Commit(9)
    log.trim(Partition(NAMES.batch("chat"), 0), 4)
    found = await asked(log)
    # Partition 1 has no commit: everything it holds waits; what retention took away waits no more.
    assert found.backlog == {CHAT: 2 + 5, BATCH: 6}
    # The oldest is the first of the uncommitted partition, written at second 2; of batch it is the first that is left.
    assert found.oldest_ms == {CHAT: NOW + 2_000, BATCH: NOW + 5_000}


async def test_parked_dead_and_unwritten_records_are_counted() -> None:
    log = make_log(ManualClock(NOW))
    for topic, records in ((NAMES.delay("30s"), 5), (NAMES.delay("10m"), 2), (NAMES.dead, 3), (NAMES.usage, 8)):
        for _ in range(records):
            log.append(OutRecord(topic, b""), 1)
    log.group(NAMES.relay_group).commits[Partition(NAMES.delay("30s"), 1)] = Commit(4)
    log.group(NAMES.sink_group).commits[Partition(NAMES.usage, 1)] = Commit(6)
    found = await asked(log)
    assert (found.parked, found.dead, found.sink_lag) == ({"30s": 1, "2m": 0, "10m": 2}, 3, 2)


async def test_topics_that_do_not_exist_yet_hold_nothing() -> None:
    found = await asked(MemoryLog())
    assert (found.backlog, found.oldest_ms, found.dead) == ({CHAT: 0, BATCH: 0}, {}, 0)


def test_estimates_are_the_backlog_times_what_finished_requests_took() -> None:
    one = said(lane("chat", "interactive", finished_rate=3.0, read_rate=4.0, mean_tokens=100.0, mean_cost_pico=1e9))
    two = said(
        lane("chat", "interactive", finished_rate=1.0, mean_tokens=200.0, mean_cost_pico=5e9, unfinished=9, waiting=4)
    )
    found = lane_of(log_state(backlog={CHAT: 1_000}, oldest_ms={CHAT: NOW - 90_000}), state(one=one, two=two))
    # The worker that finishes three times as much says three times as much about the mean.
    assert found.estimated_tokens == pytest.approx(125_000, rel=0.01)
    assert float(found.estimated_dollars or 0) == pytest.approx(2.0, rel=0.01)
    assert (found.finished_per_second, found.drain_seconds, found.oldest_seconds) == (4.0, 250.0, 90.0)
    assert (found.waiting, found.in_flight) == (4, 5)


def test_what_is_unknown_is_none_and_never_zero() -> None:
    unpriced = said(lane("chat", "interactive", finished_rate=2.0, mean_tokens=100.0))
    found = lane_of(log_state(backlog={CHAT: 10}), state(w=unpriced))
    assert (found.estimated_tokens, found.estimated_dollars) == (1_000, None)
    idle = lane_of(log_state(backlog={CHAT: 10}), state())
    assert (idle.estimated_tokens, idle.estimated_dollars, idle.drain_seconds) == (None, None, None)
    empty = lane_of(log_state(), state())
    assert (empty.estimated_tokens, empty.estimated_dollars, empty.drain_seconds) == (0, "0.000000000000", 0.0)
    blind = lane_of(None, state(w=unpriced))
    assert (blind.backlog, blind.estimated_tokens, blind.drain_seconds, blind.finished_per_second) == (
        None, None, None, 2.0,
    )  # fmt: skip
    alone = lane_of(log_state(backlog={CHAT: 10}), None)
    assert (alone.backlog, alone.finished_per_second, alone.in_flight, alone.drain_seconds) == (10, None, None, None)


def test_learned_limits_are_those_the_configuration_does_not_say() -> None:
    shared = state()
    shared.granted["chat/0"] = Granted(
        running=6, concurrency=5, limits={"rpm": 500, "tpm": 9_000}, used={"rpm": 12}, cooling_for=3.0, half_open=True
    )
    found = assemble(SETTINGS, ["chat"], log=None, shared=shared, missing={}, now_ms=NOW).deployments
    first, second = found
    assert (first.running, first.slots, first.configured_slots, first.concurrency) == (6, 5, 8, 5)
    assert (first.learned, first.used, first.cooling_seconds, first.half_open) == (
        {"tpm": 9_000},
        {"rpm": 12},
        3.0,
        True,
    )
    assert (second.deployment, second.slots, second.limits) == ("chat/1", None, {})


@pytest.mark.parametrize(
    ("told", "limits", "learned"),
    [
        ({}, {"rpm": 500}, {}),
        ({"rpm": 60, "tpm": 9_000}, {"rpm": 60, "tpm": 9_000}, {"rpm": 60, "tpm": 9_000}),
        ({"rpm": 500}, {"rpm": 500}, {}),
        ({"rpm": 800}, {"rpm": 500}, {}),
    ],
)
def test_the_smaller_of_the_configured_and_the_learned_limit_is_in_force(
    told: dict[str, int], limits: dict[str, int], learned: dict[str, int]
) -> None:
    shared = state()
    shared.granted["chat/0"] = Granted(limits=told)
    found = assemble(SETTINGS, ["chat"], log=None, shared=shared, missing={}, now_ms=NOW).deployments[0]
    assert (found.limits, found.learned) == (limits, learned)


def test_workers_are_alive_not_ready_or_silent_and_a_pool_without_one_is_named() -> None:
    workers = {
        "a": said(in_flight=3),
        "b": said(problems={"consumer": "stuck"}),
        "c": said(pool="bulk", now_ms=NOW - 7_000, in_flight=9),
        "d": said(now_ms=NOW - 3_600_000),  # a machine whose clock is an hour behind
    }
    found = assemble(SETTINGS, [], log=None, shared=state(**workers), missing={}, now_ms=NOW)
    assert {each.worker: each.state for each in found.workers} == {
        "a": "ready", "b": "not ready", "c": "silent", "d": "ready",
    }  # fmt: skip
    assert found.idle_pools == ["bulk"]


class Twins(status.Sources):
    """A log and a store in memory; either may be away."""

    def __init__(self) -> None:
        super().__init__(SETTINGS, ManualClock(NOW))
        self.memory = make_log(ManualClock(NOW))
        self.store = MemoryLimitStore(clock=ManualClock(NOW))
        self.store_away = False

    def log(self) -> tuple[LogAdmin, LogReader]:
        return MemoryAdmin(self.memory), MemoryReader(self.memory)

    def shared(self) -> LimitStore:
        if self.store_away:
            raise Unavailable("redis: cannot connect to 127.0.0.1:1")
        return self.store


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> Twins:
    made = Twins()
    monkeypatch.setattr(status, "load_settings", lambda _: SETTINGS)
    monkeypatch.setattr(status, "Sources", lambda _: made)
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(status.command, list(arguments), env={"COLUMNS": "80"})


async def fill(twins: Twins) -> None:
    for _ in range(1_200):
        twins.memory.append(OutRecord(NAMES.batch("chat"), b""), 0)
    await twins.store.start()
    await twins.store.exchange(
        "w", [Need("chat/0", {"rpm": 500}, max_parallel=8, demand=5, running=2, first=Units(1), want=Units(3))]
    )
    figures = {"finished_rate": 12.5, "mean_tokens": 150.4, "mean_cost_pico": 2_500_000_000.0}
    await twins.store.publish("w", said(lane("chat", "batch", **figures), in_flight=2))


def test_the_table_fits_eighty_columns_and_tells_what_waits(twins: Twins) -> None:
    asyncio.run(fill(twins))
    result = run("--alias", "chat")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert max(len(line) for line in lines) <= 80
    batch = next(line for line in lines if "batch" in line)
    assert [part for part in batch.split() if part[0].isdigit()][:4] == ["1,200", "180k", "3.00", "12.5"]
    assert "1m36s" in batch
    assert any("chat/0" in line and "2 / 8" in line and "rpm 3 / 500" in line for line in lines)
    assert "no worker of pool bulk is alive" in result.output
    assert "embed" not in result.output


def test_json_has_every_figure(twins: Twins) -> None:
    asyncio.run(fill(twins))
    told = json.loads(run("--json").output)
    batch = next(each for each in told["lanes"] if (each["alias"], each["lane"]) == ("chat", "batch"))
    assert (batch["backlog"], batch["estimated_tokens"]) == (1_200, 180_480)
    assert (batch["estimated_dollars"], batch["drain_seconds"]) == ("3.000000000000", 96.0)
    assert [each["deployment"] for each in told["deployments"]] == ["chat/0", "chat/1", "embed/0"]
    assert (told["workers"][0]["in_flight"], told["missing"]) == (2, {})


def test_a_store_that_is_away_leaves_the_backlog_and_ends_with_an_error(twins: Twins) -> None:
    asyncio.run(fill(twins))
    twins.store_away = True
    result = run()
    assert isinstance(result.exception, BrokerError)
    assert "redis" in str(result.exception)
    assert "1,200" in result.output
    assert "redis did not tell: redis: cannot connect to 127.0.0.1:1" in result.output
    assert json.loads(run("--json").output)["missing"].keys() == {"redis"}


def test_a_worker_of_another_version_is_named_and_breaks_nothing(twins: Twins) -> None:
    asyncio.run(fill(twins))
    asyncio.run(twins.store.publish("old", {"format": FORMAT - 1, "lines": []}))
    told = json.loads(run("--json").output)
    assert told["missing"] == {"worker old": "it is of another version than this command"}
    assert [worker["worker"] for worker in told["workers"]] == ["w"]


def test_a_log_that_is_away_leaves_the_workers_and_ends_with_an_error(twins: Twins) -> None:
    asyncio.run(fill(twins))
    twins.memory.down = True
    result = run()
    assert "kafka" in str(result.exception)
    assert "chat/0" in result.output
    assert "parked" not in result.output


def test_an_alias_nobody_configured_is_wrong_use(twins: Twins) -> None:
    del twins
    result = run("--alias", "nobody")
    assert "no alias is named nobody; there are: chat, embed" in str(result.exception)


def test_watching_prints_one_json_object_a_line_until_it_is_ended(
    twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)
        if len(asked) == 3:
            raise click.Abort

    del twins
    monkeypatch.setattr(status, "_pause", sleep)
    result = run("--json", "--watch", "2")
    assert asked == [2.0, 2.0, 2.0]
    assert [len(json.loads(line)["lanes"]) for line in result.stdout.splitlines() if line.startswith("{")] == [4, 4, 4]


@pytest.mark.parametrize(
    ("usd", "text"),
    [(None, "–"), ("0.000000000000", "0.00"), ("12.348", "12.35"), ("0.1234567", "0.1235"), ("0.00000001", "<0.0001")],
)
def test_money_is_written_as_people_read_it(usd: str | None, text: str) -> None:
    assert money(usd) == text


def test_an_unknown_count_is_a_dash_and_a_large_one_is_short() -> None:
    found = [count(number) for number in (None, 0, 99_999, 180_000, 1_500_000, 98_000_000_000, 250_000_000)]
    assert found == ["–", "0", "99,999", "180k", "1.50M", "98.00G", "250M"]


def test_a_duration_is_written_in_two_units_at_most() -> None:
    found = [duration(seconds) for seconds in (0.4, 59.4, 200, 3_599, 7_500, 97_200)]
    assert found == ["0s", "59s", "3m20s", "59m59s", "2h05m", "1d03h"]
