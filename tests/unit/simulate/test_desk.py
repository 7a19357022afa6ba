"""What the simulator decides: limits within a window, faults in order and by chance, prefixes it has seen."""

import pytest

from broker.clock import ManualClock
from broker.simulate.answers import Wanted
from broker.simulate.behaviour import Behaviour
from broker.simulate.desk import Desk

LONG = "x" * 4 * 1024


def desk_of(clock: ManualClock, **fields: object) -> Desk:
    return Desk(Behaviour(**fields), clock.monotonic, clock.monotonic)  # type: ignore[arg-type] # checked by pytest


def waits(desk: Desk, count: int, prompt: str = "word") -> list[float]:
    return [desk.decide("openai", "", Wanted("m", prompt)).limits.wait for _ in range(count)]


def test_requests_come_back_when_the_oldest_leaves_the_window() -> None:
    clock = ManualClock()
    desk = desk_of(clock, rpm=2)
    assert waits(desk, 1) == [0.0]
    clock.advance(20)
    assert waits(desk, 2) == [0.0, 40.0]
    clock.advance(40)
    assert waits(desk, 2) == [0.0, 20.0]


def test_tokens_of_prompt_and_answer_count_and_one_call_is_always_let_in() -> None:
    clock = ManualClock()
    desk = desk_of(clock, tpm=100, output_tokens=50)
    assert waits(desk, 2, "x" * 400) == [0.0, 60.0]
    clock.advance(60)
    assert waits(desk, 2, "x" * 160) == [0.0, 60.0]


def test_a_turned_away_call_meets_no_fault_and_is_not_paid() -> None:
    desk = desk_of(ManualClock(), rpm=1, script=("500",))
    first, second = (desk.decide("openai", "r", Wanted("m", "x")) for _ in range(2))
    assert (first.fault, first.paid, second.fault, second.paid) == ("500", False, None, False)


def test_faults_by_chance_are_as_frequent_as_asked_and_the_same_for_a_seed() -> None:
    def drawn(seed: int) -> list[str | None]:
        desk = desk_of(ManualClock(), faults={"500": 0.25, "drop": 0.25}, seed=seed)
        return [desk.decide("openai", "", Wanted("m", "x")).fault for _ in range(2000)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    parts = [drawn(1).count(fault) / 2000 for fault in ("500", "drop", None)]
    assert parts == pytest.approx([0.25, 0.25, 0.5], abs=0.05)


def test_what_was_scripted_for_the_next_calls_goes_before_everything_else() -> None:
    desk = desk_of(ManualClock(), model_faults=[("m", "503")], script=("429",))
    desk.script(["ok", "html"])
    assert [desk.decide("openai", "", Wanted(model, "x")).fault for model in "mmmn"] == [None, "html", "503", "429"]


def test_latencies_lie_in_their_range() -> None:
    desk = desk_of(ManualClock(), latency=(3.0, 6.0))
    taken = [desk.decide("openai", "", Wanted("m", "x")).latency for _ in range(200)]
    assert (3 <= min(taken) < 3.2, 5.8 < max(taken) <= 6) == (True, True)


def cached(desk: Desk, prompt: str, marks: list[int] | None = None, model: str = "m") -> tuple[int, int]:
    plan = desk.decide("openai", "", Wanted(model, prompt, marks=marks)).plan
    return plan.cached, plan.written


def test_a_long_prefix_is_found_again_in_steps_and_by_the_same_model_alone() -> None:
    desk = desk_of(ManualClock())
    assert cached(desk, LONG + "a" * 4 * 300) == (0, 0)
    assert cached(desk, LONG + "a" * 4 * 300) == (1280, 0)
    assert cached(desk, LONG + "a" * 4 * 200 + "b" * 4 * 200) == (1152, 0)
    assert cached(desk, "y" + LONG) == (0, 0)
    assert cached(desk, LONG, model="n") == (0, 0)
    assert cached(desk, LONG[:-4]) == (0, 0)


def test_a_marked_prefix_is_written_once_and_read_from_then_on() -> None:
    desk = desk_of(ManualClock())
    end = len(LONG)
    assert cached(desk, LONG + "more", [end]) == (0, 1024)
    assert cached(desk, LONG + "other", [end]) == (1024, 0)
    assert cached(desk, LONG + "other" + "z" * 395, [end, end + 400]) == (1024, 100)
    assert cached(desk, LONG, []) == (0, 0)
    assert cached(desk, LONG, [400]) == (0, 0)
