"""Limits of callers: every scope in one step, never more than a limit, and what ends gives back."""

import math
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from broker.adapters.memory_callers import MemoryCallerStore
from broker.adapters.redis_callers import RedisCallerStore
from broker.config.models import Redis
from broker.ports import CallerClaim, CallerEnd, CallerStore, Scope
from broker.topics import TopicNames


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.embedded)])
def unstarted(request: pytest.FixtureRequest, unique_prefix: str) -> CallerStore:
    """Either store."""
    if request.param == "memory":
        return MemoryCallerStore()
    url = SecretStr(request.getfixturevalue("redis_url"))
    return RedisCallerStore(Redis(url=url), TopicNames(unique_prefix))


@pytest.fixture
async def store(unstarted: CallerStore) -> AsyncIterator[CallerStore]:
    await unstarted.start()
    yield unstarted
    await unstarted.stop()


def claims(scopes: tuple[Scope, ...], *tokens: str, size: int = 10) -> list[CallerClaim]:
    return [CallerClaim(token, scopes, size) for token in tokens]


async def used(store: CallerStore, scope: Scope) -> dict[str, int]:
    return dict((await store.used([scope]))[0])


async def test_requests_of_a_minute_are_counted_over_batches_and_retry_after_is_the_rest_of_it(
    store: CallerStore,
) -> None:
    scopes = (Scope("key:a", rpm=3),)
    assert list(await store.take(claims(scopes, "1", "2"))) == [None, None]
    found = await store.take(claims(scopes, "3", "4"))
    assert found[0] is None
    assert found[1] is not None
    assert (found[1].scope, found[1].limit) == ("key:a", "rpm")
    assert 58 < found[1].retry_after <= 60.5


async def test_a_refusal_in_one_scope_burns_nothing_in_another(store: CallerStore) -> None:
    key, tenant = Scope("key:a", rpm=10, tpm=100, parallel=5), Scope("tenant:t", rpm=1)
    assert list(await store.take(claims((tenant,), "0"))) == [None]
    found = await store.take(claims((key, tenant), "1"))
    assert found[0] is not None
    assert found[0].scope == "tenant:t"
    assert await used(store, key) == {"requests": 0, "tokens": 0, "running": 0, "spent": 0}


async def test_a_take_that_is_repeated_counts_once(store: CallerStore) -> None:
    scope = Scope("key:a", rpm=1, tpm=10, parallel=1)
    assert list(await store.take(claims((scope,), "1"))) == [None]
    assert list(await store.take(claims((scope,), "1"))) == [None]
    assert await used(store, scope) == {"requests": 1, "tokens": 10, "running": 1, "spent": 0}


async def test_an_end_settles_tokens_to_the_truth_and_adds_the_cost_once(store: CallerStore) -> None:
    scope = Scope("key:a", rpm=5, tpm=100, parallel=1, budget=10**13)
    await store.take(claims((scope,), "1", size=90))
    end = CallerEnd("1", (scope,), 90, used=40, cost_pico=10**13 + 1)
    await store.settle([end])
    await store.settle([end])
    assert await used(store, scope) == {"requests": 1, "tokens": 40, "running": 0, "spent": 10**13 + 1}
    found = (await store.take(claims((scope,), "2")))[0]
    assert found is not None
    assert (found.limit, found.used, found.retry_after) == ("budget", 10**13 + 1, math.inf)


async def test_what_goes_on_elsewhere_gives_everything_back(store: CallerStore) -> None:
    scope = Scope("key:a", rpm=1, tpm=100, parallel=1)
    await store.take(claims((scope,), "1", size=100))
    await store.settle([CallerEnd("1", (scope,), 100, refund=True)])
    assert await used(store, scope) == {"requests": 0, "tokens": 0, "running": 0, "spent": 0}
    assert list(await store.take(claims((scope,), "2"))) == [None]


async def test_an_end_of_what_was_never_taken_changes_nothing(store: CallerStore) -> None:
    scope = Scope("key:a", rpm=1, tpm=100, parallel=1)
    await store.settle([CallerEnd("9", (scope,), 100, used=5, cost_pico=7)])
    assert await used(store, scope) == {"requests": 0, "tokens": 0, "running": 0, "spent": 0}


async def test_running_requests_are_counted_until_they_end(store: CallerStore) -> None:
    scope = Scope("key:a", parallel=2)
    found = await store.take(claims((scope,), "1", "2", "3"))
    assert found[:2] == [None, None]
    assert found[2] is not None
    assert (found[2].limit, found[2].retry_after, found[2].used) == ("parallel", math.inf, 2)
    await store.renew(claims((scope,), "1", "2"))
    await store.settle([CallerEnd("1", (scope,), 10)])
    assert list(await store.take(claims((scope,), "3"))) == [None]


async def test_a_request_larger_than_the_limit_runs_in_an_empty_minute(store: CallerStore) -> None:
    scope = Scope("key:a", tpm=100)
    assert list(await store.take(claims((scope,), "1", size=1000))) == [None]
    assert (await used(store, scope))["tokens"] == 100
    assert (await store.take(claims((scope,), "2", size=1)))[0] is not None


async def test_nothing_is_asked_of_nobody(store: CallerStore) -> None:
    assert list(await store.take([])) == []
    await store.settle([])
    await store.renew([])
    assert list(await store.used([])) == []
