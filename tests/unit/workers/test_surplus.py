"""A tenant that fills the buffer: what it has too much of is parked, so that others behind it in the log are read."""

import hashlib

import pytest

from broker.config import VirtualKey
from broker.envelope import headers as h
from broker.topics import Lane
from tests.unit.workers.test_queue_traps import OneByOne, asked, narrow
from tests.unit.workers.world import World

BUFFER = 100


def of_two_tenants() -> World:
    keys = {
        digest: VirtualKey(hash=digest, key_id=name, tenant=name)
        for name in ("large", "small")
        for digest in [hashlib.sha256(name.encode()).hexdigest()]
    }
    return World(narrow(1), keys=keys)


@pytest.fixture(autouse=True)
def _small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.dispatcher.READY_LIMIT", BUFFER)
    monkeypatch.setattr("workers.loop.POLL_RECORDS", BUFFER // 2)


async def test_a_request_behind_a_tenant_s_long_queue_is_read_and_started_before_that_queue() -> None:
    world = of_two_tenants()
    world.provider = provider = OneByOne()
    async with world.worker(in_flight=1_000) as process:
        await world.write(*(asked(world, f"large-{number}", "large", Lane.BATCH) for number in range(400)))
        await world.write(asked(world, "small-0", "small", Lane.BATCH))

        def small_is_here() -> bool:
            if "small-0" not in process.inference._open:  # noqa: SLF001 - nothing announces what was read
                provider.steps.release()
                return False
            return True

        await world.until(small_is_here)
        read_after = len(provider.calls)
        for _ in range(2):
            provider.steps.release()
        await world.until(lambda: "small-0" in world.calls())
        parked = world.log.records(world.names.delay("30s"))
        for _ in range(500):
            provider.steps.release()
        replies = await world.replies(401 - len(parked))
        await world.until(lambda: not process.inference.running)
    assert read_after < 300
    assert len(parked) >= 50
    assert {dict(record.headers)[h.REQUEST_ID][:5] for record in parked} == {b"large"}
    assert {reply.status for reply in replies.values()} == {200}
    # Answered here or parked, and none of them twice.
    ids = [dict(record.headers)[h.REQUEST_ID].decode() for record in parked] + list(replies)
    assert sorted(ids) == sorted([*(f"large-{number}" for number in range(400)), "small-0"])
    assert set(world.calls().values()) == {1}


async def test_a_lone_tenant_s_queue_stays_where_it_is_when_no_other_is_configured() -> None:
    world = World(narrow(1))
    world.provider = provider = OneByOne()
    async with world.worker(in_flight=1_000) as process:
        await world.publish("fast", *(f"r{number}" for number in range(300)))
        provider.steps.release()
        await world.until(lambda: len(provider.calls) == 2)
        await world.until(lambda: sum(process.dispatcher.waiting().values()) >= BUFFER)
        process.dispatcher.sweep()
        for _ in range(300):
            provider.steps.release()
        replies = await world.replies(300)
    assert len(replies) == 300
    assert world.log.records(world.names.delay("30s")) == []
