"""What a worker does when the log, the journal or the code around a call fails, and at rebalances."""

import asyncio

import orjson

from broker.envelope import headers
from broker.errors import UpstreamError
from broker.ports import SendFailure
from broker.records import OutRecord, Partition
from tests.unit.workers.world import World, make_alias


async def test_requests_are_answered_and_committed(world: World) -> None:
    async with world.worker() as process:
        await world.publish("fast", "a", "b", "c")
        replies = await world.replies(3)
        tracker = process.committer.trackers[Partition("llm.requests.fast", 0)]
        await world.until(lambda: tracker.pending() is None and tracker.in_flight == 0)
        committed = await process.parts.consumer.committed([Partition("llm.requests.fast", 0)])
    assert {reply.status for reply in replies.values()} == {200}
    assert committed[Partition("llm.requests.fast", 0)].offset == 3
    assert world.provider.closed


async def test_while_the_journal_is_away_nothing_is_replied_or_committed_and_then_everything_is(world: World) -> None:
    world.provider.hold = asyncio.Event()
    async with world.worker() as process:
        await world.publish("fast", "a")
        await world.until(lambda: len(world.provider.calls) == 1)
        world.journal.down = True
        world.provider.hold.set()
        await world.until(lambda: "journal" in process.outbox.failing)
        ready, detail = process.ready()
        waiting = process.committer.trackers[Partition("llm.requests.fast", 0)].in_flight
        world.journal.down = False
        replies = await world.replies(1)
        await world.until(lambda: process.ready()[0])
    assert not ready
    assert "journal" in detail["problems"]
    assert waiting == 1
    assert replies["a"].status == 200
    assert len(world.provider.calls) == 1


async def test_while_the_journal_is_away_no_new_record_is_taken(world: World) -> None:
    world.provider.hold = asyncio.Event()
    async with world.worker() as process:
        await world.publish("fast", "a")
        await world.until(lambda: len(world.provider.calls) == 1)
        world.journal.down = True
        world.provider.hold.set()
        await world.until(lambda: "journal" in process.outbox.failing)
        failed = process.loop.turned
        await world.until(lambda: process.loop.turned > failed)  # the poll under way may still bring records
        await world.publish("fast", "b")
        published = process.loop.turned
        await world.until(lambda: process.loop.turned > published + 0.1)
        calls = len(world.provider.calls)
        world.journal.down = False
        replies = await world.replies(2)
    assert calls == 1
    assert set(replies) == {"a", "b"}


async def test_a_reply_the_log_does_not_take_now_is_sent_until_it_does(world: World) -> None:
    refusals = [SendFailure("not enough replicas", permanent=False)] * 3

    def fail(record: OutRecord) -> SendFailure | None:
        return refusals.pop() if refusals and record.topic == world.names.replies else None

    async with world.worker():
        world.log.fail_sends = fail
        await world.publish("fast", "a")
        replies = await world.replies(1)
    assert replies["a"].status == 200
    assert len(world.provider.calls) == 1


async def test_a_reply_the_log_refuses_for_good_becomes_a_small_one_and_a_dead_letter(world: World) -> None:
    def fail(record: OutRecord) -> SendFailure | None:
        refused = record.topic == world.names.replies and dict(record.headers)[headers.STATUS] == b"200"
        return SendFailure("message too large", permanent=True) if refused else None

    async with world.worker():
        world.log.fail_sends = fail
        await world.publish("fast", "a")
        replies = await world.replies(1)
        (letter,) = await world.records(world.names.dead, 1)
        stored = await world.journal.outcome("a")
    assert (replies["a"].status, replies["a"].body()["error"]["code"]) == (502, "reply_undeliverable")
    assert dict(letter.headers)[headers.DEAD_CODE] == b"reply_undeliverable"
    assert stored is not None
    assert stored.status == 200


async def test_a_defect_around_a_call_ends_the_request_and_not_the_worker(world: World) -> None:
    async with world.worker():
        world.provider.errors = [ZeroDivisionError("a defect")]
        await world.publish("fast", "a")
        await world.publish("fast", "b")
        replies = await world.replies(2)
        letters = await world.records(world.names.dead, 1)
    assert (replies["a"].status, replies["a"].body()["error"]["code"]) == (500, "internal_error")
    assert replies["b"].status == 200
    assert letters[0].value == orjson.dumps({"model": "fast", "messages": [{"role": "user", "content": "Hello"}]})


async def test_a_failed_commit_is_made_again(world: World) -> None:
    async with world.worker() as process:
        world.log.fail_commits = True
        await world.publish("fast", "a")
        await world.replies(1)
        failures = process.metrics.commit_failures_total
        await world.until(lambda: next(iter(failures.collect())).samples[0].value >= 1)
        world.log.fail_commits = False
        tracker = process.committer.trackers[Partition("llm.requests.fast", 0)]
        await world.until(lambda: tracker.pending() is None)
        committed = await process.parts.consumer.committed([Partition("llm.requests.fast", 0)])
    assert committed[Partition("llm.requests.fast", 0)].offset == 1


async def test_a_kept_partition_is_not_run_twice_after_a_rebalance(world: World) -> None:
    world.provider.hold = asyncio.Event()
    async with world.worker() as first:
        await world.publish("fast", "a", "b")
        await world.until(lambda: len(world.provider.calls) == 2)
        rebalances = first.metrics.rebalances_total
        before = next(iter(rebalances.collect())).samples[0].value
        async with world.worker():
            await world.until(lambda: next(iter(rebalances.collect())).samples[0].value > before)
        await world.until(lambda: len(first.parts.consumer.assignment()) > 0)
        world.provider.hold.set()
        replies = await world.replies(2)
    assert set(replies) == {"a", "b"}
    assert {call.request_id for call in world.provider.calls} == {"a", "b"}


async def test_an_abort_leaves_the_offset_open_for_the_next_worker(world: World) -> None:
    world.provider.hold = asyncio.Event()
    async with world.worker(drain_seconds=0.0):
        await world.publish("fast", "a")
        await world.until(lambda: len(world.provider.calls) == 1)
    world.provider.hold = None
    async with world.worker():
        replies = await world.replies(1)
    assert replies["a"].status == 200
    assert len(world.provider.calls) == 2


async def test_a_long_retry_after_parks_the_request_with_its_tries_and_its_target() -> None:
    world = World(make_alias("busy", num_retries=0))
    async with world.worker():
        world.provider.errors = [UpstreamError("slow down", status=429, retry_after=300)]
        await world.publish("busy", "a")
        (parked,) = await world.records(world.names.delay("2m"), 1)
        (event,) = await world.records(world.names.usage, 1)
    found = dict(parked.headers)
    assert found[headers.TARGET] == b"llm.requests.busy"
    assert found[headers.ATTEMPT] == b"1"
    assert int(found[headers.NOT_BEFORE]) > world.clock.now_ms()
    assert orjson.loads(event.value or b"")["billable"] is False


async def test_a_request_may_name_its_own_fallbacks_or_none() -> None:
    world = World(make_alias("first", num_retries=0, fallbacks=("second",)), make_alias("second"), make_alias("third"))
    async with world.worker():
        world.provider.errors = [UpstreamError("down", status=500)]
        await world.publish("first", "own", fallbacks=["third"])
        own = (await world.replies(1))["own"]
        world.provider.errors = [UpstreamError("down", status=500)]
        await world.publish("first", "none", disable_fallbacks=True)
        none = (await world.replies(2))["none"]
    assert (own.status, own.served_by) == (200, "third/0")
    assert none.status == 500


async def test_headers_of_a_reroute_are_not_believed_without_the_signature(world: World) -> None:
    forged = [(headers.REQUEST_ID, b"a"), (headers.ATTEMPT, b"40"), (headers.VISITED, b"x"), (headers.SIGNATURE, b"no")]
    body = orjson.dumps({"messages": [{"role": "user", "content": "Hello"}]})
    reply_to = [(headers.REPLY_TO, world.names.replies.encode()), (headers.REPLY_PARTITION, b"0")]
    async with world.worker():
        await world.write(OutRecord("llm.requests.fast", body, None, [*forged, *reply_to], 0))
        replies = await world.replies(1)
    assert (replies["a"].attempts, replies["a"].fallbacks) == (1, 0)
