"""A reply partition of the client's own, one task that reads it, and who waits for what. Knows only the port."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from broker.client.errors import ReplyTimeout
from broker.client.outbox import Backoff
from broker.envelope import Reply, read_reply
from broker.errors import BrokerError, InvalidRequest, Unavailable
from broker.ports import LogReader
from broker.records import Partition, Record

POLL_S: Final = 0.2
"""Longest wait for a record, hence how long closing may take: a poll must not be cancelled (delivery.md)."""

MAX_RECORDS: Final = 1000

log = logging.getLogger(__name__)

Result = Reply | BrokerError
Bounds = Mapping[Partition, tuple[int, int]]


@dataclass(slots=True, eq=False)
class Waiting:
    """One request whose final reply is awaited; `finish` is called once, with the reply or with why there is none."""

    request_id: str
    finish: Callable[[Result], None] = field(repr=False)
    chunk: Callable[[Reply], None] | None = field(default=None, repr=False)
    timeout: float | None = None
    """Seconds from now until `ReplyTimeout`; None waits for ever."""
    trouble: str = ""
    """Why it could not be sent so far."""
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)


class Mailbox:
    """Reads replies from one partition, drawn at random, and hands each to the request that waits for it.

    Replies to others who drew the same partition, and second copies, find nobody waiting and are dropped.
    """

    def __init__(self, open_reader: Callable[[], LogReader], topic: str, backoff: Backoff) -> None:
        self._open_reader = open_reader
        self._topic = topic
        self._backoff = backoff
        self._waiting: dict[bytes, Waiting] = {}
        self._reader: LogReader | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._place = Partition(topic, -1)
        self._position = 0

    @property
    def partition(self) -> int:
        """Partition the replies come to; -1 until `open` has returned."""
        return self._place.partition

    @property
    def waiting(self) -> int:
        """Requests whose final reply has not come."""
        return len(self._waiting)

    async def open(self) -> None:
        """Draw a partition, stand at its end, start reading: only then can no reply be missed. Raises `Unavailable`."""
        self._reader = await self._connect(self._draw)
        self._task = asyncio.create_task(self._read(), name="broker-client-replies")

    async def exists(self, topic: str) -> bool:
        """Whether the log has `topic`. Raises `Unavailable`."""
        if self._reader is None:
            raise Unavailable("Kafka cannot be reached just now")
        return bool(await self._reader.bounds(topic))

    def expect(self, waiting: Waiting) -> None:
        """Wait for a reply; must be called before the request is sent. Raises `InvalidRequest` for an id in use."""
        if self._task is None or self._closing.is_set():
            raise Unavailable("the client is not open")
        key = waiting.request_id.encode()
        if key in self._waiting:
            raise InvalidRequest(f"request id {waiting.request_id} is already waited for", param="request-id")
        if waiting.timeout is not None:
            waiting.timer = asyncio.get_running_loop().call_later(waiting.timeout, self._expire, waiting)
        self._waiting[key] = waiting

    def expects(self, waiting: Waiting) -> bool:
        """Whether this very request is still waited for."""
        return self._waiting.get(waiting.request_id.encode()) is waiting

    def forget(self, waiting: Waiting) -> None:
        """Stop waiting; a reply that comes later is dropped. Harmless when the reply has come."""
        if self.expects(waiting):
            del self._waiting[waiting.request_id.encode()]
        if waiting.timer is not None:
            waiting.timer.cancel()

    def settle(self, waiting: Waiting, result: Result) -> None:
        """End one wait with `result`, unless it has ended."""
        if self.expects(waiting):
            self.forget(waiting)
            waiting.finish(result)

    async def close(self) -> None:
        """Stop reading; everyone who still waits is told `Unavailable`."""
        self._closing.set()
        if self._task is not None:
            await self._task
        if self._reader is not None:
            await self._reader.stop()
        for waiting in list(self._waiting.values()):
            self.settle(waiting, Unavailable(f"the client was closed before {waiting.request_id} was answered"))

    def _expire(self, waiting: Waiting) -> None:
        self.settle(waiting, ReplyTimeout(waiting.request_id, waiting.timeout or 0.0, why=waiting.trouble))

    async def _read(self) -> None:
        tries = 0
        while not self._closing.is_set():
            try:
                if self._reader is None:
                    self._reader = await self._connect(self._resume)
                for record in await self._reader.poll(max_records=MAX_RECORDS, timeout=POLL_S):
                    self._take(record)
                tries = 0
            except Exception as error:  # noqa: BLE001 - a reader that died silently would leave every caller waiting
                tries += 1
                log.warning("replies cannot be read, trying again in %.1f s: %s", self._backoff.wait(tries), error)
                await self._drop_reader()
                await self._pause(self._backoff.wait(tries))

    def _take(self, record: Record) -> None:
        self._position = record.offset + 1
        # The key is the request id (wire.md): what is not ours is dropped before its headers are read.
        if record.key is not None and record.key not in self._waiting:
            return
        reply = read_reply(record)
        waiting = None if reply is None else self._waiting.get(reply.request_id.encode())
        if reply is None or waiting is None:
            return
        if reply.final:
            self.settle(waiting, reply)
        elif waiting.chunk is not None:
            waiting.chunk(reply)

    async def _connect(self, place: Callable[[Bounds], None]) -> LogReader:
        reader = self._open_reader()
        await reader.start()
        try:
            place(await reader.bounds(self._topic))
            await reader.assign({self._place: self._position})
        except BaseException:
            await reader.stop()
            raise
        return reader

    def _draw(self, bounds: Bounds) -> None:
        if not bounds:
            raise Unavailable(f"topic {self._topic} does not exist: run `broker topics apply`")
        self._place = random.choice(list(bounds))  # noqa: S311 - spreads clients, guards nothing
        self._position = bounds[self._place][1]

    def _resume(self, bounds: Bounds) -> None:
        if self._place not in bounds:
            raise Unavailable(f"partition {self._place.partition} of {self._topic} is not there")
        first, end = bounds[self._place]
        # A log that is shorter than it was has been replaced: everything in it is news.
        self._position = first if self._position > end else max(first, self._position)

    async def _drop_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is None:
            return
        try:
            await reader.stop()
        except Exception as error:  # noqa: BLE001 - it is broken already; a new one replaces it
            log.debug("a broken reader did not stop cleanly: %s", error)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return
