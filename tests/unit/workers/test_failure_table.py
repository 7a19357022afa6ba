"""The failure table of the delivery promise, row by row: each crash at its place, then the money and the rows."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import orjson

from broker.adapters.memory_log import MemoryProducer
from broker.config import OnUnknown
from broker.envelope import headers as h
from broker.envelope.dead import read_dead
from broker.errors import UpstreamError
from broker.ports import Claim, Ending, SendFailure, Standing
from broker.records import OutRecord, Partition
from schemas.usage import Outcome
from tests.unit.workers.world import BODY, World, make_alias

FAST = Partition("llm.requests.fast", 0)
CHAT = orjson.dumps({"model": "fast", "messages": [{"role": "user", "content": "Hello"}]})


class GatedProducer(MemoryProducer):
    """Writes nothing while `gate` is closed: the place between COMPLETE and publish."""

    def __init__(self, world: World) -> None:
        super().__init__(world.log)
        self.gate = asyncio.Event()
        self.reached = asyncio.Event()

    async def send_all(self, records: Sequence[OutRecord]) -> Sequence[SendFailure | None]:
        self.reached.set()
        await self.gate.wait()
        return await super().send_all(records)


@contextmanager
def held(world: World) -> Iterator[asyncio.Event]:
    """Calls wait for the event while the context lasts."""
    world.provider.hold = asyncio.Event()
    try:
        yield world.provider.hold
    finally:
        world.provider.hold.set()


async def until_calls(world: World, count: int) -> None:
    await world.until(lambda: len(world.provider.calls) == count)


async def bodies(world: World, count: int = 1) -> set[bytes | None]:
    return {record.value for record in await world.records(world.names.replies, count)}


async def test_crash_before_the_call_another_worker_runs_it_and_it_is_paid_once(world: World) -> None:
    with held(world) as go:
        async with world.worker(in_flight=1) as first:
            await world.publish("fast", "running", "waiting")
            await world.until(lambda: len(world.provider.calls) == 1 and first.leases.held == 2)
            await world.crash(first)
            go.set()
            async with world.worker():
                replies = await world.replies(2)
                found = await world.rows(3)
    assert {each.status for each in replies.values()} == {200}
    assert world.calls()["waiting"] == 1
    assert [(row.request_id, row.outcome, row.billable) for row in found if row.request_id == "waiting"] == [
        ("waiting", Outcome.ANSWERED, True)
    ]


async def test_crash_in_the_call_is_repeated_and_the_first_one_shows_as_waste(world: World) -> None:
    with held(world) as go:
        async with world.worker() as first:
            await world.publish("fast", "a")
            await world.until(lambda: len(world.provider.calls) == 1)
            await world.crash(first)
            go.set()
            async with world.worker():
                replies = await world.replies(1)
                found = await world.rows(2)
    assert (replies["a"].status, world.calls()) == (200, {"a": 2})
    assert [(row.outcome, row.billable, row.cost) for row in found] == [
        (Outcome.UNKNOWN, False, None),
        (Outcome.ANSWERED, True, found[1].cost),
    ]


async def test_crash_in_the_call_of_an_alias_that_asks_to_fail_is_not_repeated() -> None:
    world = World(make_alias("fast", on_unknown=OnUnknown.FAIL))
    with held(world):
        async with world.worker() as first:
            await world.publish("fast", "a")
            await world.until(lambda: len(world.provider.calls) == 1)
            await world.crash(first)
            async with world.worker():
                replies = await world.replies(1)
                found = await world.rows(2)
    assert (replies["a"].status, replies["a"].body()["error"]["code"]) == (502, "outcome_unknown")
    assert world.calls() == {"a": 1}
    assert [(row.outcome, row.billable) for row in found] == [(Outcome.UNKNOWN, False), (Outcome.REFUSED, True)]


async def test_crash_after_complete_before_publish_the_next_owner_publishes_the_stored_outcome(world: World) -> None:
    producer = GatedProducer(world)
    async with world.worker(producer) as first:
        await world.publish("fast", "a")
        await world.until(producer.reached.is_set)
        await world.crash(first)
        async with world.worker():
            replies = await world.replies(1)
            found = await world.rows(1)
    assert (replies["a"].status, world.calls()) == (200, {"a": 1})
    assert [(row.outcome, row.billable) for row in found] == [(Outcome.ANSWERED, True)]


async def test_crash_beside_a_log_that_is_away_leaves_outcomes_behind_and_no_calls_to_be_made_again(
    world: World,
) -> None:
    producer = GatedProducer(world)
    stored: set[str] = set()
    complete = world.journal.complete

    async def completing(endings: Sequence[Ending]) -> Sequence[bool]:
        verdicts = await complete(endings)
        stored.update(each.place for each in endings)
        return verdicts

    world.journal.complete = completing  # type: ignore[method-assign] # watches it
    names = [f"r{number}" for number in range(6)]
    async with world.worker(producer) as first:
        for count, name in enumerate(names, 1):  # one after the other: more batches than are under way at once
            await world.publish("fast", name)
            await world.until(lambda count=count: len(stored) == count)  # type: ignore[misc]
        await world.crash(first)
        async with world.worker():
            replies = await world.replies(len(names))
            found = await world.rows(len(names))
    assert {each.status for each in replies.values()} == {200}
    assert world.calls() == dict.fromkeys(names, 1)
    assert {row.outcome for row in found} == {Outcome.ANSWERED}


async def test_crash_after_publish_before_the_offset_is_published_again_with_the_same_id(world: World) -> None:
    async with world.worker(commit_interval=3600.0) as first:
        await world.publish("fast", "a")
        await world.replies(1)
        tracker = first.committer.trackers[FAST]
        await world.until(lambda: tracker.in_flight == 0)
        await world.crash(first)
        async with world.worker() as second:
            await world.until(lambda: FAST in second.committer.trackers)
            await world.until(lambda: second.committer.trackers[FAST].pending() is None and second.leases.held == 0)
            await world.publish("fast", "b")
            await world.until(lambda: world.calls()["b"] == 1)
            found = await world.rows(2)
            told = await bodies(world)
    assert world.calls() == {"a": 1, "b": 1}
    assert told == {BODY}
    assert [row.usage_id for row in found] == ["a:1", "b:1"]


async def test_rebalance_with_the_call_in_flight_lets_the_old_owner_finish_and_the_new_one_stand_by(
    world: World,
) -> None:
    with held(world) as go:
        async with world.worker() as first:
            await world.publish("fast", "a")
            await world.until(lambda: len(world.provider.calls) == 1)
            async with world.worker() as second:
                first.parts.consumer.subscribe([])  # its partitions go to the second, its call goes on
                await world.until(lambda: second.admission.standing == 1)
                go.set()
                replies = await world.replies(1)
                await world.until(lambda: second.admission.standing == 0)
                await world.until(lambda: second.committer.trackers[FAST].in_flight == 0)
                records = await world.records(world.names.replies, 1)
    assert (replies["a"].status, world.calls(), len(records)) == (200, {"a": 1}, 1)


async def test_an_owner_that_stalls_past_its_lease_comes_second_and_its_row_is_an_orphan(world: World) -> None:
    with held(world) as go:
        async with world.worker() as first:
            await world.publish("fast", "a")
            await world.until(lambda: len(world.provider.calls) == 1)
            stalled = first.leases._renew_task  # noqa: SLF001 - a stalled process renews nothing
            assert stalled is not None
            stalled.cancel()
            async with world.worker() as second:
                first.parts.consumer.subscribe([])
                await world.until(lambda: len(world.provider.calls) == 2)
                assert second.leases.held == 1
                go.set()
                replies = await world.replies(1)
                found = await world.rows(3)
                told = await bodies(world)
    assert (replies["a"].status, told) == (200, {BODY})
    assert sorted((row.outcome, row.billable) for row in found) == [
        (Outcome.ANSWERED, True),
        (Outcome.ORPHAN, False),
        (Outcome.UNKNOWN, False),
    ]


async def test_a_reroute_that_is_published_twice_runs_once() -> None:
    world = World(make_alias("fast", num_retries=0, fallbacks=("slow",)), make_alias("slow"))
    world.provider.errors = [UpstreamError("busy", status=503)]
    async with world.worker():
        await world.publish("fast", "a")
        await world.replies(1)
        rerouted = (await world.records("llm.requests.slow", 1))[0]
        again = OutRecord(rerouted.topic, rerouted.value, rerouted.key, rerouted.headers)
        await world.write(again)
        replies = await world.records(world.names.replies, 2)
        found = await world.rows(2)
    assert world.calls() == {"a": 2}  # the failed one, and the fallback's
    assert {record.value for record in replies} == {BODY}
    assert [(row.outcome, row.billable) for row in found] == [(Outcome.REROUTED, False), (Outcome.ANSWERED, True)]


async def test_what_is_left_of_a_rerouted_request_is_not_run_again_when_its_offset_was_lost() -> None:
    world = World(make_alias("fast", num_retries=0, fallbacks=("slow",)), make_alias("slow"))
    world.provider.errors = [UpstreamError("busy", status=503)]
    async with world.worker(commit_interval=3600.0) as first:
        await world.publish("fast", "a")
        await world.replies(1)
        await world.crash(first)
    async with world.worker() as second:
        await world.until(lambda: FAST in second.committer.trackers)
        await world.publish("fast", "b")
        await world.until(lambda: world.calls()["b"] == 1)
    assert world.calls() == {"a": 2, "b": 1}


async def test_without_the_journal_work_waits_and_ready_tells_and_nothing_is_lost(world: World) -> None:
    async with world.worker() as process:
        await world.publish("fast", "before")
        await world.replies(1)
        world.journal.down = True
        await world.publish("fast", "during")
        await world.until(lambda: process.admission.failing is not None)
        ready, told = process.ready()
        assert (ready, list(told["problems"])) == (False, ["journal"])
        assert world.calls() == {"before": 1}
        world.journal.down = False
        replies = await world.replies(2)
    assert {each.status for each in replies.values()} == {200}
    assert world.calls() == {"before": 1, "during": 1}


async def test_an_alias_that_fails_open_is_served_without_the_journal() -> None:
    world = World(make_alias("fast", fail_open=True), make_alias("closed"))
    async with world.worker() as process:
        await world.publish("closed", "first")
        await world.replies(1)
        world.journal.down = True
        await world.publish("fast", "a", "b")
        await world.publish("closed", "c")
        replies = await world.replies(3)
        assert process.ready()[0] is False
        world.journal.down = False
        await world.replies(4)
    assert {replies["a"].status, replies["b"].status} == {200}


async def test_a_request_whose_workers_all_die_is_dead_lettered_after_three_starts(world: World) -> None:
    with held(world):
        for start in range(1, 4):
            async with world.worker() as process:
                if start == 1:
                    await world.publish("fast", "a")
                await until_calls(world, start)
                await world.crash(process)
        async with world.worker():
            replies = await world.replies(1)
            letters = await world.records(world.names.dead, 1)
            found = await world.rows(4)
    assert (replies["a"].status, replies["a"].body()["error"]["code"]) == (500, "poisoned")
    assert dict(letters[0].headers)[h.DEAD_CODE] == b"poisoned"
    assert [row.outcome for row in found].count(Outcome.UNKNOWN) == 3


async def test_a_worker_that_stops_gives_its_leases_up_and_nobody_waits_for_them(world: World) -> None:
    with held(world) as go:
        async with world.worker(in_flight=1, drain_seconds=0.0) as first:
            await world.publish("fast", "running", "waiting")
            await world.until(lambda: len(world.provider.calls) == 1 and first.leases.held == 2)
        go.set()
        claims = [Claim(f"r:{name}", f"next-{name}", 0, "p", name, "anonymous") for name in ("running", "waiting")]
        found = await world.journal.acquire(claims)
    assert [claimed.standing for claimed in found] == [Standing.OWNED, Standing.OWNED]


async def test_a_dead_letter_that_is_replayed_runs_again_although_its_id_has_an_outcome(world: World) -> None:
    with held(world) as go:
        for start in range(1, 4):
            async with world.worker() as process:
                if start == 1:
                    await world.publish("fast", "a")
                await until_calls(world, start)
                await world.crash(process)
        async with world.worker():
            letter = read_dead((await world.records(world.names.dead, 1))[0])
            assert letter is not None
            go.set()
            await world.write(letter.replayed(FAST.topic))
            replies = await world.records(world.names.replies, 2)
    assert [dict(record.headers)[h.STATUS] for record in replies] == [b"500", b"200"]
