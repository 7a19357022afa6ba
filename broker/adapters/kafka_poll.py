"""Polls an aiokafka consumer: fairly, cheaply, past records it cannot parse, and without ever outstaying a time-out."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import RecordTooLargeError

from broker.adapters.kafka_errors import CLIENT_ERRORS, is_unreadable, unavailable
from broker.adapters.kafka_rescue import Rescue
from broker.adapters.record_batches import StoredRecord
from broker.errors import Unavailable
from broker.ports import Record

_log = logging.getLogger(__name__)

_SLACK: Final = 0.05
"""Seconds that a wait may run over before it is left behind: more than a busy loop needs to end it by itself."""

_PARTITIONS_A_POLL: Final = 8
"""Among how many partitions one poll is shared out; asking one costs 4 µs, so that 24 would cost half a record each."""


class Poller:
    """The reading half of a consumer; one task at a time calls `poll`."""

    def __init__(self, consumer: AIOKafkaConsumer, rescue: Rescue, *, address: object, settled: bool) -> None:
        self._consumer = consumer
        self._rescue = rescue
        self._address = address
        self._turn = 0
        self._names: dict[tuple[str, int], TopicPartition] = {}
        self._rescued: dict[TopicPartition, deque[StoredRecord]] = {}
        self._error: Unavailable | None = None
        self._waiting: asyncio.Task[dict[TopicPartition, list[StoredRecord]]] | None = None
        self._waited_for: list[TopicPartition] = []
        self._settled = asyncio.Event()
        if settled:
            self._settled.set()

    def unsettle(self) -> None:
        """Hand out nothing until `settle`: during a rebalance `getmany` ignores its time-out."""
        self._settled.clear()
        self._rescued.clear()

    def settle(self) -> None:
        """Go on with the assignment the consumer has now."""
        self._settled.set()

    async def poll(
        self, partitions: Iterable[tuple[str, int]], *, max_records: int, timeout: float
    ) -> Sequence[Record]:
        """Return up to `max_records` records of `partitions`, waiting at most `timeout` seconds for the first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        out: list[StoredRecord] = []
        while True:
            named: list[TopicPartition] = []
            if self._waiting is not None:
                # Left behind by an earlier poll: its record comes before what is buffered now.
                await self._end_wait(deadline - loop.time(), out)
            if self._waiting is None and self._settled.is_set() and (named := self._ours(partitions)):
                await self._collect(named, max_records, out)
            if out:
                return _without_null_headers(out)
            if (error := self._error) is not None:
                self._error = None
                raise error
            remaining = deadline - loop.time()
            if remaining <= 0:
                return out
            if named:
                await self._wait(named, remaining, out)
            elif self._settled.is_set():
                await asyncio.sleep(remaining)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._settled.wait(), remaining)

    def forget(self, tp: TopicPartition) -> None:
        """Drop what was taken of a partition and not handed out: it is about to be read from elsewhere."""
        self._rescued.pop(tp, None)
        task = self._waiting
        if task is not None and task.done() and not task.cancelled() and task.exception() is None:
            task.result().pop(tp, None)

    async def stop(self) -> None:
        """Let go of a wait that is still running; to be called after the consumer has been stopped."""
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.wait({self._waiting})
            if not self._waiting.cancelled():
                self._waiting.exception()  # retrieved, so that the loop does not report it
            self._waiting = None

    def _ours(self, partitions: Iterable[tuple[str, int]]) -> list[TopicPartition]:
        assigned = self._consumer.assignment()
        names = self._names
        found = []
        for partition in partitions:
            if partition in assigned:
                tp = names.get(partition)
                if tp is None:
                    tp = names[partition] = TopicPartition(*partition)
                found.append(tp)
        return found

    async def _collect(self, named: list[TopicPartition], max_records: int, out: list[StoredRecord]) -> None:
        """Fill `out` from what is buffered, equal shares first; each poll begins where the one before stopped."""
        begin = self._turn % len(named)
        order = named[begin:] + named[:begin]
        share = -(-max_records // min(len(order), _PARTITIONS_A_POLL))
        visited = 0
        while order:
            more = []
            for tp in order:
                limit = min(share, max_records - len(out))
                if limit <= 0 or not self._settled.is_set():
                    break
                before = len(out)
                await self._take(tp, limit, out)
                visited += 1
                if len(out) - before == limit:
                    more.append(tp)
            order = more if len(out) < max_records else []
        self._turn = begin + visited

    async def _take(self, tp: TopicPartition, limit: int, out: list[StoredRecord]) -> None:
        if self._rescued and (kept := self._rescued.get(tp)):
            out.extend(kept.popleft() for _ in range(min(limit, len(kept))))
            return
        try:
            # Asked one by one: asked for several at once it fills up from the first, and when a later one cannot be
            # parsed it drops what it has already taken from the others.
            found = await self._consumer.getmany(tp, timeout_ms=0, max_records=limit)
        except Exception as exc:  # noqa: BLE001 - a decompressor may raise anything; all of it is handled or kept
            await self._cope(exc, [tp])
            return
        if found:
            out.extend(found[tp])

    async def _wait(self, named: list[TopicPartition], remaining: float, out: list[StoredRecord]) -> None:
        # One record only, because of the dropping described in `_take`.
        call = self._consumer.getmany(*named, timeout_ms=remaining * 1000, max_records=1)
        self._waiting = asyncio.get_running_loop().create_task(call)
        self._waited_for = named
        await self._end_wait(remaining, out)

    async def _end_wait(self, remaining: float, out: list[StoredRecord]) -> None:
        """Wait for the first record. A wait that a rebalance holds up is left running for the next poll."""
        if self._waiting is None:
            return
        done, _ = await asyncio.wait({self._waiting}, timeout=max(0.0, remaining) + _SLACK)
        if not done:
            return
        task, self._waiting = self._waiting, None
        try:
            found = task.result()
        except Exception as exc:  # noqa: BLE001 - as in `_take`
            await self._cope(exc, self._waited_for)
            return
        assigned = self._consumer.assignment()
        for tp, records in found.items():
            if tp in assigned:
                out.extend(records)

    async def _cope(self, exc: Exception, candidates: list[TopicPartition]) -> None:
        if not is_unreadable(exc):
            self._error = unavailable(exc, "poll", self._address)
            return
        for tp in candidates:
            back = 1 if isinstance(exc, RecordTooLargeError) and len(candidates) == 1 else 0
            try:
                await self._read_past(tp, back)
            except CLIENT_ERRORS as error:
                # The record stays where it is, and so does the position: the next poll comes here again.
                _log.warning("cannot look at unreadable records of %s-%s: %s", tp.topic, tp.partition, error)
                await asyncio.sleep(_SLACK)

    async def _read_past(self, tp: TopicPartition, back: int) -> None:
        consumer = self._consumer
        position = await consumer.position(tp)
        parsed = await self._rescue.read(tp, max(0, position - back))
        moved = tp not in consumer.assignment() or not self._settled.is_set()
        if moved or await consumer.position(tp) != position or parsed.next_offset <= position:
            return
        _log.warning("read past unreadable records of %s-%s from offset %s", tp.topic, tp.partition, position)
        consumer.seek(tp, parsed.next_offset)
        if parsed.records:
            self._rescued.setdefault(tp, deque()).extend(parsed.records)


def _without_null_headers(records: list[StoredRecord]) -> list[StoredRecord]:
    """Turn null header values, which Kafka allows, into empty ones."""
    for record in records:
        for _, value in record.headers:
            if value is None:
                record.headers = tuple((name, content or b"") for name, content in record.headers)
                break
    return records
