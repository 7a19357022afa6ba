"""The states of a request inside one worker and the moves between them, in the words of flow.md.

queued ──▶ admitted ──▶ waiting ──▶ running ──▶ answered
   ▲                       ▲           │
   └── lease lost ─────────┴───────────┼──▶ rerouted · parked · refused · dead · cancelled · expired

Every state before `running` may also end: in `cancelled`, `expired`, `refused`, `parked`, `rerouted` or `dead`, as the
table says. Imports errors only.
"""

from enum import StrEnum
from typing import Final

from broker.errors import BrokerError


class State(StrEnum):
    """Where a request stands; the final ones end the offset."""

    QUEUED = "queued"
    """Read from the log, not opened yet."""
    ADMITTED = "admitted"
    """Decoded; key, budget and deadline allow it."""
    WAITING = "waiting"
    """For a permit or for the end of a back-off; holds no permit."""
    RUNNING = "running"
    """An upstream call is under way, with a permit."""
    ANSWERED = "answered"
    REROUTED = "rerouted"
    PARKED = "parked"
    REFUSED = "refused"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class ForbiddenMove(BrokerError):
    """The loop tried a move that the table does not have: a fault of the program, never of a request."""


_STOPPED: Final = frozenset({State.REFUSED, State.DEAD, State.CANCELLED, State.EXPIRED})
_MOVED_ON: Final = frozenset({State.REROUTED, State.PARKED})

MOVES: Final[dict[State, frozenset[State]]] = {
    State.QUEUED: frozenset({State.ADMITTED, State.ANSWERED}) | _MOVED_ON | _STOPPED,
    State.ADMITTED: frozenset({State.WAITING, State.ANSWERED}) | _MOVED_ON | _STOPPED,
    State.WAITING: frozenset({State.RUNNING, State.QUEUED}) | _MOVED_ON | _STOPPED,
    State.RUNNING: frozenset({State.WAITING, State.ANSWERED, State.QUEUED}) | _MOVED_ON | _STOPPED,
    **{final: frozenset() for final in (State.ANSWERED, *sorted(_MOVED_ON | _STOPPED))},
}
"""From a state to those that may follow. `parked` from `queued` is a record read before its `not-before`; `answered`
from `queued` is an outcome the journal already has, `rerouted` from it what no deployment of the alias can serve; back
to `queued` goes what another worker has the lease of."""

FINAL: Final = frozenset(state for state, following in MOVES.items() if not following)
"""States after which the offset is finished."""


def move(state: State, to: State) -> State:
    """Return `to`. Raises `ForbiddenMove` when `to` does not follow on `state`."""
    if to not in MOVES[state]:
        raise ForbiddenMove(f"a request that is {state} cannot become {to}")
    return to
