"""Traps that other queues in front of models fell into, each by its name: a worker on twins walks past them."""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

import broker.adapters
from broker.adapters.memory_limits import MemoryLimitStore
from broker.adapters.memory_log import MemoryProducer
from broker.clock import ManualClock
from broker.config import Alias, Deployment, Tenant, VirtualKey
from broker.envelope import NewRequest, encode_request
from broker.errors import UpstreamError
from broker.ports import WORKER_SECONDS, Granted, Need, Scope, SendFailure
from broker.records import OutRecord
from broker.topics import Lane
from schemas.usage import Outcome, UsageEvent
from tests.unit.workers.world import PATIENCE, ScriptedProvider, World
from workers.providers.base import Call, CallResult, OnChunk

BODY = orjson.dumps({"messages": [{"role": "user", "content": "Hello"}]})


def narrow(slots: int, count: int = 1) -> Alias:
    """An alias of deployments that run so many calls at once, and are never cooled down."""
    deployments = tuple(
        Deployment(name=f"fast/{number}", alias="fast", provider="openai", model="m", max_parallel_requests=slots)
        for number in range(count)
    )
    return Alias(name="fast", deployments=deployments, allowed_fails=1_000)


class FailingFirst(ScriptedProvider):
    """Fails the first call of every request, and notes how many ran at once in each deployment."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def call(self, call: Call, on_chunk: OnChunk | None = None) -> CallResult:
        name = call.deployment.name
        self.running[name] += 1
        self.most[name] = max(self.most[name], self.running[name])
        try:
            await asyncio.sleep(0)
            if call.request_id not in self.seen:
                self.seen.add(call.request_id)
                raise UpstreamError("down", status=503)
            return await super().call(call, on_chunk)
        finally:
            self.running[name] -= 1


async def test_no_reservation_leaks_on_retry_and_freezes_a_queue() -> None:
    """Every request is retried once: with one slot a deployment, a single leaked permit would end all service."""
    tenant = Tenant(name="anonymous", tpm_limit=10_000_000, max_parallel_requests=1_000)
    world = World(narrow(1, count=2), tenants={"anonymous": tenant})
    world.provider = provider = FailingFirst()
    ids = [f"r{number}" for number in range(40)]
    async with world.worker() as process:
        await world.publish("fast", *ids)
        replies = await world.replies(len(ids))
        await world.until(lambda: process.exchange.running() == {"fast/0": 0, "fast/1": 0})
        await process.exchange.exchange()
        shared = await world.limits.look(["fast/0", "fast/1"])
        scope = Scope("tenant:anonymous", parallel=1_000)
        async with asyncio.timeout(PATIENCE):
            while (await world.callers.used([scope]))[0]["running"]:  # noqa: ASYNC110 - the twins have no event for it
                await asyncio.sleep(0.005)
    assert Counter(reply.status for reply in replies.values()) == {200: 40}
    assert {reply.attempts for reply in replies.values()} == {2}
    assert provider.most == {"fast/0": 1, "fast/1": 1}
    assert [each.running for each in shared] == [0, 0]


async def held_slots(store: MemoryLimitStore, worker: str, running: int) -> Granted:
    return (await store.exchange(worker, [Need("fast/0", max_parallel=5, demand=5, running=running)]))[0]


async def test_a_ttl_is_not_set_only_on_first_acquire() -> None:
    """Slots of calls that run on for many times the expiry stay taken; those of a worker that died return."""
    clock = ManualClock()
    store = MemoryLimitStore(clock=clock)
    await store.start()
    assert (await held_slots(store, "long", 0)).slots == 5
    for _ in range(20):
        clock.advance(WORKER_SECONDS / 2)
        assert (await held_slots(store, "other", 0)).slots == 0
        await held_slots(store, "long", 5)
    clock.advance(WORKER_SECONDS)
    assert (await held_slots(store, "other", 0)).slots == 5


class Unacknowledged(MemoryProducer):
    """Writes, and never hears that it did: the place between a record in the log and its acknowledgement."""

    def __init__(self, world: World) -> None:
        super().__init__(world.log)
        self.written = asyncio.Event()

    async def send_all(self, records: Sequence[OutRecord]) -> Sequence[SendFailure | None]:
        await super().send_all(records)
        self.written.set()
        await asyncio.Event().wait()
        raise AssertionError("never acknowledged")


def sorting_key() -> set[str]:
    """The columns by which the ledger's table tells rows apart."""
    migration = Path(broker.adapters.__path__[0]) / "migrations" / "0001_attempts.sql"
    found = re.search(r"^ORDER BY \((.+)\)$", migration.read_text(), re.MULTILINE)
    assert found is not None
    return set(re.findall(r"\b\w+\b(?!\()", found[1]))


async def test_no_rows_are_keyed_by_mutable_columns(world: World) -> None:
    """One attempt told of by two workers is one row: the table sorts by what no worker may change, and none does."""
    producer = Unacknowledged(world)
    async with world.worker(producer) as first:
        await world.publish("fast", "a")
        await world.until(producer.written.is_set)
        await world.crash(first)
        async with world.worker():
            records = await world.records(world.names.usage, 2)
    events = [UsageEvent.model_validate_json(record.value or b"") for record in records]
    assert sorting_key() == {"tenant", "alias", "created_at", "usage_id"}
    assert events[0] == events[1]
    assert (events[0].outcome, events[0].billable) == (Outcome.ANSWERED, True)
    assert world.calls() == {"a": 1}


async def test_no_custom_id_is_taken_for_an_idempotency_key(world: World) -> None:
    """Lines of two files may bear one `custom_id`; each is a request of its own, and is told its own back."""
    metadata = orjson.dumps({"custom_id": "line-1"})
    async with world.worker():
        await world.write(
            *(
                encode_request(
                    NewRequest(
                        alias="fast", body=BODY, request_id=each, metadata=metadata, lane=Lane.BATCH,
                        reply_to=world.names.replies, reply_partition=0,
                    ),
                    world.names,
                )
                for each in ("of-one-file", "of-another")
            )
        )  # fmt: skip
        replies = await world.replies(2)
    assert world.calls() == {"of-one-file": 1, "of-another": 1}
    assert [reply.metadata for reply in replies.values()] == [metadata, metadata]


def asked(world: World, request_id: str, key: str, lane: Lane) -> OutRecord:
    request = NewRequest(
        alias="fast", body=BODY, request_id=request_id, key=key, lane=lane,
        reply_to=world.names.replies, reply_partition=0,
    )  # fmt: skip
    return encode_request(request, world.names)


class OneByOne(ScriptedProvider):
    """Lets one call end for each `step`."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = asyncio.Semaphore(0)

    async def call(self, call: Call, on_chunk: OnChunk | None = None) -> CallResult:
        result = await super().call(call, on_chunk)
        await self.steps.acquire()
        return result


@pytest.mark.parametrize("lane", list(Lane))
async def test_no_batch_of_one_tenant_holds_up_another(lane: Lane) -> None:
    """300 requests of one tenant wait for one slot: one of another tenant starts after one more of them at most."""
    keys = {
        digest: VirtualKey(hash=digest, key_id=name, tenant=name)
        for name in ("large", "small")
        for digest in [hashlib.sha256(name.encode()).hexdigest()]
    }
    world = World(narrow(1), keys=keys)
    world.provider = provider = OneByOne()
    async with world.worker(in_flight=1_000) as process:
        await world.write(*(asked(world, f"large-{number}", "large", Lane.BATCH) for number in range(300)))
        provider.steps.release()
        await world.until(lambda: len(provider.calls) == 2 and sum(process.dispatcher.waiting().values()) == 298)
        await world.write(asked(world, "small-0", "small", lane))
        await world.until(lambda: sum(process.dispatcher.waiting().values()) == 299)
        for _ in range(2):
            provider.steps.release()
        await world.until(lambda: len(provider.calls) == 4)
        started = [call.request_id for call in provider.calls]
        for _ in range(300):
            provider.steps.release()
        replies = await world.replies(301)
    assert "small-0" in started[2:4]
    assert {reply.status for reply in replies.values()} == {200}
