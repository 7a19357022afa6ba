"""Limits of keys and tenants as a worker sees them, on the twin of the shared store."""

import asyncio
import hashlib
from collections.abc import Sequence
from decimal import Decimal

import pytest

from broker.adapters.memory_callers import MemoryCallerStore
from broker.clock import ManualClock
from broker.config import Settings, Tenant, VirtualKey
from broker.errors import BudgetExceeded, RateLimitExceeded, Unavailable
from broker.keys import Caller
from broker.ports import CallerClaim, CallerRefusal, Scope
from tests.unit.workers.world import World, make_alias
from workers import callers as module
from workers.callers import CallerLimits

PICO = 10**12
PATIENCE = 10.0
NOTHING = {"requests": 0, "tokens": 0, "running": 0, "spent": 0}


def caller(name: str = "k1", tenant: str = "acme", **limits: object) -> Caller:
    digest = hashlib.sha256(name.encode()).hexdigest()
    key = VirtualKey.model_validate({"hash": digest, "key_id": name, "tenant": tenant, **limits})
    return Caller(tenant, name, "", key)


def callers(clock: ManualClock, *tenants: Tenant) -> tuple[CallerLimits, MemoryCallerStore]:
    store = MemoryCallerStore(clock=clock)
    return CallerLimits(store, Settings(tenants={tenant.name: tenant for tenant in tenants}), clock), store


async def test_nobody_with_limits_costs_no_round_trip() -> None:
    limits, store = callers(ManualClock())
    store.down = True
    assert await limits.take([(Caller("anonymous", "", "", None), 5, "1"), (caller(), 5, "2")]) == [None, None]


async def test_the_refused_one_of_a_batch_is_told_whose_limit_it_is_and_for_how_long() -> None:
    limits, _ = callers(ManualClock())
    one = caller(rpm_limit=1)
    found = await limits.take([(one, 5, "1"), (Caller("anonymous", "", "", None), 5, "2"), (one, 5, "3")])
    assert found[:2] == [None, None]
    assert isinstance(found[2], RateLimitExceeded)
    assert str(found[2]) == "the key k1 is at its rpm_limit of 1"
    assert found[2].retry_after == pytest.approx(60, abs=0.1)


async def test_two_keys_of_a_tenant_share_its_limits() -> None:
    limits, _ = callers(ManualClock(), Tenant(name="acme", max_parallel_requests=1))
    found = await limits.take([(caller("k1"), 5, "1"), (caller("k2"), 5, "2")])
    assert found[0] is None
    assert str(found[1]) == "the tenant acme has 1 requests running, its max_parallel_requests"


async def test_a_spent_budget_refuses_the_next_request() -> None:
    limits, _ = callers(ManualClock())
    one = caller(max_budget=Decimal("0.5"))
    assert await limits.take([(one, 5, "1")]) == [None]
    limits.settle("1", tokens=5, cost_pico=PICO // 2)
    await limits.stop()
    found = (await limits.take([(one, 5, "2")]))[0]
    assert isinstance(found, BudgetExceeded)
    assert str(found) == "the key k1 has spent 0.5 USD of its budget of 0.5 USD"


async def test_ends_wait_for_a_store_that_is_away_and_takes_are_refused_meanwhile() -> None:
    limits, store = callers(ManualClock())
    one = caller(tpm_limit=100)
    await limits.take([(one, 90, "1")])
    store.down = True
    limits.settle("1", tokens=10)
    with pytest.raises(Unavailable):
        await limits.take([(one, 90, "2")])
    assert limits.failing is not None
    store.down = False
    await limits.stop()
    assert await limits.take([(one, 90, "2")]) == [None]
    assert limits.failing is None


class FaultyStore(MemoryCallerStore):
    """Takes, and then loses its answers while `mute`; waits for `gate` before it takes; keeps what is renewed."""

    mute = False
    gate: asyncio.Event | None = None

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.renewed: list[str] = []

    async def take(self, claims: Sequence[CallerClaim]) -> Sequence[CallerRefusal | None]:
        if self.gate is not None:
            await self.gate.wait()
        found = await super().take(claims)
        if self.mute:
            raise Unavailable("the answer was lost")
        return found

    async def renew(self, claims: Sequence[CallerClaim]) -> None:
        await super().renew(claims)
        self.renewed += [claim.token for claim in claims]


def scope_of(one: Caller) -> Scope:
    assert one.key is not None
    return Scope(f"key:{one.key.hash}", rpm=one.key.rpm_limit)


async def test_what_was_taken_though_its_answer_was_lost_counts_once_and_is_given_back() -> None:
    store, one = FaultyStore(ManualClock()), caller(rpm_limit=1, tpm_limit=10, max_parallel_requests=1)
    limits = CallerLimits(store, Settings(), ManualClock())
    store.mute = True
    with pytest.raises(Unavailable):
        await limits.take([(one, 5, "1")])
    store.mute = False
    assert await limits.take([(one, 5, "1")]) == [None]
    store.mute = True
    with pytest.raises(Unavailable):
        await limits.take([(one, 5, "1")])
    limits.refund("1")
    await limits.stop()
    assert (await store.used([scope_of(one)]))[0] == NOTHING


async def test_what_is_given_back_and_asked_for_again_at_once_is_taken_anew() -> None:
    store, one = FaultyStore(ManualClock()), caller(rpm_limit=2, max_parallel_requests=1)
    limits = CallerLimits(store, Settings(), ManualClock())
    for _ in range(3):
        assert await limits.take([(one, 5, "1")]) == [None]
        limits.refund("1")
    assert await limits.take([(one, 5, "1")]) == [None]
    await limits._flush()  # noqa: SLF001 - or the end of an earlier turn could still come
    assert (await store.used([scope_of(one)]))[0] == {**NOTHING, "requests": 1, "running": 1}
    await limits.stop()


async def test_what_is_given_up_while_it_is_asked_for_holds_nothing() -> None:
    store, one = FaultyStore(ManualClock()), caller(rpm_limit=1, max_parallel_requests=1)
    limits = CallerLimits(store, Settings(), ManualClock())
    store.gate = asyncio.Event()
    asking = asyncio.ensure_future(limits.take([(one, 5, "1")]))
    while not limits._running:  # noqa: ASYNC110, SLF001 - until it asks
        await asyncio.sleep(0)
    limits.refund("1")
    await limits._flush()  # noqa: SLF001 - the store hears of the end first
    store.gate.set()
    assert await asking == [None]
    await limits.stop()
    assert (await store.used([scope_of(one)]))[0] == NOTHING


async def test_a_store_that_answers_again_is_noticed_though_nobody_asks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    limits, store = callers(ManualClock())
    limits.start()
    await asyncio.sleep(0)
    store.down = True
    with pytest.raises(Unavailable):
        await limits.take([(caller(rpm_limit=1), 5, "1")])
    assert "down" in str(limits.failing)
    store.down = False
    async with asyncio.timeout(PATIENCE):
        while limits.failing is not None:  # noqa: ASYNC110 - its task has no event for it
            await asyncio.sleep(0.005)
    await limits.stop()


async def test_running_requests_are_renewed_and_ended_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALLER_SECONDS", 0.03)
    store, one = FaultyStore(ManualClock()), caller(max_parallel_requests=2)
    limits = CallerLimits(store, Settings(), ManualClock())
    limits.start()
    await limits.take([(one, 5, "ends"), (one, 5, "runs")])
    async with asyncio.timeout(PATIENCE):
        while store.renewed.count("ends") < 2:  # noqa: ASYNC110 - a twin has no event for it
            await asyncio.sleep(0.005)
        limits.release("ends")
        store.renewed.clear()
        while store.renewed.count("runs") < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await limits.stop()
    assert set(store.renewed) == {"runs"}


async def test_ends_that_cannot_be_told_are_bounded_and_the_oldest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ENDS", 2)
    limits, store = callers(ManualClock())
    one = caller(max_budget=Decimal(1))
    await limits.take([(one, 5, str(number)) for number in range(4)])
    store.down = True
    for number in range(4):
        limits.settle(str(number), tokens=5, cost_pico=10**number)
    store.down = False
    await limits.stop()
    assert (await store.used([scope_of(one)]))[0]["spent"] == 11


async def test_over_two_workers_a_key_has_its_limit_once() -> None:
    key = caller(max_parallel_requests=3).key
    assert key is not None
    world = World(make_alias("fast"), keys={key.hash: key})
    async with world.worker() as first, world.worker() as second:
        here = await first.callers.take([(caller(max_parallel_requests=3), 1, f"a{n}") for n in range(2)])
        there = await second.callers.take([(caller(max_parallel_requests=3), 1, f"b{n}") for n in range(2)])
    assert here == [None, None]
    assert there[0] is None
    assert isinstance(there[1], RateLimitExceeded)
