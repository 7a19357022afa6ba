"""The outbox: outcome stored, then reply and usage acknowledged by all replicas, then the offset finished. In batches.

The order is delivery.md's: nothing is committed before it can be found again. While the journal or the log is away the
same batch is tried again, so a stalled part shows in `failing` and as offsets that do not move, never as loss.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from broker.envelope import Job, encode_reply
from broker.errors import ReplyUndeliverable, RequestError, Unavailable
from broker.metrics import Metrics
from broker.ports import Journal, LogProducer, SendFailure
from broker.records import OutRecord
from broker.topics import TopicNames
from workers.leases import Leases
from workers.stored import ending, make_orphan
from workers.work import Outgoing

log = logging.getLogger(__name__)

BATCH: Final = 256
CONCURRENT: Final = 2
"""Batches under way at once: one is stored while the one before is acknowledged; more only makes them smaller."""
LINGER: Final = 0.012
"""Seconds a batch waits for company under load: far below a call, and a quarter less CPU a request than 0.002."""
LINGER_ALONE: Final = 0.001
FEW: Final = 2
"""Ends in a batch up to which the next one waits `LINGER_ALONE` only."""
HELD_UP: Final = 0.5
"""Seconds after which a batch that the log has not acknowledged no longer keeps the next one from being stored: whoever
dies beside a log that is away leaves outcomes behind, and no calls to be made again."""
RETRY_FIRST: Final = 0.05
RETRY_MOST: Final = 2.0


_Pending = tuple[OutRecord, Outgoing, str]
"""A record, the end it belongs to, and what it is: reply, again, dead, usage, notice."""


class Outbox:
    """Takes decided ends and makes them durable.

    `done` is called for each work once its offset may be committed. `stranded` turns a request that the log will not
    take for another topic into an end with a reply; `letter` writes a dead letter.
    """

    def __init__(  # noqa: PLR0913 - the parts that an end passes through
        self,
        *,
        journal: Journal,
        leases: Leases,
        producer: LogProducer,
        names: TopicNames,
        metrics: Metrics,
        done: Callable[[Outgoing], None],
        stranded: Callable[[Outgoing, str], Outgoing],
        letter: Callable[[Job, RequestError], OutRecord],
    ) -> None:
        self._journal = journal
        self._leases = leases
        self._producer = producer
        self._names = names
        self._metrics = metrics
        self._done = done
        self._stranded = stranded
        self._letter = letter
        self._queue: deque[Outgoing] = deque()
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(CONCURRENT)
        self._flushes: dict[asyncio.Task[None], int] = {}
        """Batches under way, and how many ends each has."""
        self._holding: set[asyncio.Task[None]] = set()
        """Those that hold a slot."""
        self._turn = 0
        self._runner: asyncio.Task[None] | None = None
        self.failing: dict[str, str] = {}
        """Part that does not answer now → what it said."""

    @property
    def backlog(self) -> int:
        """Ends that are waiting to be taken up, or are held up under way."""
        held_up = sum(count for task, count in self._flushes.items() if task not in self._holding)
        return len(self._queue) + held_up

    def start(self) -> None:
        """Begin to flush."""
        self._runner = asyncio.get_running_loop().create_task(self._run(), name="outbox")

    def put(self, outgoing: Outgoing) -> None:
        """Take one end; returns at once."""
        self._queue.append(outgoing)
        if len(self._queue) == 1:
            self._wake.set()

    async def drain(self) -> None:
        """Return when everything taken so far is durable."""
        while self._queue or self._flushes:
            self._wake.set()
            if self._flushes:
                await asyncio.wait(self._flushes)
            else:
                await asyncio.sleep(LINGER)

    async def stop(self) -> None:
        """Stop at once; what is not durable yet is not committed either."""
        tasks = [task for task in (self._runner, *self._flushes) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        together = 0
        while True:
            await self._wake.wait()
            await asyncio.sleep(LINGER if together > FEW else LINGER_ALONE)
            await self._slots.acquire()
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            together = len(batch)
            if not self._queue:
                self._wake.clear()
            if not batch:
                self._slots.release()
                continue
            task = loop.create_task(self._flush(batch))
            self._flushes[task] = len(batch)
            self._holding.add(task)
            task.add_done_callback(self._flushed)

    def _let_next(self, task: asyncio.Task[None]) -> None:
        """Give the slot of a batch back, once."""
        if task in self._holding:
            self._holding.discard(task)
            self._slots.release()

    def _flushed(self, task: asyncio.Task[None]) -> None:
        del self._flushes[task]
        self._let_next(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Offsets of this batch stay open, so the records are served again; the stack is what we need to know.
            log.error("a batch of the outbox failed", exc_info=error)

    async def _flush(self, batch: list[Outgoing]) -> None:
        await self._store([outgoing for outgoing in batch if outgoing.replayed is None])
        task = asyncio.current_task()
        held_up = asyncio.get_running_loop().call_later(HELD_UP, self._let_next, task) if task is not None else None
        try:
            await self._send_on(batch)
        finally:
            if held_up is not None:
                held_up.cancel()

    async def _send_on(self, batch: list[Outgoing]) -> None:
        """Publish what is stored and finish it; what the log refuses to send on ends with a reply instead."""
        while batch:
            refused = await self._publish(batch)
            for outgoing in batch:
                if outgoing not in refused:
                    self._finish(outgoing)
            batch = [self._stranded(outgoing, reason) for outgoing, reason in refused.items()]
            await self._store(batch)

    def _finish(self, outgoing: Outgoing) -> None:
        lease = outgoing.replayed or (None if outgoing.orphan else outgoing.work.lease)
        if lease is not None:
            self._leases.published(lease)
        self._done(outgoing)

    async def _store(self, batch: list[Outgoing]) -> None:
        """Store what is to be published; what came second is made an orphan. Returns when the journal has it all.

        Where it does not answer, aliases that fail open go on without.
        """
        delay = RETRY_FIRST
        while batch:
            try:
                verdicts = await self._journal.complete([ending(outgoing) for outgoing in batch])
            except Unavailable as error:
                self._metrics.journal_failures_total.inc()
                self._failed("journal", str(error))
                batch = [outgoing for outgoing in batch if not outgoing.work.alias.fail_open]
                if batch:
                    await asyncio.sleep(delay)
                delay = min(RETRY_MOST, delay * 2)
                continue
            self._worked("journal")
            for outgoing, first in zip(batch, verdicts, strict=True):
                self._leases.ended(outgoing.work)
                if not first:
                    self._metrics.orphans_total.inc()
                    make_orphan(outgoing)
            return

    async def _publish(self, batch: Sequence[Outgoing]) -> dict[Outgoing, str]:
        """Write until all is acknowledged; return those whose republished request the log refuses, and why."""
        pending: list[_Pending] = []
        for outgoing in batch:
            pending += self._records(outgoing)
        refused: dict[Outgoing, str] = {}
        delay = RETRY_FIRST
        while pending:
            failures = await self._send([record for record, _, _ in pending])
            pending = self._left(pending, failures, refused)
            if pending:
                await asyncio.sleep(delay)
                delay = min(RETRY_MOST, delay * 2)
        return refused

    def _records(self, outgoing: Outgoing) -> list[_Pending]:
        pending: list[_Pending] = []
        if outgoing.body is not None:
            reply = encode_reply(outgoing.work.job, outgoing.body, outgoing.headers)
            if reply is not None:
                pending.append((reply, outgoing, "reply"))
        if outgoing.again is not None:
            pending.append((outgoing.again, outgoing, "again"))
        if outgoing.dead is not None:
            pending.append((outgoing.dead, outgoing, "dead"))
        pending += [(OutRecord(self._names.usage, event), outgoing, "usage") for event in outgoing.usage]
        return pending

    async def _send(self, records: list[OutRecord]) -> Sequence[SendFailure | None]:
        try:
            return await self._producer.send_all(records)
        except Unavailable as error:
            return [SendFailure(str(error), permanent=False)] * len(records)

    def _left(
        self, pending: list[_Pending], failures: Sequence[SendFailure | None], refused: dict[Outgoing, str]
    ) -> list[_Pending]:
        left: list[_Pending] = []
        for sent, failure in zip(pending, failures, strict=True):
            if failure is None:
                continue
            self._metrics.producer_failures_total.labels(str(failure.permanent).lower()).inc()
            if not failure.permanent:
                self._failed("log", failure.reason)
                left.append(sent)
                continue
            record, outgoing, kind = sent
            log.error("the log refuses a %s record for %s: %s", kind, record.topic, failure.reason)
            if kind == "again":
                refused[outgoing] = failure.reason
            elif kind == "reply":
                left += self._undeliverable(record, outgoing, failure.reason)
            elif kind == "dead" and record.value is not None:
                # Too large beside its reason: `dead-origin` tells where the original stands.
                left.append((OutRecord(record.topic, None, record.key, record.headers), outgoing, kind))
        if not left:
            self._worked("log")
        return left

    def _undeliverable(self, record: OutRecord, outgoing: Outgoing, reason: str) -> list[_Pending]:
        job = outgoing.work.job
        error = ReplyUndeliverable(f"the reply cannot be written to {record.topic}: {reason}")
        left: list[_Pending] = [(self._letter(job, error), outgoing, "dead")]
        small = encode_reply(job, error.encode(), {**outgoing.headers, "status": str(error.status)})
        if small is not None and record.value != small.value:
            # Not tried twice: where this one is refused as well, the letter and the stored answer are what is left.
            left.append((small, outgoing, "notice"))
        return left

    def _failed(self, part: str, why: str) -> None:
        if part not in self.failing:
            log.warning("%s does not answer, trying again until it does: %s", part, why)
        self.failing[part] = why

    def _worked(self, part: str) -> None:
        if self.failing.pop(part, None) is not None:
            log.warning("%s answers again", part)
