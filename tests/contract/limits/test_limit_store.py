"""Limits of deployments over several workers: slots, slices, cool-downs, what is learned. One suite over both."""

import asyncio
import math
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from broker.adapters.memory_limits import MemoryLimitStore
from broker.adapters.redis_limits import RedisLimitStore
from broker.config.models import Redis
from broker.ports import Granted, Learned, LimitStore, Need, Settle, Units
from broker.topics import TopicNames

ONE = Units(requests=1, input=10, output=20)


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.embedded)])
def unstarted(request: pytest.FixtureRequest, unique_prefix: str) -> LimitStore:
    """Either store."""
    if request.param == "memory":
        return MemoryLimitStore()
    return RedisLimitStore(Redis(url=SecretStr(request.getfixturevalue("redis_url"))), TopicNames(unique_prefix))


@pytest.fixture
async def store(unstarted: LimitStore) -> AsyncIterator[LimitStore]:
    await unstarted.start()
    yield unstarted
    await unstarted.stop()


async def ask(store: LimitStore, worker: str = "w1", **fields: object) -> Granted:
    need = Need(deployment="gpt/0", **fields)  # type: ignore[arg-type] # a test's builder
    return (await store.exchange(worker, [need]))[0]


def times(count: int) -> Units:
    return Units(count * ONE.requests, count * ONE.input, count * ONE.output)


async def test_without_limits_nothing_is_held_back(store: LimitStore) -> None:
    granted = await ask(store, demand=5, running=2)
    assert (granted.slots, granted.slice, granted.wait, granted.running) == (None, None, 0.0, 2)
    assert (granted.limits, granted.used, granted.concurrency) == ({}, {}, None)


async def test_slots_are_shared_by_need_and_never_more_than_there_are(store: LimitStore) -> None:
    first = await ask(store, "w1", max_parallel=5, demand=50)
    assert first.slots == 5
    second = await ask(store, "w2", max_parallel=5, demand=50)
    assert second.slots == 0
    again = await ask(store, "w1", max_parallel=5, demand=50, running=5)
    assert again.slots == 3  # two of them run out, for the other
    assert again.contended
    assert (await ask(store, "w2", max_parallel=5, demand=50)).slots == 0
    assert (await ask(store, "w1", max_parallel=5, demand=50, running=3)).slots == 3
    assert (await ask(store, "w2", max_parallel=5, demand=50)).slots == 2


async def test_slots_nobody_needs_return_and_a_worker_that_leaves_gives_all_back(store: LimitStore) -> None:
    await ask(store, "w1", max_parallel=5, demand=5, running=5)
    assert (await ask(store, "w2", max_parallel=5, demand=9)).slots == 0
    await ask(store, "w1", max_parallel=5, demand=1, running=1)
    assert (await ask(store, "w2", max_parallel=5, demand=9)).slots == 4
    await store.leave("w1")
    assert (await ask(store, "w2", max_parallel=5, demand=9)).slots == 5


async def test_a_slice_is_given_whole_and_counts_at_once_for_all(store: LimitStore) -> None:
    limits = {"rpm": 10, "tpm": 1000}
    granted = await ask(store, limits=limits, demand=4, first=ONE, want=times(4))
    assert granted.slice is not None
    assert granted.slice.units == times(4)
    assert granted.used == {"rpm": 4, "tpm": 120}
    other = await ask(store, "w2", limits=limits, demand=100, first=ONE, want=times(100))
    assert other.slice is not None
    assert other.slice.units.requests == 3  # half of what is left: two workers want it
    last = await ask(store, "w2", limits=limits, demand=100, first=times(4), want=times(100))
    assert last.slice is None
    assert 58 < last.wait <= 61.5


async def test_what_is_given_back_can_be_taken_again(store: LimitStore) -> None:
    limits = {"rpm": 2, "tpm": 100}
    granted = await ask(store, limits=limits, demand=2, first=ONE, want=times(2))
    assert granted.slice is not None
    back = Settle(granted.slice.receipt, requests=-1, input=-10, output=-15)
    granted = await ask(store, limits=limits, demand=1, settles=(back,))
    assert granted.used == {"rpm": 1, "tpm": 35}
    granted = await ask(store, limits=limits, demand=1, first=ONE, want=ONE)
    assert granted.slice is not None
    more = Settle(granted.slice.receipt, input=500)
    assert (await ask(store, settles=(more,), limits=limits)).used == {"rpm": 2, "tpm": 565}


async def test_input_output_and_day_limits_count_each_their_own(store: LimitStore) -> None:
    limits = {"itpm": 100, "otpm": 100, "rpd": 3, "tpd": 10_000}
    granted = await ask(store, limits=limits, demand=9, first=ONE, want=times(9))
    assert granted.slice is not None
    assert granted.slice.units == times(3)
    assert granted.used == {"itpm": 30, "otpm": 60, "rpd": 3, "tpd": 90}
    assert (await ask(store, limits=limits, demand=9, first=ONE, want=ONE)).wait > 86_000


async def test_a_call_larger_than_a_limit_runs_in_an_empty_window(store: LimitStore) -> None:
    large = Units(1, 5000, 5000)
    granted = await ask(store, limits={"tpm": 100}, demand=1, first=large, want=large)
    assert granted.slice is not None
    assert granted.used == {"tpm": 100}


async def test_what_one_worker_learns_binds_the_others_and_never_raises_a_limit(store: LimitStore) -> None:
    learned = Learned(limits={"rpm": 5, "tpm": 9000}, left={"rpm": 1}, reset={"rpm": 30.0})
    await ask(store, "w1", limits={"tpm": 1000}, learned=learned)
    granted = await ask(store, "w2", limits={"tpm": 1000}, demand=9, first=ONE, want=times(9))
    assert granted.limits == {"rpm": 5, "tpm": 1000}
    assert granted.slice is not None
    assert granted.slice.units.requests == 1  # the others' four are not ours to take


async def test_overload_halves_the_concurrency_and_health_brings_it_back(store: LimitStore) -> None:
    assert (await ask(store, "w1", demand=40, running=36, overloaded=4)).concurrency == 20
    assert (await ask(store, "w2", demand=40, overloaded=4)).concurrency == 20  # the same burst
    granted = await ask(store, "w1", demand=40, running=10, good=10, limited=True, latency_sum=10.0)
    assert granted.slots is not None
    assert 0 < granted.slots <= 20
    reached = granted.concurrency or 0
    async with asyncio.timeout(20):
        while (granted.concurrency or math.inf) < 40:
            granted = await ask(store, "w1", demand=40, running=20, good=20, limited=True, latency_sum=20.0)
            assert granted.concurrency is None or granted.concurrency >= reached
            reached = granted.concurrency or reached
            await asyncio.sleep(0.05)


async def test_a_cool_down_is_shared_and_only_one_may_probe(store: LimitStore) -> None:
    await ask(store, "w1", cool_for=0.3, failed=5)
    other = await ask(store, "w2", demand=1)
    assert 0 < other.cooling_for <= 0.3
    assert (other.half_open, other.probe, other.failed) == (False, False, 5)
    async with asyncio.timeout(5):
        while not (first := await ask(store, "w1", demand=1)).half_open:  # noqa: ASYNC110 - time alone brings it
            await asyncio.sleep(0.02)
    second = await ask(store, "w2", demand=1)
    assert (first.probe, second.half_open, second.probe) == (True, True, False)
    assert (await ask(store, "w1", demand=1, running=1)).probe
    await ask(store, "w1", probe=False, cool_for=30.0)
    assert 29 < (await ask(store, "w2", demand=1)).cooling_for <= 30


async def test_a_probe_that_succeeds_ends_the_cool_down(store: LimitStore) -> None:
    await ask(store, "w1", cool_for=0.05)
    async with asyncio.timeout(5):
        while not (await ask(store, "w2", demand=1)).probe:  # noqa: ASYNC110 - time alone brings it
            await asyncio.sleep(0.02)
    await ask(store, "w2", running=1, demand=1)
    done = await ask(store, "w2", probe=True, good=1, latency_sum=0.5)
    assert (done.half_open, done.cooling_for, done.latency) == (False, 0.0, 0.5)
    assert not (await ask(store, "w1", demand=1)).half_open


async def test_a_provider_that_asks_for_no_calls_is_believed_by_all(store: LimitStore) -> None:
    await ask(store, "w1", blocked_for=20.0)
    await ask(store, "w1", blocked_for=2.0)
    assert 19 < (await ask(store, "w2")).blocked_for <= 20


async def test_looking_takes_nothing_and_snapshots_are_of_live_workers(store: LimitStore) -> None:
    await ask(store, limits={"rpm": 10}, demand=2, running=2, good=3, latency_sum=1.5)
    assert (await store.look(["gpt/0"]))[0].running == 2
    assert (await store.look(["gpt/0"]))[0].latency == pytest.approx(0.5)
    await store.publish("w1", {"in_flight": 2})
    await store.publish("w2", {"in_flight": 1})
    await store.leave("w2")
    assert await store.snapshots() == {"w1": {"in_flight": 2}}


async def test_many_deployments_are_one_call_in_order(store: LimitStore) -> None:
    needs = [Need(f"d/{number}", max_parallel=number, demand=99) for number in range(1, 40)]
    assert [granted.slots for granted in await store.exchange("w1", needs)] == list(range(1, 40))
    assert list(await store.exchange("w1", [])) == []


async def test_who_only_looks_is_told_the_use_of_every_window_and_the_learned_limits(store: LimitStore) -> None:
    limits = {"rpm": 10, "tpm": 1000}
    await ask(store, limits=limits, demand=4, first=ONE, want=times(4), learned=Learned({"tpm": 500}))
    looked = (await store.look(["gpt/0"]))[0]
    assert looked.limits == {"tpm": 500}
    assert looked.used == {"rpm": 4, "tpm": 120, "itpm": 0, "otpm": 0, "rpd": 0, "tpd": 0}
