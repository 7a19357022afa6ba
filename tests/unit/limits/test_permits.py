import heapq
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.limits.permits import DeploymentPermits, Permit


def permits(rpm: int | None = None, tpm: int | None = None, parallel: int | None = None) -> DeploymentPermits:
    return DeploymentPermits(rpm, tpm, parallel)


def test_without_limits_everything_starts_and_is_counted() -> None:
    free = permits()
    held = [free.take(10**9, 0.0) for _ in range(1000)]
    assert (free.unlimited, free.wait(10**9, 0.0), free.in_flight, len(held)) == (True, 0.0, 1000, 1000)


def test_full_slots_wait_for_a_release() -> None:
    slots = permits(parallel=2)
    first = slots.take(0, 0.0)
    slots.take(0, 0.0)
    assert slots.wait(0, 0.0) == math.inf
    slots.release(first, None, 1.0)
    assert slots.wait(0, 1.0) == 0.0


def test_a_permit_released_twice_counts_once() -> None:
    limited = permits(tpm=100, parallel=1)
    permit = limited.take(60, 0.0)
    limited.release(permit, None, 1.0)
    limited.take(60, 1.0)
    limited.release(permit, None, 2.0)
    assert (limited.in_flight, limited.tokens_used(2.0)) == (1, 60)


def test_the_longest_wait_of_all_limits_counts() -> None:
    limited = permits(rpm=1, tpm=100)
    limited.take(100, 0.0)
    limited.penalise(70.0)
    assert (limited.wait(1, 0.0), limited.wait(1, 65.0), limited.wait(1, 70.0)) == (70.0, 5.0, 0.0)


def test_tokens_are_settled_to_the_truth() -> None:
    limited = permits(tpm=1000)
    limited.release(limited.take(900, 0.0), 100, 5.0)
    assert limited.tokens_used(5.0) == 100
    limited.release(limited.take(900, 5.0), 1500, 6.0)
    assert limited.tokens_used(6.0) == 1600


def test_a_failed_call_costs_no_tokens_but_its_request() -> None:
    limited = permits(rpm=1, tpm=1000)
    limited.release(limited.take(900, 0.0), None, 5.0)
    assert (limited.tokens_used(5.0), limited.requests_used(5.0), limited.wait(1, 5.0)) == (0, 1, 55.0)


def test_a_call_that_never_started_costs_nothing() -> None:
    limited = permits(rpm=1, tpm=1000)
    limited.release(limited.take(900, 0.0), None, 5.0, started=False)
    assert (limited.tokens_used(5.0), limited.requests_used(5.0), limited.wait(900, 5.0)) == (0, 0, 0.0)


def test_a_call_larger_than_the_limit_is_settled_from_what_was_reserved() -> None:
    limited = permits(tpm=100)
    limited.release(limited.take(5000, 0.0), 40, 1.0)
    assert limited.tokens_used(1.0) == 40


def test_a_refused_take_leaves_nothing_behind() -> None:
    limited = permits(rpm=1, tpm=1000)
    limited.take(10, 0.0)
    with pytest.raises(ValueError, match="do not fit"):
        limited.take(500, 0.0)
    assert (limited.in_flight, limited.tokens_used(0.0)) == (1, 10)


def test_a_penalty_is_never_shortened() -> None:
    limited = permits()
    limited.penalise(20.0)
    limited.penalise(10.0)
    assert (limited.wait(0, 5.0), limited.blocked_until(5.0), limited.blocked_until(20.0)) == (15.0, 20.0, None)


def test_the_fuller_window_is_the_share_used() -> None:
    limited = permits(rpm=10, tpm=1000)
    limited.take(500, 0.0)
    assert (limited.share_used(0.0), limited.share_used(60.0), permits().share_used(0.0)) == (0.5, 0.0, 0.0)


def simulate(limited: DeploymentPermits, jobs: list[tuple[float, int]]) -> tuple[list[float], int]:
    """Run jobs of (seconds, tokens), all there from the start, on a clock of events; return starts and most at once."""
    now, waiting, running, most = 0.0, list(reversed(jobs)), list[tuple[float, int]](), 0
    starts: list[float] = []
    held: dict[int, tuple[Permit, int]] = {}
    while waiting or running:
        while waiting and limited.wait(waiting[-1][1], now) == 0.0:
            seconds, tokens = waiting.pop()
            held[len(starts)] = limited.take(tokens, now), tokens
            heapq.heappush(running, (now + seconds, len(starts)))
            starts.append(now)
            most = max(most, limited.in_flight)
        wake = now + limited.wait(waiting[-1][1], now) if waiting else math.inf
        if running and running[0][0] <= wake:
            now, number = heapq.heappop(running)
            permit, tokens = held.pop(number)
            limited.release(permit, tokens // 2, now)
        else:
            assert wake < math.inf, "nothing runs and nothing will ever start"
            now = wake
    return starts, most


def test_fifty_jobs_on_five_slots_are_all_served_and_never_more_than_five_at_once() -> None:
    starts, most = simulate(permits(parallel=5), [(1.0 + number % 7 / 10, 100) for number in range(50)])
    assert (len(starts), most) == (50, 5)


@settings(deadline=None, max_examples=40)
@given(
    jobs=st.lists(st.tuples(st.floats(0, 200), st.integers(0, 3000)), min_size=1, max_size=120),
    rpm=st.none() | st.integers(1, 40),
    tpm=st.none() | st.integers(1, 5000),
    parallel=st.none() | st.integers(1, 10),
)
def test_everything_is_served_within_every_limit(
    jobs: list[tuple[float, int]], rpm: int | None, tpm: int | None, parallel: int | None
) -> None:
    limited = permits(rpm, tpm, parallel)
    starts, most = simulate(limited, jobs)
    assert len(starts) == len(jobs)
    assert most <= (parallel or len(jobs))
    assert limited.in_flight == 0
    for begin in starts:
        assert rpm is None or sum(begin <= start < begin + 60.0 for start in starts) <= rpm
