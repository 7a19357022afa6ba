"""The usage sink: events of the usage topic into the ledger's table, each once, none lost. May import ports and core.

It stands on the port `LogConsumer` and not on a FastStream batch subscriber, which cannot keep what the ledger page
asks: its loop hands over whatever one fetch brought, so that a quiet topic becomes a row an INSERT, and holding rows
back means not acknowledging what it believes done; it swallows what a handler or its header decoding raises, with the
position already moved on, so that the next commit skips the batch; and one batch of records it cannot decompress stops
it for good.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from broker.clock import Clock
from broker.envelope.dead import dead_letter
from broker.errors import Unavailable
from broker.metrics import Metrics
from broker.ports import Commit, Ledger, LedgerRow, LogConsumer, LogProducer, Partition, Record
from broker.topics import TopicNames
from workers.sinks.events import read_event

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.25
"""Longest wait for records: how soon a new assignment, or being asked to stop, is noticed."""
FIRST_RETRY_SECONDS: Final = 0.25
LAST_RETRY_SECONDS: Final = 15.0
COMMIT_SECONDS: Final = 10.0
REVOKE_SECONDS: Final = 10.0
"""How long a rebalance waits for the INSERT that is under way, well within the 20 s a member has."""
DRAIN_SECONDS: Final = 30.0
"""How long the sink tries, once it is asked to stop, to write what it has read; the rest is read again."""
STUCK_SECONDS: Final = 60.0

UNREADABLE: Final = "unreadable_usage_event"
REFUSED: Final = "refused_by_ledger"


class _Abandoned(Exception):
    """The batch in hand is not to be written by us any more; nothing of it was committed."""


class Sink:
    """Runs until stopped; several share the partitions. It is its consumer's assignment listener."""

    def __init__(  # noqa: PLR0913 - what it reads, where it writes, how much at once
        self,
        *,
        consumer: LogConsumer,
        producer: LogProducer,
        ledger: Ledger,
        names: TopicNames,
        clock: Clock,
        metrics: Metrics,
        batch_rows: int,
        batch_seconds: float,
    ) -> None:
        self._consumer = consumer
        self._producer = producer
        self._ledger = ledger
        self._names = names
        self._clock = clock
        self._metrics = metrics
        self._batch_rows = batch_rows
        self._batch_seconds = batch_seconds
        self._generation = 0
        self._unplaced: set[Partition] = set()
        self._next: dict[Partition, int] = {}
        self._batch: list[Record] = []
        self._since = 0.0
        self._writing = asyncio.Lock()
        self._under_way: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._give_up = float("inf")
        self._turned = clock.monotonic()
        self._problem: str | None = None

    async def start(self) -> None:
        """Connect and join the group. Raises `Unavailable`, having closed again."""
        try:
            await self._ledger.start()
            await self._producer.start()
            await self._consumer.start([self._names.usage], self)
        except Unavailable:
            await self.close()
            raise

    async def run(self) -> None:
        """Run until stopped, then write what was read. No error of a part ends it: nothing is committed meanwhile."""
        try:
            await self._run()
            await self._flush()
            await self._settle()
        finally:
            if self._under_way is not None:
                self._under_way.cancel()

    async def _run(self) -> None:
        delay = FIRST_RETRY_SECONDS
        while not self._stopping.is_set():
            self._turned = self._clock.monotonic()
            try:
                await self._turn()
            except Unavailable as error:
                self._note(error)
                await self._pause(delay)
                delay = min(delay * 2, LAST_RETRY_SECONDS)
            else:
                delay = FIRST_RETRY_SECONDS

    def stop(self) -> None:
        """Ask it to end once what it has read is written, or `DRAIN_SECONDS` have passed."""
        self._give_up = self._clock.monotonic() + DRAIN_SECONDS
        self._stopping.set()

    async def close(self) -> None:
        """Leave the group and close."""
        await self._consumer.stop()
        await self._producer.stop()
        await self._ledger.stop()

    @property
    def turned(self) -> float:
        """When its loop last turned, or last tried to write what it has, monotonic seconds."""
        return self._turned

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether events are being written, and what keeps them from it."""
        problems: dict[str, Any] = {}
        if self._problem is not None:
            problems["sink"] = self._problem
        age = self._clock.monotonic() - self._turned
        if age > STUCK_SECONDS:
            problems["loop"] = f"did not turn for {age:.0f} s"
        return not problems, {"partitions": len(self._next), "waiting_rows": len(self._batch), "problems": problems}

    async def on_revoked(self, partitions: frozenset[Partition]) -> None:
        """Let the INSERT under way end, so that the next owner finds its rows in the table."""
        del partitions
        self._take_over(frozenset())
        try:
            async with asyncio.timeout(REVOKE_SECONDS), self._writing:
                pass
        except TimeoutError:
            log.warning("partitions go while their rows are being written; some may be written twice and count once")

    async def on_assigned(self, partitions: frozenset[Partition]) -> None:
        """Drop what is in hand: all of it is read again from where the table stands."""
        self._take_over(partitions)

    def _take_over(self, partitions: frozenset[Partition]) -> None:
        self._generation += 1
        self._unplaced = set(partitions)
        self._next = {}
        self._batch = []

    async def _turn(self) -> None:
        """Read what there is; write the batch when it is full or due. Raises `Unavailable`."""
        if self._unplaced:
            await self._place()
        room = self._batch_rows - len(self._batch)
        patience = min(POLL_SECONDS, self._patience())
        records = await self._consumer.poll(list(self._next), max_records=room, timeout=patience)
        self._take(records)
        if self._batch and (len(self._batch) >= self._batch_rows or self._patience() <= 0):
            await self._flush()
        if self._under_way is None or self._under_way.done():
            await self._settle()
            self._problem = None
        self._metrics.sink_lag.set(sum((await self._consumer.lag()).values()) + len(self._batch))

    async def _place(self) -> None:
        """Go, in each new partition, to where the table says; to the beginning where it says nothing."""
        await self._settle()
        generation = self._generation
        offsets = await self._ledger.next_offsets()
        if generation != self._generation:
            return
        for partition in self._unplaced:
            offset = offsets.get(partition.partition, 0)
            self._consumer.seek(partition, offset)
            self._next[partition] = offset
        log.info("reading %s", ", ".join(f"{p.partition} from {at}" for p, at in sorted(self._next.items())))
        self._unplaced = set()

    def _take(self, records: Sequence[Record]) -> None:
        if records and not self._batch:
            self._since = self._clock.monotonic()
        for record in records:
            partition = Partition(record.topic, record.partition)
            if partition in self._next:
                self._next[partition] = record.offset + 1
                self._batch.append(record)

    def _patience(self) -> float:
        """Seconds that the batch may still wait for more rows."""
        if not self._batch:
            return self._batch_seconds
        return max(0.0, self._since + self._batch_seconds - self._clock.monotonic())

    async def _flush(self) -> None:
        """Have the batch in hand written, after the one before it, while the next is read."""
        await self._settle()
        if self._batch:
            records, self._batch = self._batch, []
            self._under_way = asyncio.create_task(self._write_down(records, self._generation))

    async def _settle(self) -> None:
        """Wait for the batch that is being written; what went wrong with it beyond repair is raised here."""
        task, self._under_way = self._under_way, None
        if task is not None:
            await task

    async def _write_down(self, records: Sequence[Record], generation: int) -> None:
        """Write a batch, whatever it takes; then commit it for those who watch the lag."""
        async with self._writing:
            if generation != self._generation:
                return
            try:
                await self._write(records, generation)
            except _Abandoned:
                # A later batch must not be written either: it would tell the table to resume behind this one.
                self._batch = []
                return
            if generation == self._generation:
                await self._commit(records)

    async def _write(self, records: Sequence[Record], generation: int) -> None:
        """Bury what is no event first: the table tells where to resume as soon as it has the rows."""
        rows: list[LedgerRow] = []
        bad: list[tuple[Record, str]] = []
        for record in records:
            row = read_event(record)
            if isinstance(row, str):
                bad.append((record, row))
            else:
                rows.append(row)
        await self._bury(bad, UNREADABLE, generation)
        refused = await self._insert(rows, generation) if rows else []
        if refused:
            where = {(record.partition, record.offset): record for record in records}
            await self._bury(
                [(where[row.partition, row.offset], reason) for row, reason in refused], REFUSED, generation
            )

    async def _insert(self, rows: Sequence[LedgerRow], generation: int) -> Sequence[tuple[LedgerRow, str]]:
        """Write the identical rows until the table has taken them."""
        delay = FIRST_RETRY_SECONDS
        while True:
            begun = self._clock.monotonic()
            try:
                refused = await self._ledger.insert(rows)
            except Unavailable as error:
                self._metrics.sink_failures_total.inc()
                delay = await self._again(error, delay, generation)
                continue
            self._metrics.sink_batch_seconds.observe(self._clock.monotonic() - begun)
            self._metrics.sink_rows_total.inc(len(rows) - len(refused))
            self._metrics.sink_refused_total.inc(len(refused))
            return refused

    async def _bury(self, letters: Sequence[tuple[Record, str]], code: str, generation: int) -> None:
        """Write dead letters until the log has them; one that it refuses as too large goes without its value."""
        left, keep_value, delay = list(letters), True, FIRST_RETRY_SECONDS
        while left:
            now = self._clock.now_ms()
            sent = await self._producer.send_all(
                [dead_letter(r, why, code, now, self._names.dead, keep_value=keep_value) for r, why in left]
            )
            failed = [(letter, failure) for letter, failure in zip(left, sent, strict=True) if failure is not None]
            self._metrics.dead_letters_total.labels(self._metrics.reason(code)).inc(len(left) - len(failed))
            left = [letter for letter, failure in failed if not (failure.permanent and not keep_value)]
            for (record, why), failure in failed:
                if failure.permanent and not keep_value:
                    log.error("usage event %s-%d is lost: %s; %s", record.topic, record.offset, why, failure.reason)
            if not left:
                return
            if all(failure.permanent for _, failure in failed):
                keep_value = False
            else:
                delay = await self._again(Unavailable(failed[0][1].reason), delay, generation)

    async def _again(self, error: Unavailable, delay: float, generation: int) -> float:
        """Wait before the same is tried again and return the next wait; raises `_Abandoned` when it is not to be."""
        self._note(error)
        await self._pause(delay)
        self._turned = self._clock.monotonic()
        if generation != self._generation or self._clock.monotonic() > self._give_up:
            raise _Abandoned
        return min(delay * 2, LAST_RETRY_SECONDS)

    async def _pause(self, seconds: float) -> None:
        """Wait; once the sink is stopping only briefly, as little time is left."""
        if self._stopping.is_set():
            await asyncio.sleep(FIRST_RETRY_SECONDS)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _note(self, error: Unavailable) -> None:
        if self._problem is None:
            log.warning("cannot write usage events, trying again: %s", error)
        self._problem = str(error)

    async def _commit(self, records: Sequence[Record]) -> None:
        """Commit for lag monitors only: the sink itself resumes from the table."""
        done: dict[Partition, Commit] = {}
        for record in records:
            partition = Partition(record.topic, record.partition)
            if partition not in done or done[partition].offset <= record.offset:
                done[partition] = Commit(record.offset + 1)
        try:
            await self._consumer.commit(done, timeout=COMMIT_SECONDS)
        except Unavailable as error:
            log.warning("the group's offsets were not committed, which only lag monitors read: %s", error)
