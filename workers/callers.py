"""Limits of virtual keys and tenants, for one worker process over the store that all of them share.

A batch of requests is taken in one round trip, and none is made where nobody has limits; ends are gathered.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Sequence
from itertools import islice
from typing import Final, TypeVar

from broker.clock import Clock
from broker.config import Settings, Tenant, VirtualKey
from broker.errors import BudgetExceeded, RateLimitExceeded, RequestError, Unavailable
from broker.keys import Caller
from broker.ledger.money import to_pico, to_text
from broker.ports import CALLER_SECONDS, CallerClaim, CallerEnd, CallerRefusal, CallerStore, Scope

log = logging.getLogger(__name__)

T = TypeVar("T")

GATHER_SECONDS: Final = 0.002
"""Less than an end waits to be published: who has an answer finds it counted."""
RETRY_SECONDS: Final = 0.5
STOP_SECONDS: Final = 5.0
MOST_AT_ONCE: Final = 256
MOST_ENDS: Final = 65_536
"""Ends kept while the store is away. Those beyond are of requests that were let in without it (`fail_open`), so it
knows nothing of them."""

WORDS: Final = {"rpm": "rpm_limit", "tpm": "tpm_limit", "parallel": "max_parallel_requests", "budget": "max_budget"}
"""A limit of a scope → what the configuration calls it."""

PROBE: Final = Scope("probe")
"""Nobody's scope: whether the store answers is asked with it."""


class CallerLimits:
    """`take` before a request may run; then exactly one of `settle`, `release`, `refund`. For one event loop."""

    def __init__(self, store: CallerStore, settings: Settings, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._tenants = settings.tenants
        self._scopes: dict[tuple[str, str], tuple[Scope, ...]] = {}
        self._running: dict[str, CallerClaim] = {}
        """By token: taken, or asked for while the store did not answer, when it may have taken them all the same."""
        self._ended: dict[str, CallerEnd] = {}
        self._flushing = asyncio.Lock()
        self._flush_task: asyncio.Task[None] | None = None
        self._renew_task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._away_since = 0.0
        self.failing: str | None = None
        """What the store said when it last did not answer; None while it does."""

    def start(self) -> None:
        """Begin to renew the places of running requests."""
        self._renew_task = asyncio.get_running_loop().create_task(self._renew(), name="callers")

    async def stop(self) -> None:
        """Give back what is taken, within a bound, and stop."""
        for token in list(self._running):
            self.refund(token)
        tasks = [task for task in (self._renew_task, self._flush_task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._flush()
        except (TimeoutError, Unavailable):
            log.warning("%d ends of limited requests could not be told", len(self._ended))

    def limits(self, caller: Caller) -> bool:
        """Whether anything limits the caller."""
        return bool(self._scopes_of(caller))

    async def take(self, items: Sequence[tuple[Caller, int, str]]) -> list[RequestError | None]:
        """Take requests (caller, estimated tokens, token of the work); what refuses one is its own error.

        Raises `Unavailable` where a limited one is among them and the store is away.
        """
        limited = [
            (place, caller, CallerClaim(token, scopes, tokens))
            for place, (caller, tokens, token) in enumerate(items)
            if (scopes := self._scopes_of(caller))
        ]
        found: list[RequestError | None] = [None] * len(items)
        if not limited:
            return found
        if any(claim.token in self._ended for _, _, claim in limited):
            await self._flush()  # or the end of its last turn would end this one
        claims = [claim for _, _, claim in limited]
        self._running.update((claim.token, claim) for claim in claims)
        refusals = await self._ask(self._store.take(claims))
        for (place, caller, claim), refusal in zip(limited, refusals, strict=True):
            if refusal is None and claim.token not in self._running:
                # It was given up meanwhile; the store may have heard of that first.
                self._running[claim.token] = claim
                self.refund(claim.token)
            elif refusal is not None:
                self._running.pop(claim.token, None)
                found[place] = _error(caller, self._tenants.get(caller.tenant), refusal)
        return found

    def settle(self, token: str, *, tokens: int, cost_pico: int | None = None) -> None:
        """End a request that was answered: tokens it really used, pico-dollars, None when unpriced."""
        self._end(token, used=tokens, cost_pico=cost_pico or 0)

    def release(self, token: str) -> None:
        """End a request without an answer: its place is free, what it took of the minute stays taken."""
        self._end(token)

    def refund(self, token: str) -> None:
        """End a request that goes on elsewhere and is taken again there: all it took is given back."""
        self._end(token, refund=True)

    def _end(self, token: str, *, used: int | None = None, cost_pico: int = 0, refund: bool = False) -> None:
        claim = self._running.pop(token, None)
        if claim is None:
            return
        if len(self._ended) >= MOST_ENDS:
            return
        self._ended[token] = CallerEnd(token, claim.scopes, claim.tokens, used, cost_pico, refund)
        if self._flush_task is None or self._flush_task.done():
            self._flush_task = asyncio.get_running_loop().create_task(self._keep_flushing())

    async def _keep_flushing(self) -> None:
        while self._ended:
            await asyncio.sleep(GATHER_SECONDS if self.failing is None else RETRY_SECONDS)
            try:
                await self._flush()
            except Unavailable:
                continue

    async def _flush(self) -> None:
        """Tell all ends; they are told again where it is unknown whether they were heard, which changes nothing."""
        while self._ended:
            async with self._flushing:
                batch = list(islice(self._ended.values(), MOST_AT_ONCE))
                if batch:
                    await self._ask(self._store.settle(batch))
                for end in batch:
                    if self._ended.get(end.token) is end:
                        del self._ended[end.token]

    async def _renew(self) -> None:
        every = CALLER_SECONDS / 3
        while True:
            try:
                async with asyncio.timeout(every if self.failing is None else RETRY_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass
            else:
                self._changed.clear()
                continue
            claims = list(self._running.values())
            try:
                for start in range(0, len(claims), MOST_AT_ONCE):
                    await self._ask(self._store.renew(claims[start : start + MOST_AT_ONCE]))
                if self.failing is not None:
                    await self._ask(self._store.used([PROBE]))
            except Unavailable as error:
                log.debug("limits of callers cannot be renewed now: %s", error)

    async def _ask(self, answer: Awaitable[T]) -> T:
        """Ask the store, and keep whether it answers. Raises `Unavailable`."""
        try:
            result = await answer
        except Unavailable as error:
            if self.failing is None:
                log.warning("the limits of callers do not answer: %s", error)
                self._away_since = self._clock.monotonic()
                self._changed.set()  # from now on it is asked often, so that its return is noticed
            self.failing = str(error)
            raise
        if self.failing is not None:
            away = self._clock.monotonic() - self._away_since
            log.warning("the limits of callers answer again, after %.1f s", away)
            self.failing = None
        return result

    def _scopes_of(self, caller: Caller) -> tuple[Scope, ...]:
        known = (caller.tenant, "" if caller.key is None else caller.key.hash)
        scopes = self._scopes.get(known)
        if scopes is None:
            tenant = self._tenants.get(caller.tenant)
            found = (
                None if caller.key is None else _scope(f"key:{caller.key.hash}", caller.key),
                None if tenant is None else _scope(f"tenant:{tenant.name}", tenant),
            )
            scopes = self._scopes[known] = tuple(scope for scope in found if scope is not None)
        return scopes


def _scope(name: str, limits: VirtualKey | Tenant) -> Scope | None:
    scope = Scope(
        name,
        rpm=limits.rpm_limit,
        tpm=limits.tpm_limit,
        parallel=limits.max_parallel_requests,
        budget=None if limits.max_budget is None else to_pico(limits.max_budget),
    )
    return None if scope == Scope(name) else scope


def _error(caller: Caller, tenant: Tenant | None, refusal: CallerRefusal) -> RequestError:
    """Say whose limit it is and which."""
    limits: VirtualKey | Tenant | None = tenant
    who = f"the tenant {caller.tenant}"
    if refusal.scope.startswith("key:") and caller.key is not None:
        limits, who = caller.key, f"the key {caller.key_id}"
    word = WORDS[refusal.limit]
    limit = getattr(limits, word)
    if refusal.limit == "budget":
        spent = to_text(refusal.used).rstrip("0").rstrip(".")
        return BudgetExceeded(f"{who} has spent {spent} USD of its budget of {limit} USD")
    if refusal.limit == "parallel":
        return RateLimitExceeded(f"{who} has {refusal.used} requests running, its max_parallel_requests")
    wait = None if math.isinf(refusal.retry_after) else refusal.retry_after
    return RateLimitExceeded(f"{who} is at its {word} of {limit}", retry_after=wait)
