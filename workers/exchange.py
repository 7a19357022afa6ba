"""Exchanges permits with the store that all workers share: a few times a second, for every deployment of the process.

At once where calls wait that a fresh slice could start, or where others have to hear of something; never more than one
exchange is under way. Calls start on what is here already.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from broker.clock import Clock
from broker.errors import Unavailable
from broker.limits.leased import LeasedPermits
from broker.ports import Granted, LimitStore, Need, Units
from broker.routing.router import Member, Router

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 0.5
"""What one worker learns is with the store at once and with every other within this (limits.md: 1 s)."""
RETRY_SECONDS: Final = 0.5
STOP_SECONDS: Final = 2.0
MOST_AHEAD: Final = 2_000
"""Waiting calls that are asked for at once: what is not started within a second goes back."""

Demand = Callable[[], Mapping[str, tuple[int, Units, Units]]]
"""Alias → calls that wait for a permit now, what they take together, and what the first of them takes."""


class PermitExchange:
    """For one event loop. `changed` is called when waiting calls may find a permit now."""

    def __init__(  # noqa: PLR0913 - what is exchanged, and who wants it
        self,
        *,
        store: LimitStore,
        router: Router,
        worker: str,
        clock: Clock,
        demand: Demand,
        changed: Callable[[], None],
    ) -> None:
        self._store = store
        self._worker = worker
        self._clock = clock
        self._demand = demand
        self._changed = changed
        self._members: list[tuple[str, Member, LeasedPermits]] = [
            (alias, member, member.leased)
            for alias, group in router.members().items()
            for member in group
            if member.leased is not None
        ]
        self._wake = asyncio.Event()
        self._urgent = False
        self._last = -math.inf
        self._task: asyncio.Task[None] | None = None
        self.failing: str | None = None
        """What the store said when it last did not answer; None while it does."""

    def start(self) -> None:
        """Begin to exchange."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="permit-exchange")

    async def stop(self) -> None:
        """Stop, and give everything back within a bound."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._store.leave(self._worker)
            except (TimeoutError, Unavailable):
                log.debug("permits could not be given back; they return by themselves")

    def short(self) -> None:
        """Note that a call found no permit: more may be asked for."""
        self._wake.set()

    def news(self) -> None:
        """Note that other workers have to hear of something now: a busy provider, a trip, a probe's end."""
        self._urgent = True
        self._wake.set()

    def granted(self) -> dict[str, Granted]:
        """Return what was granted last, by deployment."""
        return {member.deployment.name: leased.granted for _, member, leased in self._members}

    def running(self) -> dict[str, int]:
        """Return the calls of this process by deployment."""
        return {member.deployment.name: leased.in_flight for _, member, leased in self._members}

    async def exchange(self) -> None:
        """Exchange once. Raises nothing; a store that is away is noted."""
        asked_at = self._clock.monotonic()
        self._last, self._urgent = asked_at, False
        waiting = self._demand()
        needs = [self._need(alias, member, leased, waiting, asked_at) for alias, member, leased in self._members]
        try:
            answers = await self._store.exchange(self._worker, needs)
        except Unavailable as error:
            self._lost(str(error))
            return
        now = self._clock.monotonic()
        if self.failing is not None:
            log.warning("the limits answer again")
            self.failing = None
        for (_, member, leased), need, granted in zip(self._members, needs, answers, strict=True):
            leased.apply(granted, need, asked_at, now)
            member.health.hear(granted, now)
        self._changed()

    @staticmethod
    def _need(
        alias: str,
        member: Member,
        leased: LeasedPermits,
        waiting: Mapping[str, tuple[int, Units, Units]],
        now: float,
    ) -> Need:
        calls, units, first = waiting.get(alias, (0, Units(), Units()))
        if member.health.cooling_until(now) is not None:
            calls, units, first = 0, Units(), Units()
        if calls > MOST_AHEAD:
            share = MOST_AHEAD / calls
            calls, units = MOST_AHEAD, Units(MOST_AHEAD, int(units.input * share), int(units.output * share))
        need = leased.need(member.deployment.name, calls, units, first, now)
        cool_for, probe = member.health.tell(now)
        if cool_for > 0 or probe is not None:
            return replace(need, cool_for=cool_for, probe=probe)
        return need

    def _lost(self, why: str) -> None:
        if self.failing is None:
            log.warning("the limits cannot be exchanged: %s", why)
        self.failing = why
        for _, member, leased in self._members:
            leased.lost()
            member.health.alone_again()
        self._changed()

    def _pause(self) -> float:
        """Seconds until the next exchange; 0 for at once."""
        now = self._clock.monotonic()
        if self.failing is not None:
            return max(0.0, self._last + RETRY_SECONDS - now)
        if self._urgent:
            return 0.0
        due = self._last + HEARTBEAT_SECONDS
        for _, _, leased in self._members:
            if leased.short:
                due = min(due, leased.ask_at)
        return max(0.0, due - now)

    async def _run(self) -> None:
        while True:
            pause = self._pause()
            if pause > 0:
                self._wake.clear()
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                else:
                    continue
            await self.exchange()
