"""A tenant that fills the buffer: its surplus goes to the end of the line, so that others behind it are read."""

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
        for _ in range(500):
            provider.steps.release()
        replies = await world.replies(401)
        await world.until(lambda: not process.inference.running)
        rows = await world.rows(401)
    again = [dict(record.headers) for record in world.log.records(world.names.batch("fast"))[401:]]
    assert read_after < 300
    assert len(again) >= 50
    assert {headers[h.REQUEST_ID][:5] for headers in again} == {b"large"}
    assert {reply.status for reply in replies.values()} == {200}
    assert len(replies) == len(world.calls()) == len(rows) == 401
    assert set(world.calls().values()) == {1}
    assert all(row.billable for row in rows)


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
    assert len(world.log.records(world.names.requests("fast"))) == 300
