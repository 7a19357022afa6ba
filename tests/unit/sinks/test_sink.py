"""The usage sink over a log and a ledger in memory: each event once, none lost, whatever breaks when."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from broker.adapters.memory_ledger import MemoryLedger
from broker.adapters.memory_log import MemoryConsumer, MemoryLog, MemoryProducer
from broker.clock import SystemClock
from broker.envelope.dead import read_dead
from broker.errors import Unavailable
from broker.metrics import Metrics
from broker.ports import LedgerRow, OutRecord, Partition, SendFailure
from broker.topics import TopicNames
from schemas.usage import Outcome, UsageEvent
from workers.sinks.clickhouse import Sink

NAMES = TopicNames("t.")
DEADLINE_S = 20.0
NOW = datetime(2026, 11, 15, 12, tzinfo=UTC)


class Killed(BaseException):
    """The process ends here: no handler of the sink may run on."""


class FragileLedger(MemoryLedger):
    """Ends the process before or after an INSERT takes effect, once."""

    def __init__(self) -> None:
        super().__init__()
        self.dies: str | None = None
        self.calls: list[Sequence[LedgerRow]] = []

    async def insert(self, rows: Sequence[LedgerRow]) -> Sequence[tuple[LedgerRow, str]]:
        self.calls.append(rows)
        self._die("before insert")
        refused = await super().insert(rows)
        self._die("after insert")
        return refused

    def _die(self, point: str) -> None:
        if self.dies == point:
            self.dies = None
            raise Killed


class FragileProducer(MemoryProducer):
    """Ends the process after a dead letter is written, once, or refuses as told."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.dies = False

    async def send_all(self, records: Sequence[OutRecord]) -> Sequence[SendFailure | None]:
        sent = await super().send_all(records)
        if self.dies:
            self.dies = False
            raise Killed
        return sent


def event(number: int, **changes: object) -> bytes:
    plain: dict[str, object] = {
        "usage_id": f"r{number}:1",
        "request_id": f"r{number}",
        "attempt": 1,
        "alias": "local",
        "endpoint": "/v1/chat/completions",
        "lane": "interactive",
        "outcome": Outcome.ANSWERED,
        "billable": True,
        "status": 200,
        "created_at": NOW,
        "started_at": NOW,
        "finished_at": NOW,
    }
    return UsageEvent(**(plain | changes)).model_dump_json().encode()


class Bench:
    """One log, one ledger, and sinks over them."""

    def __init__(self, partitions: int = 3) -> None:
        self.log = MemoryLog()
        self.log.create(NAMES.usage, partitions, {})
        self.log.create(NAMES.dead, 1, {})
        self.ledger = FragileLedger()
        self.producer = FragileProducer(self.log)
        self.consumers: list[MemoryConsumer] = []
        self.sinks: list[Sink] = []
        self.metrics = Metrics(CollectorRegistry())

    async def write(self, *values: bytes | None, partition: int = 0) -> None:
        records = [OutRecord(NAMES.usage, value, partition=partition) for value in values]
        assert set(await MemoryProducer(self.log).send_all(records)) == {None}

    def dead(self) -> dict[str, str]:
        """Origin to reason of every dead letter."""
        found = {}
        for record in self.log.read(Partition(NAMES.dead, 0), 0, 10_000):
            letter = read_dead(record)
            assert letter is not None
            found[letter.origin] = letter.reason
        return found

    def committed(self) -> dict[int, int]:
        commits = self.log.group(NAMES.sink_group).commits
        return {partition.partition: commit.offset for partition, commit in commits.items()}

    def sink(self, rows: int = 100, seconds: float = 0.02) -> Sink:
        consumer = MemoryConsumer(self.log, NAMES.sink_group)
        sink = Sink(
            consumer=consumer,
            producer=self.producer,
            ledger=self.ledger,
            names=NAMES,
            clock=SystemClock(),
            metrics=self.metrics,
            batch_rows=rows,
            batch_seconds=seconds,
        )
        self.consumers.append(consumer)
        self.sinks.append(sink)
        return sink

    @asynccontextmanager
    async def running(self, rows: int = 100, seconds: float = 0.02) -> AsyncIterator[Sink]:
        sink = self.sink(rows, seconds)
        await sink.start()
        task = asyncio.create_task(sink.run())
        try:
            yield sink
        finally:
            sink.stop()
            with contextlib.suppress(Killed):
                await task
            await sink.close()

    async def runs_until_killed(self) -> None:
        sink = self.sink()
        await sink.start()
        with contextlib.suppress(Killed):
            async with asyncio.timeout(DEADLINE_S):
                await sink.run()
        self.consumers[-1].kill()


async def until(condition: Callable[[], bool]) -> None:
    """Look again and again, as the sink runs in a task of its own."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is the state of a store, which has no event
            await asyncio.sleep(0.002)


def ids(numbers: range) -> set[str]:
    return {f"r{number}:1" for number in numbers}


async def test_events_become_rows_and_the_group_is_committed_for_lag_monitors() -> None:
    bench = Bench()
    for partition in range(3):
        await bench.write(
            *(event(number) for number in range(partition * 10, partition * 10 + 10)), partition=partition
        )
    async with bench.running():
        await until(lambda: bench.committed() == {0: 10, 1: 10, 2: 10})
    assert set(bench.ledger.rows) == ids(range(30))
    assert bench.metrics.registry.get_sample_value("broker_sink_rows_total") == 30


async def test_a_full_batch_does_not_wait_and_a_small_one_waits_its_time() -> None:
    bench = Bench(1)
    await bench.write(*(event(number) for number in range(25)))
    async with bench.running(rows=10, seconds=30.0):
        await until(lambda: sum(bench.ledger.inserts) == 20)
        assert bench.ledger.inserts == [10, 10]
    assert bench.ledger.inserts == [10, 10, 5], "what was read is written when the sink is stopped"


async def test_it_resumes_from_the_table_and_not_from_the_group_s_commit() -> None:
    bench = Bench(1)
    await bench.write(*(event(number) for number in range(10)))
    await bench.ledger.insert([LedgerRow(UsageEvent.model_validate_json(event(n)), 0, n) for n in range(6)])
    bench.ledger.calls.clear()
    async with bench.running():
        await until(lambda: len(bench.ledger.rows) == 10)
    assert [row.offset for rows in bench.ledger.calls for row in rows] == [6, 7, 8, 9]


async def test_a_commit_ahead_of_an_empty_table_loses_nothing() -> None:
    bench = Bench(1)
    await bench.write(*(event(number) for number in range(10)))
    async with bench.running():
        await until(lambda: bench.committed() == {0: 10})
    bench.ledger = FragileLedger()
    async with bench.running():
        await until(lambda: len(bench.ledger.rows) == 10)


@pytest.mark.parametrize("point", ["before insert", "after insert", "after a dead letter", "before the commit"])
async def test_nothing_is_lost_when_the_process_is_killed(point: str) -> None:
    bench = Bench(1)
    await bench.write(*(event(number) for number in range(5)), b"not json", event(6), event(7, status=-1), event(8))
    bench.ledger.dies = point if "insert" in point else None
    bench.producer.dies = point == "after a dead letter"
    bench.log.fail_commits = point == "before the commit"
    if point == "before the commit":
        async with bench.running():
            await until(lambda: len(bench.ledger.rows) == 7)
    else:
        await bench.runs_until_killed()
    bench.log.fail_commits = False
    async with bench.running():
        await until(lambda: bench.committed() == {0: 9})
    assert set(bench.ledger.rows) == ids(range(9)) - {"r5:1", "r7:1"}
    assert set(bench.dead()) == {"t.usage-0-5", "t.usage-0-7"}


async def test_a_refused_row_and_an_unreadable_event_are_dead_letters_and_the_batch_goes_on() -> None:
    bench = Bench(1)
    await bench.write(event(0), b'{"usage_id": 1}', None, event(3, input_tokens=-5), event(4))
    async with bench.running():
        await until(lambda: bench.committed() == {0: 5})
    assert set(bench.ledger.rows) == {"r0:1", "r4:1"}
    dead = bench.dead()
    assert dead["t.usage-0-1"].startswith("not a usage event: usage_id: Input should be a valid string")
    assert dead["t.usage-0-2"] == "not readable: no value"
    assert dead["t.usage-0-3"] == "input_tokens -5 is outside 0–4294967295"
    refused = bench.metrics.registry.get_sample_value("broker_sink_refused_total")
    buried = bench.metrics.registry.get_sample_value("broker_dead_letters_total", {"reason": "unreadable_usage_event"})
    assert (refused, buried) == (1, 2)


async def test_the_identical_batch_is_tried_until_the_table_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.sinks.clickhouse.FIRST_RETRY_SECONDS", 0.001)
    bench = Bench(1)
    await bench.write(*(event(number) for number in range(4)))
    tried: list[Sequence[LedgerRow]] = []
    insert = bench.ledger.insert

    async def failing(rows: Sequence[LedgerRow]) -> Sequence[tuple[LedgerRow, str]]:
        tried.append(rows)
        if len(tried) < 4:
            raise Unavailable("away")
        return await insert(rows)

    monkeypatch.setattr(bench.ledger, "insert", failing)
    async with bench.running() as sink:
        await until(lambda: bench.committed() == {0: 4})
        await until(lambda: sink.ready()[0])
    assert len({id(rows) for rows in tried[:4]}) == 1
    assert bench.metrics.registry.get_sample_value("broker_sink_failures_total") == 3


async def test_a_table_that_is_away_is_told_by_ready_and_nothing_is_committed() -> None:
    bench = Bench(1)
    await bench.write(event(0))
    sink = bench.sink()
    await sink.start()
    bench.ledger.available = False
    task = asyncio.create_task(sink.run())
    await until(lambda: not sink.ready()[0])
    assert "told to be away" in sink.ready()[1]["problems"]["sink"]
    assert bench.committed() == {}
    bench.ledger.available = True
    await until(lambda: bench.committed() == {0: 1})
    sink.stop()
    await task
    await sink.close()


async def test_it_stops_in_time_when_the_table_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.sinks.clickhouse.FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr("workers.sinks.clickhouse.DRAIN_SECONDS", 0.05)
    bench = Bench(1)
    async with bench.running() as sink:
        await until(lambda: sink.ready() == (True, {"partitions": 1, "waiting_rows": 0, "problems": {}}))
        bench.ledger.available = False
        await bench.write(event(0))
        await until(lambda: not sink.ready()[0])
    bench.ledger.available = True
    assert bench.ledger.rows == {}
    assert bench.committed() == {}


async def test_a_dead_letter_the_log_refuses_as_too_large_goes_without_its_value() -> None:
    bench = Bench(1)
    await bench.write(b"x" * 5000, event(1))
    bench.log.set(NAMES.dead, {"max.message.bytes": "3000"})
    async with bench.running():
        await until(lambda: bench.committed() == {0: 2})
    assert set(bench.dead()) == {"t.usage-0-0"}
    assert set(bench.ledger.rows) == {"r1:1"}


async def test_two_sinks_share_the_partitions_and_a_rebalance_counts_nothing_twice() -> None:
    bench = Bench(4)
    done: Callable[[int], Awaitable[None]] = lambda count: until(lambda: len(bench.ledger.rows) == count)  # noqa: E731
    async with bench.running():
        for partition in range(4):
            await bench.write(*(event(partition * 100 + n) for n in range(50)), partition=partition)
        async with bench.running():
            for partition in range(4):
                await bench.write(*(event(partition * 100 + 50 + n) for n in range(50)), partition=partition)
            await done(400)
            shares = [sink.ready()[1]["partitions"] for sink in bench.sinks]
            assert shares == [2, 2]
        await bench.write(event(1000))
        await done(401)


async def test_the_lag_is_told() -> None:
    bench = Bench(1)
    await bench.write(*(event(number) for number in range(10)))
    async with bench.running():
        await until(lambda: bench.committed() == {0: 10})
        await until(lambda: bench.metrics.registry.get_sample_value("broker_sink_lag") == 0)


async def test_a_part_that_is_away_at_the_start_is_unavailable_and_leaves_nothing_open() -> None:
    bench = Bench(1)
    bench.ledger.available = False
    with pytest.raises(Unavailable):
        await bench.sink().start()
