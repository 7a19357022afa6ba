"""Permits over four workers: slots, windows, cool-downs and weights hold for all of them together (limits.md)."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.config import Strategy
from broker.errors import UpstreamError
from broker.limits.terms import WORKER_SECONDS, Learned
from broker.routing.router import Grant
from tests.unit.limits.many_workers import TOKENS, Simulation


def give(simulation: Simulation, *counts: int) -> None:
    for worker, count in zip(simulation.workers, counts, strict=True):
        worker.waiting += count


async def test_fifty_jobs_on_five_slots_all_run_and_never_more_than_five_at_once() -> None:
    simulation = Simulation({"max_parallel_requests": 5})
    give(simulation, 20, 15, 15, 0)
    await simulation.until_done(60)
    assert (simulation.ended, simulation.peak) == (50, 5)


async def test_a_worker_that_joins_late_gets_its_part_of_the_slots() -> None:
    simulation = Simulation({"max_parallel_requests": 8})
    give(simulation, 400, 0, 0, 0)
    await simulation.run(5)
    give(simulation, 0, 400, 0, 0)
    await simulation.run(3)
    held = [len(worker.running) for worker in simulation.workers]
    assert held[:2] == [4, 4]
    assert simulation.peak == 8


async def test_rpm_holds_in_any_sixty_seconds_and_is_used_up() -> None:
    simulation = Simulation({"rpm": 100})
    give(simulation, 200, 150, 40, 10)
    await simulation.until_done(400)
    assert simulation.most_in_window() <= 100
    assert simulation.clock.monotonic() < 260  # 400 at 100 a minute take 180 s and the last calls


async def test_tpm_holds_and_what_a_call_did_not_use_is_used_by_others() -> None:
    simulation = Simulation({"tpm": 100 * TOKENS})
    give(simulation, 100, 100, 50, 50)
    await simulation.until_done(400)
    assert simulation.most_in_window() <= 100


async def test_a_crashed_worker_s_slots_return_within_its_lease() -> None:
    simulation = Simulation({"max_parallel_requests": 5})
    simulation.call_s = (100.0, 100.0)
    give(simulation, 5, 0, 0, 0)
    await simulation.run(1)
    assert simulation.crash(simulation.workers[0]) == 5
    simulation.call_s = (0.2, 0.2)
    simulation.workers[0].waiting = 5
    await simulation.run(WORKER_SECONDS - 2)
    assert simulation.ended == 0
    await simulation.run(4)
    assert simulation.ended == 5


async def test_what_one_worker_learns_binds_all_within_a_second() -> None:
    simulation = Simulation({})
    simulation.call_s = (0.1, 0.1)
    give(simulation, 1, 0, 0, 0)
    await simulation.run(0.1)
    member = simulation.workers[0].members()[0]
    member.leased.learn(Learned(limits={"rpm": 30}, left={"rpm": 5}, reset={"rpm": 60.0}))
    await simulation.run(1.0)
    before = len(simulation.started)
    give(simulation, 0, 100, 100, 100)
    await simulation.run(20)
    assert len(simulation.started) - before <= 5


async def test_a_retry_after_that_one_worker_hears_is_believed_by_all_within_a_second() -> None:
    simulation = Simulation({})
    simulation.call_s = (0.1, 0.1)
    busy = UpstreamError("busy", status=429, retry_after=30.0)
    give(simulation, 1, 0, 0, 0)
    simulation.error = busy
    await simulation.run(0.3)
    simulation.error = None
    await simulation.run(1.0)
    before = len(simulation.started)
    give(simulation, 50, 50, 50, 50)
    await simulation.run(25)
    assert len(simulation.started) == before
    await simulation.until_done(60)


async def test_a_cool_down_is_shared_and_one_call_of_all_workers_probes() -> None:
    simulation = Simulation({}, cooldown_time=5.0, allowed_fails=2)
    simulation.call_s = (0.1, 0.1)
    simulation.error = UpstreamError("refused", status=401)
    give(simulation, 3, 0, 0, 0)
    await simulation.run(1.0)
    before = len(simulation.started)
    give(simulation, 20, 20, 20, 20)
    await simulation.run(3.0)
    assert len(simulation.started) == before
    await simulation.run(4.0)
    probes = simulation.started[before:]
    assert len(probes) <= 2  # its failure begins the next cool-down
    assert all(probe for _, _, probe in probes)
    simulation.error = None
    await simulation.until_done(60)


async def test_weights_of_nine_to_one_give_ninety_per_cent_over_ten_thousand_calls() -> None:
    simulation = Simulation({"weight": 9.0}, {"weight": 1.0})
    for _ in range(25):
        give(simulation, 100, 100, 100, 100)
        await simulation.until_done()
    shares = Counter(name for _, name, _ in simulation.started)
    assert shares.total() == 10_000
    assert shares["a/0"] / shares.total() == pytest.approx(0.9, abs=0.02)


async def test_least_busy_looks_at_the_calls_of_all_workers() -> None:
    simulation = Simulation({}, {}, strategy=Strategy.LEAST_BUSY)
    simulation.call_s = (50.0, 50.0)
    first = simulation.workers[0]
    for number in range(40):
        grant = first.router.acquire("a", TOKENS, 0.0, tried=frozenset({"a/1"}))
        assert isinstance(grant, Grant)
        first.running.append((50.0, number, grant))
    await simulation.run(1.1)
    give(simulation, 0, 10, 0, 0)
    before = len(simulation.started)
    await simulation.run(1)
    assert {name for _, name, _ in simulation.started[before:]} == {"a/1"}


async def test_usage_based_routing_looks_at_what_all_workers_used() -> None:
    simulation = Simulation({"rpm": 100}, {"rpm": 100}, strategy=Strategy.USAGE_BASED)
    give(simulation, 80, 80, 0, 0)
    await simulation.until_done(30)
    shares = Counter(name for _, name, _ in simulation.started)
    assert abs(shares["a/0"] - shares["a/1"]) <= 30
    assert max(shares.values()) <= 100


@pytest.mark.parametrize("fail_open", [False, True])
async def test_without_the_store_work_waits_unless_its_alias_fails_open(*, fail_open: bool) -> None:
    simulation = Simulation({"max_parallel_requests": 2}, count=1, fail_open=fail_open)
    give(simulation, 10)
    await simulation.run(0.2)
    simulation.store.away = True
    await simulation.run(WORKER_SECONDS + 1)
    began = len(simulation.started)
    simulation.workers[0].waiting += 10
    await simulation.run(10)
    assert (len(simulation.started) > began) == fail_open
    simulation.store.away = False
    await simulation.until_done(60)
    assert simulation.peak <= 2


@given(
    st.sampled_from([{"max_parallel_requests": 3}, {"rpm": 20}, {"rpm": 30, "max_parallel_requests": 4}]),
    st.lists(
        st.tuples(
            st.sampled_from(["give", "give", "give", "crash", "away", "back", "join"]),
            st.integers(0, 3),
            st.floats(0.1, 15.0),
        ),
        min_size=3,
        max_size=12,
    ),
    st.integers(0, 1_000),
)
@settings(max_examples=60, deadline=None)
async def test_no_limit_is_ever_exceeded_whatever_workers_and_the_store_do(
    limits: dict[str, int], script: list[tuple[str, int, float]], seed: int
) -> None:
    simulation = Simulation(limits, seed=seed)
    lost = 0
    for action, number, seconds in script:
        if action == "give" and simulation.workers:
            simulation.workers[number % len(simulation.workers)].waiting += 8
        elif action == "crash" and len(simulation.workers) > 1:
            worker = simulation.workers[number % len(simulation.workers)]
            lost += worker.waiting + simulation.crash(worker)
        elif action in {"away", "back"}:
            simulation.store.away = action == "away"
        elif action == "join":
            simulation.workers.append(type(simulation.workers[0])(simulation, f"j{len(simulation.started)}-{seconds}"))
        await simulation.run(seconds)
    simulation.store.away = False
    await simulation.until_done(900)
    assert simulation.most_in_window() <= limits.get("rpm", 10**9)
    assert simulation.peak <= limits.get("max_parallel_requests", 10**9)
    await simulation.run(WORKER_SECONDS + 2)
    assert (await simulation.store.look(["a/0"]))[0].running == 0
