"""Limits of callers in memory: the twin of `RedisCallerStore`, its time an injected clock.

May import what the core counts with; no client library.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from broker.clock import Clock, SystemClock
from broker.errors import Unavailable
from broker.limits.buckets import SlidingWindow, Step
from broker.ports import CALLER_SECONDS, CallerClaim, CallerEnd, CallerRefusal, Scope

REMEMBERED_SECONDS: Final = 86_400.0
"""A request that nobody renewed for so long is forgotten, and its end is without effect. A worker that was cut off from
the store for less than that still tells what its requests cost."""

_WINDOW_SECONDS: Final = 60.0


@dataclass(slots=True)
class _Account:
    """What a scope has in use. Windows are there from the first claim that has such a limit on."""

    requests: SlidingWindow | None = None
    tokens: SlidingWindow | None = None
    places: dict[str, float] = field(default_factory=dict)
    """Token of a running request → when its place returns, in that order."""
    spent: int = 0

    def prepare(self, scope: Scope, now: float) -> None:
        """Take the limits of `scope` over, and let lapsed places go."""
        self.requests = _window(self.requests, scope.rpm)
        self.tokens = _window(self.tokens, scope.tpm)
        self.expire(now)

    def expire(self, now: float) -> None:
        """Let lapsed places go."""
        while self.places and next(iter(self.places.values())) <= now:
            del self.places[next(iter(self.places))]

    def keep(self, token: str, until: float) -> None:
        """Let the place of a request last until then."""
        self.places.pop(token, None)
        self.places[token] = until


@dataclass(slots=True)
class _Taken:
    """What one request took, by scope: the receipts of the windows and the tokens that were counted."""

    until: float
    """When its places return."""
    steps: dict[str, tuple[Step | None, Step | None, int]] = field(default_factory=dict)


class MemoryCallerStore:
    """Keeps what `RedisCallerStore` keeps. While `down` is set every operation is `Unavailable`."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._accounts: dict[str, _Account] = {}
        self._taken: dict[str, _Taken] = {}
        """By token; the one renewed longest ago comes first."""
        self.down = False

    def forget_all(self) -> None:
        """Lose everything, as a Redis without persistence does when it restarts."""
        self._accounts.clear()
        self._taken.clear()

    async def start(self) -> None:
        """Connect. Raises `Unavailable`."""
        self._check()

    async def take(self, claims: Sequence[CallerClaim]) -> Sequence[CallerRefusal | None]:
        """Take each claim; see the port."""
        self._check()
        now = self._clock.monotonic()
        self._forget(now)
        return [self._take(claim, now) for claim in claims]

    async def settle(self, ends: Sequence[CallerEnd]) -> None:
        """End requests; see the port."""
        self._check()
        now = self._clock.monotonic()
        self._forget(now)
        for end in ends:
            self._settle(end, now)

    async def renew(self, claims: Sequence[CallerClaim]) -> None:
        """Keep places; see the port."""
        self._check()
        now = self._clock.monotonic()
        self._forget(now)
        for claim in claims:
            if (taken := self._taken.get(claim.token)) is not None:
                self._keep(claim, taken, now)

    async def used(self, scopes: Sequence[Scope]) -> Sequence[Mapping[str, int]]:
        """Return what is in use; see the port. Requests, tokens and places are counted where they have a limit."""
        self._check()
        now = self._clock.monotonic()
        found = []
        for scope in scopes:
            account = self._accounts.get(scope.name) or _Account()
            account.expire(now)
            found.append(
                {
                    "requests": 0 if account.requests is None else account.requests.used(now),
                    "tokens": 0 if account.tokens is None else account.tokens.used(now),
                    "running": len(account.places),
                    "spent": account.spent,
                }
            )
        return found

    async def stop(self) -> None:
        """Close."""

    def _take(self, claim: CallerClaim, now: float) -> CallerRefusal | None:
        taken = self._taken.get(claim.token)
        if taken is not None and taken.until > now:
            self._keep(claim, taken, now)
            return None
        accounts = [(scope, self._accounts.setdefault(scope.name, _Account())) for scope in claim.scopes]
        for scope, account in accounts:
            account.prepare(scope, now)
        refusal = _refusal(accounts, claim.tokens, now)
        if refusal is None:
            # One that lapsed has left the windows too, so nothing of it is lost here.
            self._taken[claim.token] = taken = _Taken(now)
            for scope, account in accounts:
                tokens = claim.tokens if scope.tpm is None else min(claim.tokens, scope.tpm)
                taken.steps[scope.name] = (
                    None if account.requests is None else account.requests.take(1, now),
                    None if account.tokens is None else account.tokens.take(tokens, now),
                    tokens,
                )
            self._keep(claim, taken, now)
        return refusal

    def _keep(self, claim: CallerClaim, taken: _Taken, now: float) -> None:
        taken.until = now + CALLER_SECONDS
        self._taken[claim.token] = self._taken.pop(claim.token)
        for scope in claim.scopes:
            if scope.parallel is not None:
                self._accounts[scope.name].keep(claim.token, taken.until)

    def _settle(self, end: CallerEnd, now: float) -> None:
        taken = self._taken.pop(end.token, None)
        if taken is None:
            return
        for scope in end.scopes:
            account = self._accounts[scope.name]
            account.places.pop(end.token, None)
            account.spent += end.cost_pico
            requests, tokens, counted = taken.steps[scope.name]
            if account.requests is not None and requests is not None and end.refund:
                account.requests.settle(requests, -1, now)
            truth = 0 if end.refund else end.used
            if account.tokens is not None and tokens is not None and truth is not None:
                account.tokens.settle(tokens, truth - counted, now)

    def _forget(self, now: float) -> None:
        """Forget requests of workers that died long ago."""
        while self._taken:
            token, taken = next(iter(self._taken.items()))
            if taken.until - CALLER_SECONDS + REMEMBERED_SECONDS > now:
                return
            del self._taken[token]

    def _check(self) -> None:
        if self.down:
            raise Unavailable("memory callers: down")


def _window(window: SlidingWindow | None, limit: int | None) -> SlidingWindow | None:
    """Return the window under a limit, which another configuration may have changed."""
    if limit is None:
        return None
    if window is None:
        return SlidingWindow(limit, _WINDOW_SECONDS)
    window.limit = limit
    return window


def _refusal(accounts: Sequence[tuple[Scope, _Account]], tokens: int, now: float) -> CallerRefusal | None:
    """Return the limit that has no room for longest, None where all have; takes nothing."""
    for scope, account in accounts:
        if scope.budget is not None and account.spent >= scope.budget:
            return CallerRefusal(scope.name, "budget", math.inf, account.spent)
    for scope, account in accounts:
        if scope.parallel is not None and len(account.places) >= scope.parallel:
            return CallerRefusal(scope.name, "parallel", math.inf, len(account.places))
    longest, refusal = 0.0, None
    for scope, account in accounts:
        for limit, window, units in (("rpm", account.requests, 1), ("tpm", account.tokens, tokens)):
            wait = 0.0 if window is None else window.wait(units, now)
            if window is not None and wait > longest:
                longest, refusal = wait, CallerRefusal(scope.name, limit, wait, window.used(now))
    return refusal
