"""Limits of callers to the last unit: the true wait, spending beyond a double, and Redis held against its twin."""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from broker.adapters.memory_callers import MemoryCallerStore
from broker.adapters.redis_callers import RedisCallerStore
from broker.config.models import Redis
from broker.ports import CallerClaim, CallerEnd, CallerRefusal, CallerStore, Scope
from broker.topics import TopicNames

SHORT_SECONDS = 0.6
"""The minute of tests that wait for one to pass."""
PATIENCE = 10.0
STEPS = 240
"""A minute in Redis is kept in so many steps; a unit may count one of them too long."""


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.embedded)])
def unstarted(request: pytest.FixtureRequest, unique_prefix: str) -> CallerStore:
    """Either store."""
    if request.param == "memory":
        return MemoryCallerStore()
    return RedisCallerStore(Redis(url=SecretStr(request.getfixturevalue("redis_url"))), TopicNames(unique_prefix))


@pytest.fixture
async def store(unstarted: CallerStore) -> AsyncIterator[CallerStore]:
    await unstarted.start()
    yield unstarted
    await unstarted.stop()


@pytest.fixture
async def real(redis_url: str, unique_prefix: str) -> AsyncIterator[RedisCallerStore]:
    found = RedisCallerStore(Redis(url=SecretStr(redis_url)), TopicNames(unique_prefix))
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def short(redis_url: str, unique_prefix: str) -> AsyncIterator[RedisCallerStore]:
    """A Redis whose minute is short."""
    redis = Redis(url=SecretStr(redis_url))
    found = RedisCallerStore(redis, TopicNames(unique_prefix), window_seconds=SHORT_SECONDS)
    await found.start()
    yield found
    await found.stop()


async def take(store: CallerStore, token: str, *scopes: Scope, size: int = 1) -> CallerRefusal | None:
    return (await store.take([CallerClaim(token, scopes, size)]))[0]


async def spend(store: CallerStore, token: str, scope: Scope, cost: int) -> CallerRefusal | None:
    """Take and settle one request."""
    refusal = await take(store, token, scope)
    await store.settle([CallerEnd(token, (scope,), 1, cost_pico=cost)])
    return refusal


async def test_the_longest_wait_of_all_scopes_is_told(store: CallerStore) -> None:
    key, tenant = Scope("key:a", rpm=1), Scope("tenant:t", tpm=10)
    assert await take(store, "1", key) is None
    async with asyncio.timeout(PATIENCE):
        while (first := await take(store, "2", key)) is None or first.retry_after > 59.5:  # noqa: ASYNC110 - time passes
            await asyncio.sleep(0.05)
    assert await take(store, "3", tenant, size=10) is None
    found = await take(store, "4", key, tenant, size=4)
    assert found is not None
    assert (found.scope, found.limit, found.used) == ("tenant:t", "tpm", 10)
    assert 59.5 < found.retry_after <= 60.3


async def test_where_a_running_request_has_to_end_first_no_wait_is_told(store: CallerStore) -> None:
    scope = Scope("key:a", rpm=1, parallel=1)
    assert await take(store, "1", scope) is None
    assert await take(store, "2", scope) == CallerRefusal("key:a", "parallel", math.inf, 1)


@pytest.mark.parametrize("unit", [2**53, 2**62, 10**12 - 1, 10**12])
async def test_spending_is_exact_to_the_pico_dollar_however_much_it_is(store: CallerStore, unit: int) -> None:
    scope = Scope("key:a", budget=3 * unit + 1)
    assert [await spend(store, str(number), scope, unit) for number in range(3)] == [None] * 3
    assert await spend(store, "last", scope, 1) is None
    assert await take(store, "more", scope) == CallerRefusal("key:a", "budget", math.inf, 3 * unit + 1)


async def test_tokens_beyond_the_estimate_count_at_once(store: CallerStore) -> None:
    scope = Scope("key:a", tpm=100)
    assert await take(store, "1", scope, size=10) is None
    await store.settle([CallerEnd("1", (scope,), 10, used=130)])
    assert (await store.used([scope]))[0]["tokens"] == 130
    found = await take(store, "2", scope)
    assert found is not None
    assert (found.limit, found.used) == ("tpm", 130)


async def test_thousands_are_one_call_and_exactly_the_limit_of_them_is_let_in(store: CallerStore) -> None:
    scopes = (Scope("key:a", rpm=900), Scope("tenant:t", rpm=2000, tpm=5000, parallel=800))
    found = await store.take([CallerClaim(str(number), scopes, 6) for number in range(5000)])
    assert [refusal is None for refusal in found] == [number < 800 for number in range(5000)]
    assert found[800] == CallerRefusal("tenant:t", "parallel", math.inf, 800)
    await store.renew([CallerClaim(str(number), scopes, 6) for number in range(5000)])
    await store.settle([CallerEnd(str(number), scopes, 6, refund=True) for number in range(5000)])
    assert list(await store.used(scopes)) == [{"requests": 0, "tokens": 0, "running": 0, "spent": 0}] * 2


async def test_a_request_that_was_given_back_is_taken_anew(store: CallerStore) -> None:
    scope = Scope("key:a", rpm=2, tpm=10, parallel=1)
    end = CallerEnd("1", (scope,), 10, refund=True)
    for _ in range(3):
        assert await take(store, "1", scope, size=10) is None
        await store.settle([end])
    assert await take(store, "1", scope, size=10) is None
    assert (await store.used([scope]))[0] == {"requests": 1, "tokens": 10, "running": 1, "spent": 0}


@pytest.mark.embedded
@pytest.mark.parametrize("seed", range(5))
async def test_redis_and_its_twin_say_the_same_of_any_batches(real: RedisCallerStore, seed: int) -> None:
    twin, chance = MemoryCallerStore(), random.Random(seed)  # noqa: S311 - a repeatable test
    tenant = Scope("tenant:t", rpm=90, tpm=3000, parallel=12, budget=10**12 + 500)
    groups = [
        (Scope("key:a", rpm=40, tpm=900, parallel=6, budget=5 * 10**11), tenant),
        (Scope("key:b", tpm=1500), tenant),
        (tenant,),
        (Scope("key:c", parallel=3),),
    ]
    scopes = sorted({scope for group in groups for scope in group}, key=lambda scope: scope.name)
    live: list[CallerClaim] = []
    for turn in range(40):
        fresh = [CallerClaim(f"{turn}.{n}", chance.choice(groups), chance.randrange(120)) for n in range(6)]
        asked = [*fresh, *chance.sample(live, min(2, len(live)))]
        found, expected = await real.take(asked), await twin.take(asked)
        for one, other in zip(found, expected, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                # Waits that differ by less than a step are equal: which of their limits is named is then chance.
                assert one == other or abs(one.retry_after - other.retry_after) < 1.0
        live += [claim for claim, refusal in zip(fresh, found, strict=False) if refusal is None]
        ended = chance.sample(live, chance.randrange(len(live) + 1) // 2)
        live = [claim for claim in live if claim not in ended]
        ends = [
            CallerEnd(
                claim.token,
                claim.scopes,
                claim.tokens,
                used=chance.choice([None, chance.randrange(150)]),
                cost_pico=chance.randrange(10**10),
                refund=chance.random() < 0.2,
            )
            for claim in ended
        ]
        for each in (real, twin):
            await each.settle(ends + ends[:1])
            await each.renew(asked)
        assert [dict(one) for one in await real.used(scopes)] == [dict(one) for one in await twin.used(scopes)]


@pytest.mark.embedded
async def test_no_stretch_of_a_minute_holds_more_than_the_limit_and_the_wait_that_is_told_is_enough(
    short: RedisCallerStore,
) -> None:
    scope, let_in, number = Scope("key:a", rpm=7, tpm=50), list[tuple[float, float, int]](), 0
    chance = random.Random(3)  # noqa: S311 - a repeatable test
    until = time.monotonic() + 4 * SHORT_SECONDS
    while time.monotonic() < until:
        number, size = number + 1, chance.choice([1, 5, 20])
        before = time.monotonic()
        refusal = await take(short, str(number), scope, size=size)
        if refusal is None:
            let_in.append((before, time.monotonic(), size))
        elif chance.random() < 0.5:
            assert 0 < refusal.retry_after <= SHORT_SECONDS * (1 + 1 / STEPS) + 0.001
            await asyncio.sleep(refusal.retry_after + 0.002)
            before = time.monotonic()
            assert await take(short, f"{number}.again", scope, size=size) is None
            let_in.append((before, time.monotonic(), size))
    assert len(let_in) > 2 * 7
    for _, answered, _ in let_in:
        # Surely within one stretch: asked after its begin, and answered before its end.
        inside = [size for asked, end, size in let_in if asked >= answered - SHORT_SECONDS + 0.001 and end <= answered]
        assert len(inside) <= 7
        assert sum(inside) <= 50


@pytest.mark.embedded
async def test_the_places_of_a_crashed_worker_return_and_those_renewed_stay(short: RedisCallerStore) -> None:
    scope = Scope("key:a", parallel=2, budget=10)
    renewed = CallerClaim("1", (scope,), 1)
    assert [await take(short, token, scope) for token in ("1", "2")] == [None, None]
    async with asyncio.timeout(PATIENCE):
        while await take(short, "3", scope) is not None:
            await short.renew([renewed])
            await asyncio.sleep(SHORT_SECONDS / 20)
    assert (await short.used([scope]))[0]["running"] == 2
    # A worker that was only cut off: what it took is known still, so it costs and gives back.
    await short.settle([CallerEnd("2", (scope,), 1, cost_pico=10)])
    assert (await short.used([scope]))[0] == {"requests": 0, "tokens": 0, "running": 2, "spent": 10}


@pytest.mark.embedded
async def test_spending_never_expires_and_everything_else_does(real: RedisCallerStore, unique_prefix: str) -> None:
    scope = Scope("key:a", rpm=9, tpm=99, parallel=9, budget=100)
    await spend(real, "1", scope, 5)
    await take(real, "2", scope)
    client = real._redis.client  # noqa: SLF001 - only this test's own prefix is read
    forever = [key async for key in client.scan_iter(f"{unique_prefix}*") if await client.pttl(key) == -1]
    assert forever == [f"{unique_prefix}caller:key:a".encode()]
