"""The watchdog over a log in memory: whom it leaves alone, whom it builds anew, and when it ends the process."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from prometheus_client import CollectorRegistry

from broker.adapters.memory_log import MemoryConsumer, MemoryLog, MemoryProducer, MemoryReader
from broker.clock import ManualClock
from broker.metrics import Metrics
from broker.records import OutRecord, Partition, Record
from workers.committer import Committer
from workers.watchdog import EXIT_STUCK, LoopGuard, Watchdog, WatchLimits, unread
from workers.watched import WatchedConsumer

TOPIC = "llm.requests.fast"
GROUP = "llm.pool.default"
PATIENCE = 5.0
LIMITS = WatchLimits()
STARVED = 2 * LIMITS.reading
"""Seconds for which a record has to be there unread: seen once, and still there a while later."""


class Bench:
    """A consumer under watch, its committer, and the polls that the request loop would make."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog({TOPIC: 2})
        self.made: list[MemoryConsumer] = []
        self.next: Callable[[], MemoryConsumer] = lambda: MemoryConsumer(self.log, GROUP)
        self.turned = 0.0
        self.consumer = WatchedConsumer(self.make, self.clock)
        self.lost: list[frozenset[Partition]] = []
        self.committer = Committer(
            consumer=self.consumer,
            clock=self.clock,
            metrics=Metrics(CollectorRegistry()),
            interval=60,
            on_lost=self.lost.append,
        )
        self.watchdog = Watchdog(
            consumer=self.consumer,
            turned=lambda: self.turned,
            adopted=lambda: bool(self.committer.assigned) or not self.consumer.assignment(),
            make_reader=lambda: MemoryReader(self.log),
            clock=self.clock,
        )
        self.read: list[int] = []

    def make(self) -> MemoryConsumer:
        self.made.append(self.next())
        return self.made[-1]

    async def start(self) -> None:
        await self.consumer.start([TOPIC], self.committer)

    async def assigned(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not self.committer.assigned:  # noqa: ASYNC110 - the twins have no event for it
                await asyncio.sleep(0)

    async def publish(self, count: int = 1) -> None:
        records = [OutRecord(TOPIC, b"{}", partition=number % 2) for number in range(count)]
        assert set(await MemoryProducer(self.log).send_all(records)) <= {None}

    async def poll(self, *partitions: Partition) -> list[Record]:
        asked = list(partitions or self.committer.assigned)
        records = list(await self.consumer.poll(asked, max_records=100, timeout=0))
        for record in records:
            tracker = self.committer.trackers[Partition(record.topic, record.partition)]
            if tracker.receive(record.offset):
                self.read.append(record.offset)
        return records

    async def pass_time(self, seconds: float, *, polls: bool = True, turns: bool = True) -> None:
        """Let so many seconds go by, with a poll and a look of the watchdog in each."""
        for _ in range(round(seconds)):
            self.clock.advance(1)
            if turns:
                self.turned = self.clock.monotonic()
            if polls:
                await self.poll()
            await self.watchdog.check()
            await asyncio.sleep(0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.consumer.stop()


async def test_a_consumer_that_works_but_idles_is_never_built_anew(bench: Bench) -> None:
    await bench.start()
    await bench.assigned()
    await bench.pass_time(10 * LIMITS.reading)
    await bench.publish(2)
    await bench.pass_time(10 * LIMITS.reading)
    assert (len(bench.made), bench.watchdog.problem, len(bench.read)) == (1, None, 2)


async def test_a_consumer_whose_window_is_full_is_not_built_anew(bench: Bench) -> None:
    await bench.start()
    await bench.assigned()
    await bench.publish(200)
    await bench.poll()
    await bench.publish(200)
    full = Partition(TOPIC, 0)
    for _ in range(round(3 * LIMITS.reading)):
        await bench.pass_time(1, polls=False)
        await bench.poll(Partition(TOPIC, 1))  # the loop does not ask for partition 0: no room
    assert (len(bench.made), bench.watchdog.problem) == (1, None)
    assert [record.partition for record in await bench.poll(full)].count(0) == 100


async def test_a_consumer_that_hands_nothing_out_though_records_wait_is_built_anew_and_reads_on(bench: Bench) -> None:
    await bench.start()
    await bench.assigned()
    await bench.publish(2)
    await bench.pass_time(3)
    assert bench.read == [0, 0]
    trackers = dict(bench.committer.trackers)
    trackers[Partition(TOPIC, 0)].finish(0, 0)
    bench.made[0].deaf = True
    await bench.publish(2)
    await bench.pass_time(LIMITS.reading)
    assert len(bench.made) == 1
    await bench.pass_time(LIMITS.reading + 5)
    assert len(bench.made) == 2
    await bench.assigned()
    await bench.pass_time(2)
    assert bench.watchdog.problem is None
    assert bench.read == [0, 0, 1, 1]
    # As over a rebalance: what runs keeps its tracker, and what is done was committed before the old one left.
    assert bench.committer.trackers == trackers
    assert trackers[Partition(TOPIC, 1)].in_flight == 2
    assert bench.log.group(GROUP).commits[Partition(TOPIC, 0)].offset == 1
    assert len(bench.log.group(GROUP).members) == 1


async def test_one_deaf_partition_is_enough(bench: Bench) -> None:
    await bench.start()
    await bench.assigned()
    silent = Partition(TOPIC, 0)
    await bench.publish(2)
    for _ in range(round(STARVED) + 5):
        bench.clock.advance(1)
        bench.turned = bench.clock.monotonic()
        await bench.publish(2)
        inner = bench.made[0]
        kept = inner.poll

        async def poll(asked: list[Partition], *, max_records: int, timeout: float) -> list[Record]:
            named = [partition for partition in asked if partition != silent]
            return list(await kept(named, max_records=max_records, timeout=timeout))  # noqa: B023 - used in this turn

        if len(bench.made) > 1:
            break
        inner.poll = poll  # type: ignore[method-assign,assignment]
        await bench.poll()
        inner.poll = kept  # type: ignore[method-assign]
        await bench.watchdog.check()
    assert len(bench.made) == 2
    assert f"{TOPIC}-0" in str(bench.watchdog.problem)


async def test_a_member_that_never_gets_an_assignment_is_built_anew(bench: Bench) -> None:
    group = bench.log.group(GROUP)
    group.stalled = True
    await bench.start()
    await bench.pass_time(LIMITS.joining - 1)
    assert len(bench.made) == 1
    group.stalled = False
    await bench.pass_time(3)
    await bench.assigned()
    assert len(bench.made) == 2
    await bench.pass_time(3)
    assert bench.watchdog.problem is None


async def test_a_rebalance_that_never_ends_is_built_anew(bench: Bench) -> None:
    await bench.start()
    await bench.assigned()
    group = bench.log.group(GROUP)
    group.stalled = True
    group.request_rebalance()
    await bench.pass_time(LIMITS.joining + 6)
    assert len(bench.made) == 2


async def test_a_member_with_nothing_to_have_is_left_alone(bench: Bench) -> None:
    others = [MemoryConsumer(bench.log, GROUP) for _ in range(2)]
    for other in others:
        await other.start([TOPIC])
    async with asyncio.timeout(PATIENCE):
        while not all(other.assignment() for other in others):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    await bench.start()
    await bench.pass_time(3 * LIMITS.joining)
    assert (len(bench.made), bench.watchdog.problem, bench.committer.assigned) == (1, None, frozenset())
    for other in others:
        await other.stop()


async def test_nobody_is_built_anew_while_the_log_is_away(bench: Bench) -> None:
    await bench.start()
    await bench.assigned()
    await bench.publish(2)
    bench.log.down = True
    await bench.pass_time(5 * LIMITS.reading)
    assert len(bench.made) == 1
    assert "the log cannot be reached" in str(bench.watchdog.problem)
    bench.log.down = False
    await bench.pass_time(2 * LIMITS.reading)
    assert (len(bench.made), bench.watchdog.problem, bench.read) == (1, None, [0, 0])


async def test_a_poll_that_never_returns_is_given_up_and_the_loop_polls_the_new_consumer(bench: Bench) -> None:
    await bench.start()
    await bench.assigned()
    bench.made[0].hung = True
    await bench.publish(2)
    polling = asyncio.create_task(bench.poll())
    await bench.pass_time(LIMITS.loop + 2, polls=False, turns=False)
    assert len(bench.made) == 2
    async with asyncio.timeout(PATIENCE):
        assert await polling == []
    assert polling.cancelling() == 0
    await bench.assigned()
    await bench.pass_time(3)
    assert bench.read == [0, 0]


async def test_a_cancelled_loop_ends_even_while_its_consumer_is_given_up(bench: Bench) -> None:
    await bench.start()
    await bench.assigned()
    bench.made[0].hung = True
    polling = asyncio.create_task(bench.poll())
    await asyncio.sleep(0)
    polling.cancel()
    await bench.consumer.give_up()
    with pytest.raises(asyncio.CancelledError):
        await polling


async def test_a_rebuild_that_does_not_help_ends_the_process(bench: Bench) -> None:
    bench.next = lambda: MemoryConsumer(bench.log, GROUP, deaf=True)
    bench.made[0].deaf = True
    await bench.start()
    await bench.assigned()
    await bench.publish(2)
    ended = asyncio.create_task(bench.watchdog.wait())
    await bench.pass_time(STARVED + 5)
    assert (len(bench.made), ended.done()) == (2, False)
    await bench.assigned()
    await bench.pass_time(STARVED + 5)
    async with asyncio.timeout(PATIENCE):
        why = await ended
    assert len(bench.made) == 2
    assert "gave nothing" in why
    assert "after its consumer was built anew" in why
    assert bench.watchdog.problem == why


async def test_a_rebuild_long_ago_is_forgotten(bench: Bench) -> None:
    await bench.start()
    await bench.assigned()
    for count in (1, 2):
        bench.made[-1].deaf = True
        await bench.publish(2)
        await bench.pass_time(STARVED + 5)
        assert len(bench.made) == count + 1
        await bench.assigned()
        await bench.pass_time(LIMITS.calm + 5)
        assert bench.watchdog.problem is None


async def test_a_new_consumer_that_cannot_join_though_the_log_answers_ends_the_process(bench: Bench) -> None:
    await bench.start()
    await bench.assigned()
    bench.made[0].deaf = True
    await bench.publish(2)
    away = MemoryLog({TOPIC: 2})
    away.down = True
    bench.next = lambda: MemoryConsumer(away, GROUP)
    ended = asyncio.create_task(bench.watchdog.wait())
    await bench.pass_time(STARVED + LIMITS.rebuild - 5)
    assert not ended.done()
    assert bench.consumer.assignment() == frozenset()
    await bench.pass_time(15)
    assert "no new consumer can join" in await asyncio.wait_for(ended, PATIENCE)


async def test_a_process_that_was_stopped_for_minutes_is_not_blamed_for_it(bench: Bench) -> None:
    await bench.start()
    await bench.assigned()
    bench.clock.advance(600)
    await bench.watchdog.check()
    await bench.pass_time(5)
    assert (len(bench.made), bench.watchdog.problem) == (1, None)


async def test_unread_names_only_partitions_that_hold_a_record_at_the_position(bench: Bench) -> None:
    await bench.publish(2)
    positions = {Partition(TOPIC, 0): 1, Partition(TOPIC, 1): 0}
    assert await unread(lambda: MemoryReader(bench.log), positions) == {Partition(TOPIC, 1)}


class Guarded:
    """A guard whose process ends on paper."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.codes: list[int] = []
        self.dumps = 0
        self.left = threading.Event()
        self.guard = LoopGuard(self.clock, warn_after=10, exit_after=60, leave=self.leave, dump=self.dump)

    def leave(self, code: int) -> None:
        self.codes.append(code)
        self.left.set()

    def dump(self) -> None:
        self.dumps += 1

    def pass_time(self, seconds: int, step: Callable[[], None] | None = None) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            if step is not None:
                step()
            self.guard.look()


def test_an_event_loop_that_stands_still_shows_its_stack_once_and_then_ends_the_process() -> None:
    guarded = Guarded()
    guarded.pass_time(5, guarded.guard.beat)
    guarded.pass_time(10)
    assert guarded.dumps == 0
    guarded.pass_time(40)
    assert (guarded.dumps, guarded.codes) == (1, [])
    guarded.pass_time(11)
    assert guarded.codes == [EXIT_STUCK]


def test_an_event_loop_that_turns_again_is_forgiven() -> None:
    guarded = Guarded()
    guarded.pass_time(50)
    guarded.pass_time(1, guarded.guard.beat)
    guarded.pass_time(50)
    assert (guarded.dumps, guarded.codes) == (2, [])


def test_a_process_that_was_stopped_as_a_whole_does_not_end_when_it_goes_on() -> None:
    guarded = Guarded()
    guarded.pass_time(3, guarded.guard.beat)
    guarded.clock.advance(3600)
    guarded.guard.look()
    assert (guarded.dumps, guarded.codes) == (0, [])


def test_a_process_that_was_to_end_by_itself_ends_hard_when_it_does_not() -> None:
    guarded = Guarded()
    guarded.guard.allow(30)
    guarded.pass_time(29, guarded.guard.beat)
    assert guarded.codes == []
    guarded.pass_time(1, guarded.guard.beat)
    assert guarded.codes == [EXIT_STUCK]


async def test_the_thread_ends_a_process_whose_event_loop_is_blocked() -> None:
    guarded = Guarded()
    guarded.guard.allow(0)
    guarded.guard.start()
    # The event loop stands still in this wait: only the thread can set the event.
    assert guarded.left.wait(PATIENCE)
    guarded.guard.stop()
    assert guarded.codes[0] == EXIT_STUCK
