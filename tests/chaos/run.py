"""One chaos run: each fault in turn, then mixed ones until the time is up; the load never stops in between."""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from broker.errors import Unavailable
from tests.chaos.faults import FAULTS, Fault, mixed
from tests.chaos.load import Load
from tests.chaos.reconcile import Result, billed, judge
from tests.chaos.stand import ALIAS, FRAIL, Stand

log = logging.getLogger(__name__)

ANSWERED_S: Final = 150.0
"""How long an accepted request may stay open after a fault before it counts as lost."""
BILLED_S: Final = 90.0
LOOK_S: Final = 0.1

Say = Callable[[str], None]


class Run:
    """`in_flight` requests at any time on `stand`."""

    def __init__(self, stand: Stand, *, in_flight: int, seed: int, say: Say) -> None:
        self._stand = stand
        self._rng = random.Random(seed)  # noqa: S311 - the order of faults, no secret
        self._say = say
        self._in_flight = in_flight
        self.load = Load(stand.kafka, alias=ALIAS, frail=FRAIL, in_flight=in_flight, run=uuid.uuid4().hex[:6])
        self.results: list[Result] = []
        self.peak = 0
        self._named = 0.0
        """Since when requests carry the name of the phase that comes or is under way."""
        self._count = 0

    async def go(self, names: list[str], minutes: float) -> None:
        """Run the faults named, then mixed ones while fewer than `minutes` have passed."""
        end = time.monotonic() + minutes * 60
        self.load.phase("0")
        await self.load.start()
        try:
            await self._full()
            self._next()
            for name in names:
                await self._phase(name, FAULTS[name])
            number = 0
            while names == list(FAULTS) and (number == 0 or time.monotonic() < end - 100):
                number += 1
                meant, fault = mixed(self._rng)
                self._say(f"mixed {number}: {meant}")
                await self._phase(f"mixed {number}", fault)
            await self._last()
        finally:
            await self.load.stop()

    async def _full(self) -> None:
        """Wait until the load is as high as it is to be."""
        deadline = time.monotonic() + ANSWERED_S
        while int((await self._stand.paid())["peak"]) < self._in_flight * 0.9:
            self._check()
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"the provider never saw {self._in_flight} calls at once: {await self._stand.paid()}"
                )
            await asyncio.sleep(LOOK_S)

    async def _phase(self, name: str, fault: Fault) -> None:
        phase = str(self._count)
        result = Result(name)
        # What is open when the fault comes has to be this phase's, so that it is judged with it.
        await self._answered(self._named)
        began = time.monotonic()
        result.at_most = await fault(self._stand, self._rng)
        ended = time.monotonic()
        self._next()
        result.unanswered = await self._answered(ended)
        result.recovery = time.monotonic() - ended
        await self._settle(result, phase)
        self.results.append(result)
        outcome = "kept" if result.good else "BROKEN: " + "; ".join(result.wrong())
        self._say(
            f"{name}: {ended - began:.0f} s, {result.requests:,} requests, {result.again} calls twice of at most "
            f"{result.at_most}, {result.recovery:.1f} s to recover, {outcome}"
        )

    def _next(self) -> None:
        """Name what is sent from now on after the phase that comes: it is open when its fault comes."""
        self._count += 1
        self.load.phase(str(self._count))
        self._named = time.monotonic()

    async def _answered(self, before: float) -> int:
        deadline = time.monotonic() + ANSWERED_S
        while (count := self.load.open_of(before)) and time.monotonic() < deadline:
            self._check()
            await asyncio.sleep(LOOK_S)
        return count

    async def _settle(self, result: Result, phase: str) -> None:
        """Wait for the ledger's rows, then compare."""
        prefix = self.load.name(phase)
        name = prefix.removesuffix("-")
        result.requests = self.load.accepted[name]
        deadline = time.monotonic() + BILLED_S
        while time.monotonic() < deadline:
            try:
                if await billed(self._stand.ledger, prefix) >= result.requests:
                    break
            except Unavailable as error:
                log.info("asking the ledger: %s", error)
            await asyncio.sleep(LOOK_S * 5)
        result.different = sum(request_id.startswith(prefix) for request_id in self.load.different)
        paid = await self._stand.paid()
        self.peak = max(self.peak, int(paid["peak"]))
        await judge(result, self._stand.ledger, prefix, paid["again"])

    async def _last(self) -> None:
        """Let everything be answered, and compare what was sent before the first fault and after the last as well."""
        self.load.pause()
        open_still = await self._answered(time.monotonic() + 1)
        between = Result("before and after", unanswered=open_still)
        for phase in ("0", str(self._count)):
            part = Result(phase)
            await self._settle(part, phase)
            for field in ("requests", "unbilled", "different", "again", "hidden", "waste", "bills"):
                setattr(between, field, getattr(between, field) + getattr(part, field))
            between.notes += part.notes
        self.results.append(between)

    def _check(self) -> None:
        if (why := self.load.failed()) is not None:
            raise RuntimeError(f"the client of the run ended: {why}")


def folder_of(path: Path | None) -> Path:
    """Return an empty folder for the run's data and logs."""
    base = path or Path(".broker/chaos")
    found = base / time.strftime("run-%Y%m%d-%H%M%S")
    found.mkdir(parents=True)
    return found.resolve()
