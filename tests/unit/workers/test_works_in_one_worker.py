"""Works while one worker holds them: two of one id, cancels at odd moments, defects, counters that must not leak."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from unittest.mock import AsyncMock

import orjson
import pytest

from broker.config import Pool
from broker.delivery.tracker import PartitionTracker
from broker.envelope import encode_cancel
from broker.envelope import headers as h
from broker.errors import Unavailable
from broker.ports import SendFailure
from broker.records import Commit, Headers, OutRecord, Partition
from broker.routing.router import Grant
from broker.topics import Lane
from tests.unit.workers.world import World, make_alias
from workers.pool import WorkerProcess
from workers.work import Work

FAST = Partition("llm.requests.fast", 0)
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Read:
    """A record as a log would return it."""

    timestamp: int
    headers: Headers
    value: bytes | None = orjson.dumps({"messages": [{"role": "user", "content": "Hello"}]})
    topic: str = FAST.topic
    partition: int = 0
    offset: int = 0
    key: bytes | None = None


@contextmanager
def held(world: World) -> Iterator[asyncio.Event]:
    """Calls wait for the event while the context lasts."""
    world.provider.hold = asyncio.Event()
    try:
        yield world.provider.hold
    finally:
        world.provider.hold.set()


def waiting(process: WorkerProcess, alias: str = "fast") -> int:
    return process.dispatcher.waiting().get((alias, Lane.INTERACTIVE), 0)


async def test_two_records_with_one_id_both_finish_their_offsets_and_are_called_once(world: World) -> None:
    with held(world) as go:
        async with world.worker() as process:
            await world.publish("fast", "same", "same")
            await world.until(lambda: len(world.provider.calls) == 1 and process.admission.standing == 1)
            go.set()
            records = await world.records(world.names.replies, 2)
            tracker = process.committer.trackers[FAST]
            await world.until(lambda: tracker.in_flight == 0)
            open_works = process.inference.oldest()
    assert len(world.provider.calls) == 1
    assert {record.key for record in records} == {b"same"}
    assert open_works == {}


async def test_a_cancel_reaches_every_record_with_the_id_running_or_standing_by() -> None:
    world = World(make_alias("fast"))
    with held(world):
        async with world.worker(in_flight=1) as process:
            await world.publish("fast", "same", "same")
            await world.until(lambda: len(world.provider.calls) == 1 and process.admission.standing == 1)
            await world.write(encode_cancel("same", world.names, world.clock.now_ms()))
            records = await world.records(world.names.replies, 2)
            await world.until(lambda: process.committer.trackers[FAST].in_flight == 0)
            counts = (process.dispatcher.running, waiting(process))
    assert [dict(record.headers)[h.STATUS] for record in records] == [b"499", b"499"]
    assert counts == (0, 0)


async def test_a_cancel_between_the_permit_and_the_first_step_of_a_call_gives_the_permit_back(world: World) -> None:
    async with world.worker() as process:
        start = process.inference.start

        def start_and_cancel(work: Work, grant: Grant) -> None:
            start(work, grant)
            process.inference.cancel(work.job.request_id)

        process.dispatcher._start = start_and_cancel  # noqa: SLF001 - the moment cannot be met from outside
        await world.publish("fast", "a")
        replies = await world.replies(1)
        running = process.dispatcher.running
    assert replies["a"].status == 499
    assert (running, world.provider.calls) == (0, [])


async def test_a_defect_while_an_answer_is_settled_ends_the_request_and_its_offset(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.worker() as process:
        with monkeypatch.context() as patch:
            patch.setattr(process.endings, "answered", lambda *_: 1 / 0)
            await world.publish("fast", "a")
            replies = await world.replies(1)
        await world.until(lambda: process.committer.trackers[FAST].in_flight == 0)
        await world.publish("fast", "b")
        after = await world.replies(2)
    assert replies["a"].body()["error"]["code"] == "internal_error"
    assert after["b"].status == 200


async def test_a_request_that_cannot_be_ended_does_not_end_the_worker(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.worker() as process:
        with monkeypatch.context() as patch:
            patch.setattr(process.endings, "refused", lambda *_: 1 / 0)
            await world.write(OutRecord(FAST.topic, b"not json", None, [(h.REQUEST_ID, b"a")], 0))
            await world.until(lambda: FAST in process.committer.trackers)
            await world.until(lambda: process.committer.trackers[FAST].in_flight == 1)
        await world.publish("fast", "b")
        replies = await world.replies(1)
    assert replies["b"].status == 200


async def test_what_expired_while_its_alias_sleeps_is_not_kept(world: World) -> None:
    with held(world):
        async with world.worker(in_flight=1) as process:
            await world.publish("fast", "first")
            await world.until(lambda: len(world.provider.calls) == 1)
            soon = b"%d" % (world.clock.now_ms() + 200)
            body = orjson.dumps({"messages": [{"role": "user", "content": "Hello"}]})
            await world.write(*[OutRecord(FAST.topic, body, None, [(h.DEADLINE, soon)], 0) for _ in range(20)])
            await world.until(lambda: process.committer.trackers[FAST].in_flight == 21)
            await world.until(lambda: process.committer.trackers[FAST].in_flight == 1)
            process.dispatcher.sweep()
            lane = process.dispatcher._queues["fast"].order.interactive  # noqa: SLF001 - what memory still holds
            kept = [len(lane._live), lane.count, *(len(share.heap) for share in lane._shares.values())]  # noqa: SLF001
            counts = waiting(process)
    assert (max(kept[:2]), counts) == (0, 0)
    assert kept[2] <= 16


async def test_what_waits_of_a_partition_that_was_rebuilt_is_let_go(world: World) -> None:
    with held(world):
        async with world.worker(in_flight=1) as process:
            await world.publish("fast", "running", "waiting")
            await world.until(lambda: len(world.provider.calls) == 1 and waiting(process) == 1)
            # Somebody else had the partition meanwhile and committed something.
            await process.parts.consumer.commit({FAST: Commit(0, "theirs")}, timeout=1.0)
            await process.committer.on_assigned(process.parts.consumer.assignment())
            counts = waiting(process)
    assert counts == 0


async def test_a_dead_letter_that_is_too_large_is_written_without_its_value(world: World) -> None:
    def fail(record: OutRecord) -> SendFailure | None:
        too_large = record.topic == world.names.dead and record.value is not None
        return SendFailure("message too large", permanent=True) if too_large else None

    world.log.fail_sends = fail
    async with world.worker():
        await world.write(OutRecord(FAST.topic, b"not json", None, [(h.REQUEST_ID, b"a")], 0))
        (letter,) = await world.records(world.names.dead, 1)
    assert letter.value is None
    assert dict(letter.headers)[h.DEAD_ORIGIN] == b"llm.requests.fast-0-0"


@pytest.mark.parametrize("timestamp", [-1, 0, 2**60])
async def test_a_time_that_no_clock_shows_does_not_expire_a_request(world: World, timestamp: int) -> None:
    async with world.worker() as process:
        before = world.clock.now_ms()
        tracker = PartitionTracker()
        tracker.receive(0)
        reply_to = [(h.REPLY_TO, world.names.replies.encode()), (h.REPLY_PARTITION, b"0")]
        read = Read(timestamp, [(h.REQUEST_ID, b"a"), *reply_to])
        await process.admission.take([process.inference.serve(read, "fast", Lane.INTERACTIVE, tracker)])
        replies = await world.replies(1)
        (record,) = await world.records(world.names.usage, 1)
    created = orjson.loads(record.value or b"")["created_at"]
    assert replies["a"].status == 200
    assert abs(datetime.fromisoformat(created).timestamp() * 1000 - before) < DAY_MS


def test_a_worker_that_has_not_started_is_not_ready(world: World) -> None:
    ready, detail = world.process(Pool(name="default")).ready()
    assert not ready
    assert detail["problems"] == {"group": "no partition is assigned"}


async def test_the_lag_of_a_topic_that_went_to_another_worker_does_not_stand_still(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lag(found: dict[Partition, int]) -> dict[Partition, int]:
        return found

    async with world.worker() as process:
        gauge = process.metrics.consumer_lag.labels("fast", Lane.INTERACTIVE)
        seen = []
        for found in ({FAST: 7}, {}):
            monkeypatch.setattr(process.parts.consumer, "lag", partial(lag, found))
            await process._measure()  # noqa: SLF001 - what it does every two seconds
            seen.append(gauge._value.get())  # noqa: SLF001 - the client library has no reader
    assert seen == [7, 0]


async def test_positions_that_cannot_be_read_in_a_rebalance_are_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process = world.process(Pool(name="default"))
    with monkeypatch.context() as patch:
        patch.setattr(process.parts.consumer, "committed", AsyncMock(side_effect=Unavailable("away")))
        await process.committer.on_assigned(frozenset({FAST}))
    refused = process.committer.assigned
    monkeypatch.setattr(process.parts.consumer, "committed", AsyncMock(return_value={}))
    await process.committer.adopt(frozenset({FAST}))
    assert refused == frozenset()
    assert process.committer.assigned == {FAST}
    assert "positions cannot be read after a rebalance" in caplog.text
