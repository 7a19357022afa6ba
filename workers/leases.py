"""The leases of one worker process: claimed for a batch, begun before a call, renewed, given up.

Calls to the journal are gathered: while one is under way the next one collects. Nothing here raises for a journal that
is away; what a work does then is its alias's choice.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

from broker.delivery.identity import journal_key
from broker.errors import Unavailable
from broker.metrics import Metrics
from broker.ports import Claim, Claimed, Journal, Lease
from workers.work import Work

log = logging.getLogger(__name__)

T = TypeVar("T")

RENEWALS: Final = 3
"""Renewals in the life of a lease: two may fail before it is lost."""
RETRY_SECONDS: Final = 0.5
BATCH: Final = 1024
"""Leases renewed in one round trip: a few milliseconds of Redis, which serves others meanwhile."""
BEGIN_TOGETHER: Final = 0.010
"""Seconds the first of a batch of calls waits for others to begin with it, where there are others: under load a batch
is then twenty calls rather than two, a seventh less CPU a request. A call takes some hundred times as long."""
FEW: Final = 2
"""Calls in a batch up to which the next one does not wait for company."""
FLUSH_SECONDS: Final = 5.0
"""At most, when the process stops: leases that are not given up expire by themselves."""


class Leases:
    """For one event loop. `lost` is told of works whose lease another worker took while they waited here."""

    def __init__(
        self, *, journal: Journal, metrics: Metrics, lease_seconds: float, lost: Callable[[Work], None]
    ) -> None:
        self._journal = journal
        self._metrics = metrics
        self._every = lease_seconds / RENEWALS
        self._lost = lost
        self._held: dict[str, Work] = {}
        self._beginning: list[tuple[Work, asyncio.Future[bool]]] = []
        self._released: list[Lease] = []
        self._published: list[Lease] = []
        self._together = 0
        self._begin_task: asyncio.Task[None] | None = None
        self._note_task: asyncio.Task[None] | None = None
        self._renew_task: asyncio.Task[None] | None = None
        self._renew_now = asyncio.Event()
        self.failing: str | None = None
        """What the journal said when it last did not answer; None while it does."""

    @property
    def held(self) -> int:
        """Leases that are ours."""
        return len(self._held)

    def start(self) -> None:
        """Begin to renew."""
        self._renew_task = asyncio.get_running_loop().create_task(self._renew(), name="leases")

    async def stop(self) -> None:
        """Give up what is left, within a bound, and stop."""
        for work in list(self._held.values()):
            self.release(work)
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                while (self._released or self._published) and self.failing is None:
                    await self._note()
        except TimeoutError:
            log.warning("leases could not be given up; they expire by themselves")
        tasks = [task for task in (self._renew_task, self._begin_task, self._note_task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def claim(self, works: Sequence[Work]) -> Sequence[Claimed]:
        """Claim in one round trip; the owned ones get their lease. Raises `Unavailable`."""
        claims = [_claim(work) for work in works]
        found = await self._ask(self._journal.acquire(claims))
        for work, claim, claimed in zip(works, claims, found, strict=True):
            if claimed.standing == "owned":
                work.lease = Lease(claim.key, claim.token, claim.hop, claimed.fence)
                self._held[work.token] = work
        return found

    async def begin(self, work: Work) -> bool | None:
        """Note that the call is about to be made; False: the lease is lost. None: the journal does not answer."""
        if work.lease is None or work.begun:
            return True
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._beginning.append((work, future))
        if self._begin_task is None or self._begin_task.done():
            self._begin_task = asyncio.get_running_loop().create_task(self._begin())
        try:
            work.begun = await future
        except Unavailable:
            return None
        if not work.begun:
            self._held.pop(work.token, None)
        return work.begun

    def ended(self, work: Work) -> None:
        """Stop renewing: the outcome is stored."""
        self._held.pop(work.token, None)

    def published(self, lease: Lease) -> None:
        """Note, soon, that everything of a completed lease is in the log."""
        self._published.append(lease)
        self._soon()

    def release(self, work: Work) -> None:
        """Give a lease up, soon: the work ends here without an outcome."""
        self._held.pop(work.token, None)
        if work.lease is not None:
            self._released.append(work.lease)
            work.lease = None
            self._soon()

    async def _begin(self) -> None:
        while self._beginning:
            if self._together > FEW:
                await asyncio.sleep(BEGIN_TOGETHER)
            batch, self._beginning = self._beginning, []
            self._together = len(batch)
            leases = [work.lease for work, _ in batch if work.lease is not None]
            try:
                verdicts = await self._ask(self._journal.begin(leases))
            except Unavailable as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            verdict = iter(verdicts)
            for work, future in batch:
                good = next(verdict) if work.lease is not None else False
                if not future.done():
                    future.set_result(good)

    def _soon(self) -> None:
        if self._note_task is None or self._note_task.done():
            self._note_task = asyncio.get_running_loop().create_task(self._keep_noting())

    async def _keep_noting(self) -> None:
        while self._published or self._released:
            await asyncio.sleep(self._gather)
            await self._note()

    @property
    def _gather(self) -> float:
        """Nobody waits for these notes: few large batches cost least."""
        return 0.02 if self.failing is None else RETRY_SECONDS

    async def _note(self) -> None:
        published, self._published = self._published, []
        released, self._released = self._released, []
        try:
            if published:
                await self._ask(self._journal.published(published))
                published = []
            if released:
                await self._ask(self._journal.release(released))
                released = []
        except Unavailable:
            # Only later: an outcome that is not marked is published once more, a lease that is not given up expires.
            self._published = (published + self._published)[-BATCH * 64 :]
            self._released = (released + self._released)[-BATCH * 64 :]
        except asyncio.CancelledError:
            self._published, self._released = published + self._published, released + self._released
            raise

    async def _renew(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._every if self.failing is None else RETRY_SECONDS):
                    await self._renew_now.wait()
            except TimeoutError:
                pass
            self._renew_now.clear()
            works = list(self._held.values())
            try:
                if not works and self.failing is not None:
                    await self._ask(self._journal.ping())
                for start in range(0, len(works), BATCH):
                    await self._renew_some(works[start : start + BATCH])
            except Unavailable as error:
                log.debug("leases cannot be renewed now: %s", error)

    async def _renew_some(self, works: Iterable[Work]) -> None:
        leased = [(work, work.lease) for work in works if work.lease is not None]
        verdicts = await self._ask(self._journal.renew([lease for _, lease in leased]))
        for (work, lease), ours in zip(leased, verdicts, strict=True):
            # What has ended meanwhile holds none any more; whether it came first its completion tells.
            if not ours and not work.ended and work.lease is lease and self._held.pop(work.token, None) is not None:
                # A running call goes on: it is paid for. Its outcome tells whether it came first.
                log.warning("request %s: its lease went to another worker", work.job.request_id)
                self._metrics.leases_lost_total.inc()
                self._lost(work)

    async def _ask(self, answer: Awaitable[T]) -> T:
        try:
            result = await answer
        except Unavailable as error:
            self._metrics.journal_failures_total.inc()
            if self.failing is None:
                log.warning("the journal does not answer: %s", error)
            self.failing = str(error)
            raise
        if self.failing is not None:
            log.warning("the journal answers again")
            self.failing = None
            self._renew_now.set()  # it may have lost what it knew; leases are taken again before anybody else asks
        return result


def _claim(work: Work) -> Claim:
    job, tenant = work.job, work.caller.tenant
    return Claim(
        key=journal_key(job.request_id, tenant, job.idempotency_key, job.stamp),
        token=work.token,
        hop=job.hop,
        place=work.place,
        request_id=job.request_id,
        tenant=tenant,
    )
