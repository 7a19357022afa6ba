"""The request loop: poll → open → admit → hand to the dispatcher. The only code that polls requests.

It never waits for a request: what cannot start yet stays in the dispatcher's buffer, and a partition whose buffer or
window is full is simply not asked for (pausing it would throw its prefetched records away).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from broker.clock import Clock
from broker.delivery.tracker import PartitionTracker
from broker.errors import Unavailable
from broker.ports import LogConsumer
from broker.records import Partition, Record
from broker.topics import Lane, TopicNames
from workers.admission import Admission
from workers.committer import Committer
from workers.dispatcher import Dispatcher
from workers.outbox import Outbox
from workers.work import Work

log = logging.getLogger(__name__)

POLL_RECORDS: Final = 256
POLL_SECONDS: Final = 0.05
"""How long a poll waits for a first record; a partition that gets room meanwhile waits at most this long."""
SWEEP_SECONDS: Final = 0.25
BACKLOG_LIMIT: Final = 4_000
"""Ends waiting for the journal or the log above which no new record is read: memory stays flat while a part is away."""
RETRY_SECONDS: Final = 1.0

STANDING_LIMIT: Final = 4_000
"""Works that wait for another owner's outcome, or for the journal, above which no new record is read."""

Serve = Callable[[Record, str, Lane, PartitionTracker], Work]


class RequestLoop:
    """Reads the request topics of one process until it is told to stop."""

    def __init__(  # noqa: PLR0913 - the parts the loop joins
        self,
        *,
        consumer: LogConsumer,
        committer: Committer,
        dispatcher: Dispatcher,
        admission: Admission,
        outbox: Outbox,
        names: TopicNames,
        clock: Clock,
        serve: Serve,
        fails_open: Callable[[str], bool],
    ) -> None:
        """`fails_open` tells of an alias whether it is served while the journal is away."""
        self._consumer = consumer
        self._committer = committer
        self._dispatcher = dispatcher
        self._admission = admission
        self._outbox = outbox
        self._names = names
        self._clock = clock
        self._serve = serve
        self._fails_open = fails_open
        self._stopping = False
        self._swept = 0.0
        self._lanes: dict[str, tuple[str, Lane] | None] = {}
        self.turned = clock.monotonic()
        """When the loop last turned; what the watchdog and `loop_age_seconds` look at."""

    def stop(self) -> None:
        """Ask the loop to end after the poll that is under way."""
        self._stopping = True

    async def run(self) -> None:
        """Run until stopped. No error ends it: an unreachable log is asked again."""
        while not self._stopping:
            self.turned = self._clock.monotonic()
            if self.turned - self._swept >= SWEEP_SECONDS:
                self._swept = self.turned
                self._dispatcher.sweep()
            try:
                await self._turn()
            except Unavailable as error:
                log.warning("the log cannot be read, trying again: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _turn(self) -> None:
        if self._congested():
            await asyncio.sleep(POLL_SECONDS)
            return
        if not self._committer.assigned and (assignment := self._consumer.assignment()):
            # The listener could not reach the broker during the rebalance.
            await self._committer.adopt(assignment)
        eligible = self._eligible()
        if not eligible and self._committer.assigned:
            await self._dispatcher.wait_for_room(POLL_SECONDS)
            return
        records = await self._consumer.poll(eligible, max_records=POLL_RECORDS, timeout=POLL_SECONDS)
        works = [work for record in records if (work := self._open(record)) is not None]
        if works:
            await self._admission.take(works)
        # A poll that finds buffered records does not yield, and calls must get their turn.
        await asyncio.sleep(0)

    def _congested(self) -> bool:
        """Whether nothing new may be read: memory stays flat while a part is away."""
        return (
            "log" in self._outbox.failing
            or self._outbox.backlog > BACKLOG_LIMIT
            or self._admission.standing > STANDING_LIMIT
        )

    def _eligible(self) -> list[Partition]:
        closed = self._admission.failing is not None or "journal" in self._outbox.failing
        eligible: list[Partition] = []
        trackers = self._committer.trackers
        rooms: dict[str, bool] = {}
        for partition in self._committer.assigned:
            topic = partition.topic
            room = rooms.get(topic)
            if room is None:
                lane = self._lane(topic)
                room = lane is not None and self._dispatcher.room(*lane)
                if closed and lane is not None:
                    room = room and self._fails_open(lane[0])
                rooms[topic] = room
            if room and trackers[partition].room >= POLL_RECORDS:
                eligible.append(partition)
        return eligible

    def _lane(self, topic: str) -> tuple[str, Lane] | None:
        if topic not in self._lanes:
            self._lanes[topic] = self._names.parse(topic)
        return self._lanes[topic]

    def _open(self, record: Record) -> Work | None:
        lane = self._lane(record.topic)
        tracker = self._committer.trackers.get(Partition(record.topic, record.partition))
        if lane is None or tracker is None or not tracker.receive(record.offset):
            return None  # not ours any more, or done or running since before a rebalance
        return self._serve(record, *lane, tracker)
