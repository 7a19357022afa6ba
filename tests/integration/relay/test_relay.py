"""The delay relay over the log in memory, with a clock that moves only when told to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from broker.adapters.memory_log import MemoryConsumer, MemoryLog, MemoryProducer
from broker.clock import ManualClock
from broker.envelope import encode_again, open_record
from broker.envelope import headers as h
from broker.errors import Unavailable
from broker.metrics import PREFIX, Metrics
from broker.ports import SendFailure
from broker.records import OutRecord, Partition
from broker.topics import Lane, TopicNames, topic_specs
from workers.relay import Relay

NAMES = TopicNames()
TARGET = NAMES.requests("local")
DELAY = NAMES.delay("30s")
PATIENCE = 10.0


class Bench:
    """A log, a clock, and relays on them."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(clock=self.clock)
        for spec in topic_specs(NAMES, ["local"]):
            self.log.create(spec.name, 2, {"max.message.bytes": "20000"})
        self.metrics = Metrics(CollectorRegistry())
        self.consumers: list[MemoryConsumer] = []

    def relay(self) -> Relay:
        self.consumers.append(MemoryConsumer(self.log, NAMES.relay_group))
        return Relay(
            consumer=self.consumers[-1],
            producer=MemoryProducer(self.log),
            names=NAMES,
            clock=self.clock,
            metrics=self.metrics,
        )

    def park(self, request_id: str, *, topic: str = DELAY, seconds: float = 30, partition: int = 0) -> None:
        """Park a request as a worker does that read it just now."""
        headers = [(h.REQUEST_ID, request_id.encode()), ("tags", b'{"a":"b"}')]
        record = self.log.append(OutRecord(TARGET, b'{"messages":[]}', b"key", headers), 0)
        job = open_record(
            record, alias="local", lane=Lane.INTERACTIVE, replies_topic="x", secret=b"s", max_body_bytes=99
        )
        due = self.clock.now_ms() + round(seconds * 1000)
        parked = encode_again(job, topic, secret=b"s", visited=("first",), not_before=due, target=TARGET)
        self.log.append(parked, partition)

    def write(self, *headers: tuple[str, bytes], value: bytes = b"{}", partition: int = 0) -> None:
        """Write a record to the delay topic as anyone could."""
        self.log.append(OutRecord(DELAY, value, None, headers), partition)

    def back(self) -> list[str]:
        """Ids of the requests that came back, in the order of each partition."""
        records = self.log.records(TARGET)
        return [dict(found.headers)[h.REQUEST_ID].decode() for found in records if h.SIGNATURE in dict(found.headers)]

    def committed(self, topic: str = DELAY, partition: int = 0) -> int:
        commit = self.log.group(NAMES.relay_group).commits.get(Partition(topic, partition))
        return 0 if commit is None else commit.offset

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(PREFIX + name, labels)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@asynccontextmanager
async def started(*relays: Relay) -> AsyncIterator[None]:
    for relay in relays:
        await relay.start()
    yield
    for relay in relays:
        await relay.close()


async def turn_until(condition: Callable[[], bool], *relays: Relay) -> None:
    """Turn the relays until `condition()`; the log may be away meanwhile."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            for relay in relays:
                with contextlib.suppress(Unavailable):
                    await relay.turn()


async def hold(relay: Relay, count: int) -> None:
    """Turn until the relay holds `count` records: it has read them and found them not due."""
    await turn_until(lambda: relay.ready()[1]["held"] == count, relay)


async def test_a_parked_request_comes_back_when_it_is_due_and_not_a_millisecond_before(bench: Bench) -> None:
    bench.park("r1")
    relay = bench.relay()
    async with started(relay):
        await hold(relay, 1)
        bench.clock.advance(29.999)
        await relay.turn()
        assert bench.back() == []
        bench.clock.advance(0.001)
        await turn_until(lambda: bench.back() == ["r1"], relay)
        await turn_until(lambda: bench.committed() == 1, relay)


async def test_it_comes_back_as_it_was_parked_without_the_target(bench: Bench) -> None:
    bench.park("r1")
    relay = bench.relay()
    async with started(relay):
        await hold(relay, 1)
        bench.clock.advance(30)
        await turn_until(lambda: bench.back() == ["r1"], relay)
    record = next(found for found in bench.log.records(TARGET) if h.SIGNATURE in dict(found.headers))
    job = open_record(record, alias="local", lane=Lane.INTERACTIVE, replies_topic="x", secret=b"s", max_body_bytes=99)
    assert (job.request_id, job.visited, job.tags) == ("r1", ("first",), {"a": "b"})
    assert (record.key, record.value) == (b"key", b'{"messages":[]}')
    assert h.TARGET not in dict(record.headers)


async def test_every_delay_is_served_at_once_and_a_long_one_holds_up_no_short_one(bench: Bench) -> None:
    bench.park("long", topic=NAMES.delay("10m"), seconds=600)
    bench.park("middle", topic=NAMES.delay("2m"), seconds=120)
    bench.park("short")
    relay = bench.relay()
    async with started(relay):
        await hold(relay, 3)
        back = []
        for seconds, name in ((30, "short"), (90, "middle"), (480, "long")):
            bench.clock.advance(seconds)
            back.append(name)
            await turn_until(lambda: len(bench.back()) == len(back), relay)
            assert sorted(bench.back()) == sorted(back)


async def test_what_is_due_together_goes_back_in_the_order_of_due_times(bench: Bench) -> None:
    for number in range(20):
        bench.park(f"r{number:02}", partition=number % 2)
        bench.clock.advance(0.01)
    relay = bench.relay()
    bench.clock.advance(40)
    async with started(relay):
        await turn_until(lambda: len(bench.back()) == 20, relay)
    assert bench.back() == sorted(bench.back())


async def test_nothing_is_committed_before_the_log_has_acknowledged_it(bench: Bench) -> None:
    bench.park("r1")
    bench.log.fail_sends = lambda record: SendFailure("not now", permanent=False) if record.topic == TARGET else None
    relay = bench.relay()
    bench.clock.advance(30)
    async with started(relay):
        await turn_until(lambda: not relay.ready()[0], relay)
        assert (bench.back(), bench.committed()) == ([], 0)
        assert "not now" in relay.ready()[1]["problems"]["log"]
        bench.log.fail_sends = None
        await turn_until(lambda: bench.committed() == 1, relay)
        await turn_until(lambda: relay.ready()[0], relay)
    assert bench.back() == ["r1"]


async def test_a_record_that_is_not_taken_is_sent_again_alone(bench: Bench) -> None:
    for number in range(3):
        bench.park(f"r{number}")
    seen: list[str] = []

    def fail_the_first_once(record: OutRecord) -> SendFailure | None:
        seen.append(dict(record.headers)[h.REQUEST_ID].decode())
        return SendFailure("not now", permanent=False) if seen == ["r0"] else None

    bench.log.fail_sends = fail_the_first_once
    relay = bench.relay()
    bench.clock.advance(30)
    async with started(relay):
        await turn_until(lambda: bench.committed() == 3, relay)
    assert seen == ["r0", "r1", "r2", "r0"]


async def test_a_request_the_log_takes_no_more_is_dead_lettered_and_holds_up_nothing(bench: Bench) -> None:
    bench.park("r1")
    bench.park("r2")

    def refuse(record: OutRecord) -> SendFailure | None:
        refused = record.topic == TARGET and dict(record.headers)[h.REQUEST_ID] == b"r1"
        return SendFailure("too large", permanent=True) if refused else None

    bench.log.fail_sends = refuse
    relay = bench.relay()
    bench.clock.advance(30)
    async with started(relay):
        await turn_until(lambda: bench.committed() == 2, relay)
    assert bench.back() == ["r2"]
    (letter,) = bench.log.records(NAMES.dead)
    assert dict(letter.headers)[h.DEAD_REASON] == b"the log refuses it: too large"
    assert bench.value("dead_letters_total", reason="not_republished") == 1


async def test_a_dead_letter_that_does_not_fit_leaves_its_value_out(bench: Bench) -> None:
    bench.write((h.TARGET, TARGET.encode()), (h.REQUEST_ID, b"big"), value=b"x" * 30_000)
    relay = bench.relay()
    bench.clock.advance(30)
    async with started(relay):
        await turn_until(lambda: bench.committed() == 1, relay)
    (letter,) = bench.log.records(NAMES.dead)
    assert letter.value is None


@pytest.mark.parametrize("target", [b"llm.usage", b"", b"\xff", b"llm.requests."])
async def test_a_record_that_no_worker_parked_is_dead_lettered(bench: Bench, target: bytes) -> None:
    bench.write((h.TARGET, target))
    bench.park("r1")
    relay = bench.relay()
    bench.clock.advance(30)
    async with started(relay):
        await turn_until(lambda: bench.committed() == 2, relay)
    (letter,) = bench.log.records(NAMES.dead)
    assert dict(letter.headers)[h.DEAD_CODE] == b"not_parked"
    assert bench.back() == ["r1"]


async def test_a_due_time_beyond_the_topic_s_delay_is_not_believed(bench: Bench) -> None:
    far = str(bench.clock.now_ms() + 10**9).encode()
    bench.write((h.TARGET, TARGET.encode()), (h.NOT_BEFORE, far))
    bench.write((h.TARGET, TARGET.encode()), (h.NOT_BEFORE, b"soon"))
    bench.park("r1")
    relay = bench.relay()
    async with started(relay):
        await hold(relay, 3)
        bench.clock.advance(30)
        await turn_until(lambda: bench.committed() == 3, relay)


async def test_a_stop_loses_nothing_and_the_next_relay_goes_on_where_it_ended(bench: Bench) -> None:
    bench.park("r1")
    bench.clock.advance(15)
    bench.park("r2")
    first = bench.relay()
    async with started(first):
        await hold(first, 2)
        bench.clock.advance(15)
        await turn_until(lambda: bench.committed() == 1, first)
    second = bench.relay()
    bench.clock.advance(15)
    async with started(second):
        await turn_until(lambda: bench.committed() == 2, second)
    assert bench.back() == ["r1", "r2"]


async def test_a_second_relay_takes_over_half_and_nothing_comes_back_twice(bench: Bench) -> None:
    for number in range(40):
        bench.park(f"r{number}", partition=number % 2)
    one, two = bench.relay(), bench.relay()
    async with started(one):
        await hold(one, 40)
        async with started(two):
            await turn_until(lambda: all(consumer.assignment() for consumer in bench.consumers), one, two)
            bench.clock.advance(30)
            await turn_until(lambda: len(bench.back()) >= 40, one, two)
    assert sorted(bench.back()) == sorted(f"r{number}" for number in range(40))


async def test_a_killed_relay_s_records_come_back_through_another(bench: Bench) -> None:
    for number in range(10):
        bench.park(f"r{number}", partition=number % 2)
    one, two = bench.relay(), bench.relay()
    await one.start()
    bench.consumers[0].kill()
    bench.clock.advance(30)
    async with started(two):
        await turn_until(lambda: len(bench.back()) == 10, two)
    assert sorted(bench.back()) == [f"r{number}" for number in range(10)]


async def test_a_commit_that_fails_is_made_up_for_and_repeats_nothing(bench: Bench) -> None:
    bench.park("r1")
    bench.log.fail_commits = True
    relay = bench.relay()
    bench.clock.advance(30)
    async with started(relay):
        await turn_until(lambda: bench.value("commit_failures_total") != 0, relay)
        bench.log.fail_commits = False
        await turn_until(lambda: bench.committed() == 1, relay)
    assert bench.back() == ["r1"]


async def test_a_large_backlog_is_read_in_portions(bench: Bench) -> None:
    for number in range(2_500):
        bench.write((h.TARGET, TARGET.encode()), (h.REQUEST_ID, b"%d" % number))
    relay = bench.relay()
    async with started(relay):
        await hold(relay, 1_000)
        bench.clock.advance(31)
        await turn_until(lambda: bench.committed() == 2_500, relay)
    assert len(bench.log.records(TARGET)) == 2_500


async def test_lateness_is_measured(bench: Bench) -> None:
    bench.park("r1")
    relay = bench.relay()
    bench.clock.advance(30.4)
    async with started(relay):
        await turn_until(lambda: bench.committed() == 1, relay)
    assert bench.value("relay_late_seconds_sum", delay="30s") == pytest.approx(0.4)
    assert bench.value("relay_republished_total", delay="30s") == 1
