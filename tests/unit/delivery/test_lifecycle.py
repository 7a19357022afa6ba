import pytest

from broker.delivery.lifecycle import FINAL, MOVES, ForbiddenMove, State, move


def test_every_state_has_its_moves() -> None:
    assert set(MOVES) == set(State)


def test_the_straight_way_is_allowed() -> None:
    state = State.QUEUED
    for to in (State.ADMITTED, State.WAITING, State.RUNNING, State.WAITING, State.RUNNING, State.ANSWERED):
        state = move(state, to)
    assert state is State.ANSWERED


@pytest.mark.parametrize("final", sorted(FINAL))
@pytest.mark.parametrize("to", list(State))
def test_nothing_follows_a_final_state(final: State, to: State) -> None:
    with pytest.raises(ForbiddenMove, match=f"{final} cannot become {to}"):
        move(final, to)


def test_a_running_request_may_end_in_every_final_state() -> None:
    assert {move(State.RUNNING, final) for final in FINAL} == FINAL


@pytest.mark.parametrize(
    ("state", "to"),
    [
        (State.QUEUED, State.RUNNING),
        (State.ADMITTED, State.RUNNING),
        (State.WAITING, State.ANSWERED),
        (State.RUNNING, State.ADMITTED),
    ],
)
def test_no_room_is_skipped(state: State, to: State) -> None:
    with pytest.raises(ForbiddenMove):
        move(state, to)


def test_every_state_can_be_reached_from_the_queue() -> None:
    reached, todo = set(), [State.QUEUED]
    while todo:
        state = todo.pop()
        if state not in reached:
            reached.add(state)
            todo.extend(MOVES[state])
    assert reached == set(State)
