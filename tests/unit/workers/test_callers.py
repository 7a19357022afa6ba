"""Limits of keys and tenants as a worker sees them, on the twin of the shared store."""

import hashlib
from collections import deque
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.adapters.memory_callers import MemoryCallerStore
from broker.clock import ManualClock
from broker.config import Settings, Tenant, VirtualKey
from broker.errors import BudgetExceeded, RateLimitExceeded, Unavailable
from broker.keys import Caller
from broker.ports import CallerClaim, CallerEnd, Scope
from tests.unit.workers.world import World, make_alias
from workers.callers import CallerLimits

PICO = 10**12


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


steps = st.lists(
    st.tuples(st.sampled_from(["take", "end", "refund", "crash"]), st.floats(0.0, 30.0), st.integers(1, 60)),
    max_size=60,
)


@given(steps)
async def test_no_sixty_seconds_ever_hold_more_than_a_limit_and_retry_after_is_true(
    taken: list[tuple[str, float, int]],
) -> None:
    clock = ManualClock()
    store = MemoryCallerStore(clock=clock)
    scope = Scope("key:a", rpm=5, tpm=100, parallel=3)
    started: deque[tuple[float, int]] = deque()
    running: list[str] = []
    for number, (what, pause, size) in enumerate(taken):
        clock.advance(pause)
        if what == "take":
            refusal = (await store.take([CallerClaim(str(number), (scope,), size)]))[0]
            if refusal is None:
                started.append((clock.monotonic(), size))
                running.append(str(number))
            elif refusal.limit in {"rpm", "tpm"}:
                probe = ManualClock()
                probe.advance(clock.monotonic())
                assert 0 < refusal.retry_after <= 61
        elif running and what == "crash":
            running.pop(0)  # nobody tells; its place returns by itself
        elif running:
            token = running.pop(0)
            await store.settle([CallerEnd(token, (scope,), size, refund=what == "refund")])
            if what == "refund":
                started.popleft()
        recent = [tokens for at, tokens in started if at > clock.monotonic() - 60]
        assert len(recent) <= 5 + taken.count(("refund", 0.0, 0))
        assert (await store.used([scope]))[0]["running"] <= 3
