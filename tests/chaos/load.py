"""The client of a chaos run: keeps so many requests open, a new one for each that was answered, and reads all replies.

Closed loop, so that what a fault holds up is seen as requests that stay open. A write that the log does not confirm is
sent again with the same id, as a client has to.
"""

import asyncio
import hashlib
import logging
import time
from collections import Counter
from typing import Final

import orjson

from broker.adapters.kafka import KafkaProducer, KafkaReader
from broker.config import Kafka
from broker.envelope import NewRequest, encode_request, read_reply
from broker.errors import Unavailable
from broker.topics import TopicNames

log = logging.getLogger(__name__)

SEND_RECORDS: Final = 250
FRAIL_EVERY: Final = 50
"""Every so many requests one goes to the alias that only ever falls back."""
RETRY_S: Final = 0.5


class Load:
    """`in_flight` requests at any time, named `<phase>-<number>`; for one event loop."""

    def __init__(self, kafka: Kafka, *, alias: str, frail: str, in_flight: int, run: str) -> None:
        self._kafka = kafka
        self._names = TopicNames(kafka.topic_prefix)
        self._aliases = alias, frail
        self._in_flight = in_flight
        self._run = run
        self._producer = KafkaProducer(kafka)
        self._reader = KafkaReader(kafka)
        self._phase = "start"
        self._number = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._moved = asyncio.Event()
        self.sent: dict[str, float] = {}
        """Requests the log has confirmed and that are not answered, and when (monotonic seconds)."""
        self.accepted: Counter[str] = Counter()
        """By phase; `statuses` of the final replies."""
        self.statuses: Counter[int] = Counter()
        self.replies: Counter[str] = Counter()
        """Final replies on the topic, by phase: more than were accepted where one was published twice."""
        self._bodies: dict[str, bytes] = {}
        self.different: set[str] = set()
        """Requests with two final replies that say different things."""
        self.last_answer = time.monotonic()

    async def start(self) -> None:
        """Begin to send and to read."""
        await self._producer.start()
        await self._reader.start()
        bounds = await self._reader.bounds(self._names.replies)
        await self._reader.assign({partition: end for partition, (_, end) in bounds.items()})
        self._tasks = [asyncio.create_task(self._send(), name="send"), asyncio.create_task(self._read(), name="read")]

    async def stop(self) -> None:
        """Stop both."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reader.stop()
        await self._producer.stop()

    def phase(self, name: str) -> None:
        """Name the requests sent from now on after `name`."""
        self._phase = f"{self._run}-{name}"

    def name(self, phase: str) -> str:
        """What the ids of a phase start with."""
        return f"{self._run}-{phase}-"

    def pause(self) -> None:
        """Send nothing any more."""
        self._in_flight = 0

    def open_of(self, before: float) -> int:
        """Count the requests confirmed before `before` (monotonic seconds) that are not answered."""
        return sum(at <= before for at in self.sent.values())

    def failed(self) -> str | None:
        """Why the client itself ended; None while it runs."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                return f"{task.get_name()}: {task.exception()!r}"
        return None

    async def _send(self) -> None:
        while True:
            free = self._in_flight - len(self.sent)
            if free <= 0:
                self._moved.clear()
                await self._moved.wait()
                continue
            pending = [self._request() for _ in range(min(free, SEND_RECORDS))]
            phase = self._phase
            while pending:
                pending = await self._write(pending, phase)

    def _request(self) -> NewRequest:
        self._number += 1
        alias = self._aliases[self._number % FRAIL_EVERY == 0]
        body = {"model": alias, "messages": [{"role": "user", "content": f"Question {self._number}. " * 20}]}
        return NewRequest(
            alias=alias,
            body=orjson.dumps(body),
            request_id=f"{self._phase}-{self._number}",
            reply_to=self._names.replies,
            reply_partition=0,
        )

    async def _write(self, requests: list[NewRequest], phase: str) -> list[NewRequest]:
        """Write, and return what the log did not confirm."""
        records = [encode_request(request, self._names) for request in requests]
        again: list[NewRequest] = []
        try:
            failures = await self._producer.send_all(records)
        except Unavailable as error:
            log.info("writing requests: %s", error)
            again = requests
        else:
            for request, failure in zip(requests, failures, strict=True):
                if failure is not None:
                    again.append(request)
                else:
                    self._confirmed(str(request.request_id), phase)
        if again:
            await asyncio.sleep(RETRY_S)
        return again

    def _confirmed(self, request_id: str, phase: str) -> None:
        self.accepted[phase] += 1
        if request_id not in self._bodies:  # else the answer was faster than the log's confirmation
            self.sent[request_id] = time.monotonic()

    async def _read(self) -> None:
        while True:
            try:
                records = await self._reader.poll(max_records=2_000, timeout=0.5)
            except Unavailable as error:
                log.info("reading replies: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            for record in records:
                reply = read_reply(record)
                if reply is not None and reply.final and reply.request_id.startswith(self._run):
                    self._answered(reply.request_id, reply.value, reply.status)
            if records:
                self._moved.set()

    def _answered(self, request_id: str, value: bytes, status: int) -> None:
        self.replies[request_id.rpartition("-")[0]] += 1
        digest = hashlib.blake2b(value, digest_size=16).digest()
        known = self._bodies.setdefault(request_id, digest)
        if known != digest:
            self.different.add(request_id)
        if self.sent.pop(request_id, None) is not None:
            self.statuses[status] += 1
        self.last_answer = time.monotonic()
