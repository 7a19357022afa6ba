import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.limits.buckets import SHORTEST_WAIT, STEPS, SlidingWindow


def test_units_up_to_the_limit_start_at_once() -> None:
    window = SlidingWindow(3)
    for _ in range(3):
        assert window.wait(1, 0.0) == 0.0
        window.take(1, 0.0)
    assert window.wait(1, 0.0) == 60.0


def test_the_wait_ends_when_enough_old_units_have_left() -> None:
    window = SlidingWindow(10)
    window.take(4, 0.0)
    window.take(4, 10.0)
    assert [window.wait(n, 20.0) for n in (2, 3, 6, 7, 10)] == [0.0, 40.0, 40.0, 50.0, 50.0]


def test_a_unit_has_left_the_window_after_sixty_seconds() -> None:
    window = SlidingWindow(1)
    window.take(1, 5.0)
    assert window.wait(1, 64.9) == pytest.approx(0.1)
    assert window.wait(1, 65.0) == 0.0


def test_more_than_the_limit_is_served_alone() -> None:
    window = SlidingWindow(10)
    assert window.wait(50, 0.0) == 0.0
    window.take(50, 0.0)
    assert window.wait(1, 0.0) == 60.0
    assert window.wait(50, 60.0) == 0.0


def test_taking_without_room_is_an_error_and_takes_nothing() -> None:
    window = SlidingWindow(10)
    window.take(8, 0.0)
    with pytest.raises(ValueError, match="3 units do not fit"):
        window.take(3, 0.0)
    assert window.used(0.0) == 8


def test_units_given_back_are_free_at_once() -> None:
    window = SlidingWindow(10)
    step = window.take(10, 0.0)
    window.settle(step, -7, 5.0)
    assert [window.wait(n, 5.0) for n in (7, 8)] == [0.0, 55.0]


def test_units_given_back_after_they_left_the_window_change_nothing() -> None:
    window = SlidingWindow(10)
    step = window.take(10, 0.0)
    window.take(10, 60.0)
    window.settle(step, -10, 61.0)
    assert window.used(61.0) == 10


def test_a_correction_upwards_may_pass_the_limit_and_is_waited_for() -> None:
    window = SlidingWindow(10)
    step = window.take(0, 0.0)
    window.settle(step, 25, 1.0)
    assert (window.used(1.0), window.wait(1, 1.0), window.wait(1, 60.0)) == (25, 59.0, 0.0)


def test_no_more_can_be_given_back_than_was_taken() -> None:
    window = SlidingWindow(10)
    window.settle(window.take(3, 0.0), -9, 0.0)
    assert window.used(0.0) == 0


def test_a_wait_is_never_too_short_to_sleep() -> None:
    window = SlidingWindow(1)
    window.take(1, 0.0)
    assert window.wait(1, 60.0 - 1e-9) == SHORTEST_WAIT


@pytest.mark.parametrize(("limit", "length"), [(0, 60.0), (5, 0.0)])
def test_a_window_without_limit_or_length_is_refused(limit: int, length: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        SlidingWindow(limit, length)


def test_memory_is_bounded_whatever_the_rate() -> None:
    window = SlidingWindow(10_000_000)
    for tick in range(200_000):
        window.take(1, tick * 0.001)
    assert len(window._steps) <= STEPS + 2  # noqa: SLF001 - memory is what this test is about


moves = st.lists(
    st.tuples(st.integers(0, 40_000), st.integers(1, 6), st.booleans(), st.integers(0, 8)), min_size=1, max_size=80
)


@settings(deadline=None)
@given(limit=st.integers(1, 12), moves=moves)
def test_no_sixty_seconds_ever_hold_more_than_the_limit(limit: int, moves: list[tuple[int, int, bool, int]]) -> None:
    window, now = SlidingWindow(limit), 0.0
    starts: list[list[float]] = []  # time, units
    for pause_ms, n, patient, back in moves:
        now += pause_ms / 1000
        wait = window.wait(n, now)
        if wait and patient:
            now += wait
            assert window.wait(n, now) <= SHORTEST_WAIT
        if window.wait(n, now) == 0.0:
            step = window.take(n, now)
            returned = min(back, n, limit)
            window.settle(step, -returned, now)
            starts.append([now, min(n, limit) - returned])
        for begin, _ in starts:
            assert sum(units for time, units in starts if begin <= time < begin + 60.0) <= limit


@settings(deadline=None)
@given(limit=st.integers(1, 300), pauses=st.lists(st.floats(0, 2), min_size=1, max_size=100))
def test_the_limit_is_used_up_to_a_step_of_waste(limit: int, pauses: list[float]) -> None:
    window, now, starts = SlidingWindow(limit), 0.0, list[float]()
    for pause in pauses:
        now += pause
        if window.wait(1, now):
            strict = [time for time in starts if time > now - 60.0 - 60.0 / STEPS]
            assert len(strict) >= limit, "a unit was refused that fits even when each counts one step too long"
        else:
            window.take(1, now)
            starts.append(now)
