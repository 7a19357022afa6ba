"""The delay relay: sends parked requests back to their topic when they are due, and commits after that is acknowledged.

A delay topic holds one fixed delay, so the records of a partition come due in order and only its first ones are held.
The relay polls the log's port and is no FastStream subscriber: a handler there could only wait with a whole batch in
hand, and would repeat the part of it that was sent already when it is stopped or its partitions go elsewhere.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from broker.clock import Clock
from broker.envelope import headers as h
from broker.envelope.dead import dead_letter
from broker.errors import Unavailable
from broker.metrics import Metrics
from broker.ports import LogConsumer, LogProducer, SendFailure
from broker.records import Commit, OutRecord, Partition, Record
from broker.topics import DELAYS_S, TopicNames

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.25
"""Longest wait in one poll: a record that turns up is due no sooner than its topic's delay, so it is never late."""
POLL_RECORDS: Final = 500
HELD_RECORDS: Final = 1_000
HELD_BYTES: Final = 4 << 20
"""What is held of one partition; beyond that it is not asked for, and the rest waits in the log."""
COMMIT_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0
REVOKE_SECONDS: Final = 10.0
"""How long a rebalance waits for what is being sent; well within the rebalance time-out of 20 s."""
NOT_PARKED: Final = "not_parked"
NOT_REPUBLISHED: Final = "not_republished"
"""Codes of dead letters: a record that no worker parked, and one the log takes no more."""
CLOCK_SKEW_MS: Final = 5_000
STUCK_SECONDS: Final = 30.0
"""A loop that did not turn for this long is not ready."""


@dataclass(slots=True)
class _Parked:
    """A record and when it is due, unix milliseconds."""

    record: Record
    due: int
    sent: bool = False


@dataclass(slots=True)
class _Queue:
    """What is held of one partition, oldest first. `taken` and `done` are the offsets last held and last sent."""

    parked: deque[_Parked] = field(default_factory=deque)
    size: int = 0
    taken: int = -1
    done: int = -1

    @property
    def room(self) -> bool:
        return len(self.parked) < HELD_RECORDS and self.size < HELD_BYTES

    def take(self, record: Record, due: int) -> None:
        """Hold a record, unless it is held or was sent before."""
        if record.offset > self.taken:
            self.taken = record.offset
            self.size += len(record.value or b"")
            self.parked.append(_Parked(record, due))

    def drop_sent(self) -> bool:
        """Let go of the sent records at the head; whether there were any."""
        before = self.done
        while self.parked and self.parked[0].sent:
            record = self.parked.popleft().record
            self.size -= len(record.value or b"")
            self.done = record.offset
        return self.done != before

    def forget(self) -> None:
        """Drop what is not sent: it will be read again."""
        self.parked.clear()
        self.size = 0
        self.taken = self.done


class Relay:
    """Runs until stopped; several share the partitions. It is its consumer's assignment listener."""

    def __init__(
        self, *, consumer: LogConsumer, producer: LogProducer, names: TopicNames, clock: Clock, metrics: Metrics
    ) -> None:
        self._consumer = consumer
        self._producer = producer
        self._names = names
        self._clock = clock
        self._metrics = metrics
        self._delays = {names.delay(suffix): (suffix, seconds * 1000) for suffix, seconds in DELAYS_S.items()}
        self._queues: dict[Partition, _Queue] = {}
        self._dirty: set[Partition] = set()
        self._sending = asyncio.Lock()
        self._stopping = False
        self._turned = clock.monotonic()
        self._problem: str | None = None
        metrics.loop_age_seconds.set_function(self._age)

    async def start(self) -> None:
        """Connect and join the group. Raises `Unavailable`, having closed again."""
        try:
            await self._producer.start()
            await self._consumer.start(list(self._delays), self)
        except Unavailable:
            await self.close()
            raise

    async def run(self) -> None:
        """Run until stopped. No error of the log ends it: it is asked again, and nothing is committed meanwhile."""
        while not self._stopping:
            self._turned = self._clock.monotonic()
            try:
                await self.turn()
            except Unavailable as error:
                log.warning("the log is away, trying again: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    def stop(self) -> None:
        """Ask the loop to end once what is being sent is acknowledged and committed."""
        self._stopping = True

    async def close(self) -> None:
        """Leave the group and close."""
        await self._consumer.stop()
        await self._producer.stop()

    @property
    def turned(self) -> float:
        """When its loop last turned, monotonic seconds."""
        return self._turned

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether parked requests are being sent on, and what keeps them from it."""
        age = self._age()
        problems: dict[str, Any] = {}
        if self._problem is not None:
            problems["log"] = self._problem
        if age > STUCK_SECONDS:
            problems["loop"] = f"did not turn for {age:.0f} s"
        return not problems, {"held": sum(len(queue.parked) for queue in self._queues.values()), "problems": problems}

    def _age(self) -> float:
        return self._clock.monotonic() - self._turned

    async def on_revoked(self, partitions: frozenset[Partition]) -> None:
        """Wait for what is being sent to be committed, so that the next owner does not send it again."""
        del partitions
        try:
            async with asyncio.timeout(REVOKE_SECONDS), self._sending:
                pass
        except TimeoutError:
            log.warning("partitions go while their records are being sent; those may be sent twice")

    async def on_assigned(self, partitions: frozenset[Partition]) -> None:
        """Keep the place in kept partitions, and read what was held of them again."""
        self._queues = {partition: self._queues.get(partition) or _Queue() for partition in partitions}
        self._dirty &= partitions
        for queue in self._queues.values():
            queue.forget()

    async def turn(self) -> None:
        """Read what has room, send what is due, commit what was sent. Raises `Unavailable`."""
        try:
            await self._read()
            async with self._sending:
                await self._send_due()
                await self._commit()
        except Unavailable as error:
            self._problem = str(error)
            raise
        self._problem = None

    async def _read(self) -> None:
        asked = [partition for partition, queue in self._queues.items() if queue.room]
        for record in await self._consumer.poll(asked, max_records=POLL_RECORDS, timeout=self._patience()):
            queue = self._queues.get(Partition(record.topic, record.partition))
            if queue is not None:
                queue.take(record, self._due(record))

    def _patience(self) -> float:
        """Seconds until the earliest head is due, at most `POLL_SECONDS`."""
        now = self._clock.now_ms()
        heads = [queue.parked[0].due - now for queue in self._queues.values() if queue.parked]
        return min(POLL_SECONDS, max(0, min(heads, default=1000)) / 1000)

    def _due(self, record: Record) -> int:
        """When the header says, but not beyond the topic's delay: a foreign record must not hold up the rest."""
        latest = min(record.timestamp, self._clock.now_ms()) + self._delays[record.topic][1]
        text = (dict(record.headers).get(h.NOT_BEFORE) or b"").decode(errors="replace")
        stated = int(text) if text.isascii() and text.isdigit() else latest
        # The parking worker's clock and the log's may differ: a little more than the delay is believed.
        return stated if stated <= latest + CLOCK_SKEW_MS else latest

    async def _send_due(self) -> None:
        now = self._clock.now_ms()
        due = [parked for queue in self._queues.values() for parked in queue.parked if parked.due <= now]
        due = sorted((parked for parked in due if not parked.sent), key=lambda parked: parked.due)[:POLL_RECORDS]
        if not due:
            return
        records = [self._again(parked.record, now) for parked in due]
        failures = await self._producer.send_all(records)
        refused: list[tuple[_Parked, SendFailure]] = []
        for parked, record, failure in zip(due, records, failures, strict=True):
            if failure is None:
                self._sent(parked, record, now)
            else:
                self._metrics.relay_failures_total.inc()
                refused.append((parked, failure))
        for parked, failure in refused:
            if failure.permanent:
                parked.sent = await self._bury(parked.record, f"the log refuses it: {failure.reason}", now)
        waiting = [failure.reason for parked, failure in refused if not parked.sent]
        for partition, queue in self._queues.items():
            if queue.drop_sent():
                self._dirty.add(partition)
        if waiting:
            await self._commit()
            raise Unavailable(f"{len(waiting)} parked requests are not taken: {waiting[0]}")

    def _sent(self, parked: _Parked, record: OutRecord, now: int) -> None:
        parked.sent = True
        if record.topic == self._names.dead:
            self._metrics.dead_letters_total.labels(NOT_PARKED).inc()
            return
        delay = self._delays[parked.record.topic][0]
        self._metrics.relay_republished_total.labels(delay).inc()
        self._metrics.relay_late_seconds.labels(delay).observe(max(0, now - parked.due) / 1000)

    def _again(self, record: Record, now: int) -> OutRecord:
        """Write the record for its target; the signature covers the rest, so nothing else changes."""
        target = (dict(record.headers).get(h.TARGET) or b"").decode(errors="replace")
        if self._names.parse(target) is None:
            reason = f"header {h.TARGET} names no request topic: {target}"
            return dead_letter(record, reason, NOT_PARKED, now, self._names.dead)
        headers = [(name, value) for name, value in record.headers if name != h.TARGET]
        return OutRecord(target, record.value, record.key, headers)

    async def _bury(self, record: Record, reason: str, now: int) -> bool:
        """Dead-letter what the log will never take, its value left out where that is what is too large."""
        for keep_value in (True, False):
            letter = dead_letter(record, reason, NOT_REPUBLISHED, now, self._names.dead, keep_value=keep_value)
            failure: Sequence[SendFailure | None] = await self._producer.send_all([letter])
            if failure[0] is None:
                self._metrics.dead_letters_total.labels(NOT_REPUBLISHED).inc()
                return True
        return False

    async def _commit(self) -> None:
        commits = {partition: Commit(self._queues[partition].done + 1) for partition in self._dirty}
        if not commits:
            return
        try:
            await self._consumer.commit(commits, timeout=COMMIT_SECONDS)
        except Unavailable as error:
            # They stay dirty and are committed with the next ones; a crash before that sends them twice.
            self._metrics.commit_failures_total.inc()
            log.warning("commit failed, trying again with the next: %s", error)
            return
        self._metrics.commits_total.inc()
        self._dirty.clear()
