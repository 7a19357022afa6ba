"""What `MemoryCallerStore` promises under any takes, ends, crashes and pauses, held against a history kept apart."""

import copy
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.adapters.memory_callers import REMEMBERED_SECONDS, MemoryCallerStore
from broker.clock import ManualClock
from broker.errors import Unavailable
from broker.ports import CALLER_SECONDS, CallerClaim, CallerEnd, CallerRefusal, Scope

WINDOW_SECONDS = 60.0
GRAIN_SECONDS = 0.061
"""A unit may count a step of the window too long."""

TENANT = Scope("tenant:t", rpm=6, tpm=150, parallel=4, budget=60)
SCOPES = (
    (Scope("key:a", rpm=4, tpm=100, parallel=3, budget=40), TENANT),
    (Scope("key:b", rpm=5, parallel=2), TENANT),
    (TENANT,),
)


@dataclass
class Taken:
    """One request of the history; `requests` and `tokens` are what it counts for now, by scope."""

    claim: CallerClaim
    at: float
    renewed: float
    requests: int = 1
    tokens: dict[str, int] = field(default_factory=dict)
    running: bool = True


class History:
    """Every request that was let in, and what each scope holds of it by the contract alone."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self.spent: dict[str, int] = {}

    def add(self, claim: CallerClaim, now: float) -> None:
        tokens = {scope.name: min(claim.tokens, scope.tpm or claim.tokens) for scope in claim.scopes}
        self.taken.append(Taken(claim, now, now, tokens=tokens))

    def of(self, scope: Scope) -> list[Taken]:
        return [taken for taken in self.taken if scope in taken.claim.scopes]

    def requests(self, scope: Scope, now: float) -> int:
        return sum(taken.requests for taken in self.of(scope) if taken.at > now - WINDOW_SECONDS)

    def tokens(self, scope: Scope, now: float) -> int:
        return sum(taken.tokens[scope.name] for taken in self.of(scope) if taken.at > now - WINDOW_SECONDS)

    def running(self, scope: Scope, now: float) -> int:
        return sum(taken.running and taken.renewed + CALLER_SECONDS > now for taken in self.of(scope))

    def room(self, claim: CallerClaim, now: float) -> bool:
        """Whether the windows of every scope have room at `now`, were nobody else to take."""
        return all(
            (scope.rpm is None or self.requests(scope, now) < scope.rpm)
            and (scope.tpm is None or self.tokens(scope, now) + min(claim.tokens, scope.tpm) <= scope.tpm)
            for scope in claim.scopes
        )

    def earliest(self, claim: CallerClaim, now: float) -> float:
        """Seconds until there is room, to the moment: it comes when something leaves."""
        leave = sorted(taken.at + WINDOW_SECONDS - now for taken in self.taken if taken.at + WINDOW_SECONDS > now)
        return next(wait for wait in leave if self.room(claim, now + wait + 1e-6))


step = st.tuples(
    st.sampled_from(["take", "take", "take", "again", "settle", "release", "refund", "renew", "crash"]),
    st.sampled_from([0.0, 0.0, 0.03, 1.0, 7.5, 25.0, 59.99, 61.0]) | st.floats(0.0, 30.0),
    st.integers(0, 130),
    st.integers(0, 2),
)


@given(st.lists(step, max_size=60))
@settings(deadline=None)
async def test_no_limit_of_any_scope_is_ever_passed_and_a_refusal_burns_nothing_and_tells_the_truth(
    steps: list[tuple[str, float, int, int]],
) -> None:
    clock = ManualClock()
    store, history = MemoryCallerStore(clock), History()
    for number, (what, pause, size, which) in enumerate(steps):
        clock.advance(pause)
        now = clock.monotonic()
        live = [taken for taken in history.taken if taken.running and taken.renewed + CALLER_SECONDS > now]
        if what == "take":
            claim = CallerClaim(str(number), SCOPES[which], size)
            before = await used(store)
            refusal = (await store.take([claim]))[0]
            if refusal is not None:
                assert await used(store) == before
                await check_refusal(store, history, claim, refusal, now)
                continue
            history.add(claim, now)
            for scope in claim.scopes:
                assert scope.rpm is None or history.requests(scope, now) <= scope.rpm
                assert scope.tpm is None or history.tokens(scope, now) <= scope.tpm
                assert scope.parallel is None or history.running(scope, now) <= scope.parallel
                assert scope.budget is None or history.spent.get(scope.name, 0) < scope.budget
        elif live:
            await end(store, history, live[size % len(live)], what, size)
        await check_used(store, history, now)


async def end(store: MemoryCallerStore, history: History, taken: Taken, what: str, size: int) -> None:
    """Let one running request go on, or end in one of the ways, each told twice."""
    claim = taken.claim
    if what == "again":
        assert list(await store.take([claim, claim])) == [None, None]
        taken.renewed = store._clock.monotonic()  # noqa: SLF001 - the test's own clock
    elif what == "renew":
        await store.renew([claim, claim])
        taken.renewed = store._clock.monotonic()  # noqa: SLF001
    elif what != "crash":
        true, cost = (size, size % 20) if what == "settle" else (None, 0)
        told = CallerEnd(claim.token, claim.scopes, claim.tokens, true, cost, refund=what == "refund")
        await store.settle([told, told])
        await store.settle([told])
        taken.running = False
        if what == "refund":
            taken.requests, taken.tokens = 0, dict.fromkeys(taken.tokens, 0)
        if true is not None:
            taken.tokens = dict.fromkeys(taken.tokens, true)
        for scope in claim.scopes:
            history.spent[scope.name] = history.spent.get(scope.name, 0) + cost


async def used(store: MemoryCallerStore) -> list[dict[str, int]]:
    return [dict(each) for each in await store.used([SCOPES[0][0], SCOPES[1][0], TENANT])]


async def check_used(store: MemoryCallerStore, history: History, now: float) -> None:
    """The windows may hold a unit a step too long and never too short; places and spending are exact."""
    for scope, found in zip((SCOPES[0][0], SCOPES[1][0], TENANT), await used(store), strict=True):
        assert found["running"] == history.running(scope, now)
        assert found["spent"] == history.spent.get(scope.name, 0)
        assert history.requests(scope, now) <= found["requests"] <= history.requests(scope, now - GRAIN_SECONDS)
        if scope.tpm is not None:
            assert found["tokens"] >= history.tokens(scope, now)


async def check_refusal(
    store: MemoryCallerStore, history: History, claim: CallerClaim, refusal: CallerRefusal, now: float
) -> None:
    """A refusal names a limit without room, and the time it names is neither too early nor too late."""
    scope = next(scope for scope in claim.scopes if scope.name == refusal.scope)
    if refusal.limit == "budget":
        assert (refusal.retry_after, refusal.used) == (math.inf, history.spent[scope.name])
        assert refusal.used >= (scope.budget or 0)
    elif refusal.limit == "parallel":
        assert (refusal.retry_after, refusal.used) == (math.inf, scope.parallel)
        assert history.running(scope, now) == scope.parallel
    else:
        earliest = 0.0 if history.room(claim, now) else history.earliest(claim, now)
        assert earliest - 1e-6 <= refusal.retry_after <= earliest + GRAIN_SECONDS
        later = copy.deepcopy(store)
        clock = later._clock  # noqa: SLF001 - the copy has a clock of its own
        assert isinstance(clock, ManualClock)
        clock.advance(refusal.retry_after + 1e-6)
        assert list(await later.take([claim])) == [None]


async def test_the_places_of_a_crashed_worker_return_to_the_moment_and_a_renewed_one_stays() -> None:
    clock = ManualClock()
    store, scope = MemoryCallerStore(clock), Scope("key:a", parallel=2)
    crashed, renewed, waiting = (CallerClaim(token, (scope,), 1) for token in ("1", "2", "3"))
    await store.take([crashed, renewed])
    clock.advance(CALLER_SECONDS / 2)
    await store.renew([renewed])
    clock.advance(CALLER_SECONDS / 2 - 0.01)
    assert (await store.take([waiting]))[0] is not None
    clock.advance(0.02)
    assert list(await store.take([waiting])) == [None]
    assert (await store.used([scope]))[0]["running"] == 2


async def test_a_worker_that_was_cut_off_still_tells_its_costs_and_one_that_never_came_back_is_forgotten() -> None:
    clock = ManualClock()
    store, scope = MemoryCallerStore(clock), Scope("key:a", budget=100)
    await store.take([CallerClaim("1", (scope,), 1), CallerClaim("2", (scope,), 1)])
    clock.advance(REMEMBERED_SECONDS - 1)
    await store.settle([CallerEnd("1", (scope,), 1, cost_pico=7)])
    clock.advance(2)
    await store.settle([CallerEnd("2", (scope,), 1, cost_pico=7)])
    assert (await store.used([scope]))[0]["spent"] == 7


async def test_spending_is_exact_beyond_what_a_double_can_hold() -> None:
    store, scope = MemoryCallerStore(ManualClock()), Scope("key:a", budget=2**53 + 3)
    for number, cost in enumerate((2**53 + 1, 1)):
        claim = CallerClaim(str(number), (scope,), 1)
        assert list(await store.take([claim])) == [None]
        await store.settle([CallerEnd(claim.token, (scope,), 1, cost_pico=cost)])
    assert list(await store.take([CallerClaim("last", (scope,), 1)])) == [None]
    await store.settle([CallerEnd("last", (scope,), 1, cost_pico=1)])
    refusal = (await store.take([CallerClaim("more", (scope,), 1)]))[0]
    assert refusal == CallerRefusal("key:a", "budget", math.inf, 2**53 + 3)


async def test_a_store_that_is_down_answers_nothing_and_changes_nothing() -> None:
    store, scope = MemoryCallerStore(ManualClock()), Scope("key:a", rpm=1)
    claim = CallerClaim("1", (scope,), 1)
    store.down = True
    for call in (store.start(), store.take([claim]), store.settle([]), store.renew([claim]), store.used([scope])):
        with pytest.raises(Unavailable):
            await call
    store.down = False
    assert (await store.used([scope]))[0]["requests"] == 0
