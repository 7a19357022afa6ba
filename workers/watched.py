"""A consumer that can be exchanged for a new one while everybody goes on using it, and that knows what it did of late.

Trackers and running calls survive the exchange as they survive a rebalance. Imports the log's port.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from broker.clock import Clock
from broker.errors import Unavailable
from broker.ports import AssignmentListener, LogConsumer
from broker.records import Commit, Partition, Record

log = logging.getLogger(__name__)

GAP_SECONDS: Final = 1.0
"""The most that one pause between two polls counts as waiting: a process that was stopped has not asked meanwhile."""
STOP_SECONDS: Final = 30.0
"""How long a consumer that is given up may take to leave its group."""


class _Heard:
    """Passes the rebalances of one consumer on, until that consumer is given up."""

    def __init__(self, owner: "WatchedConsumer", listener: AssignmentListener) -> None:
        self._owner = owner
        self._listener = listener
        self.silent = False

    async def on_revoked(self, partitions: frozenset[Partition]) -> None:
        if not self.silent:
            self._owner.joining()
            await self._listener.on_revoked(partitions)

    async def on_assigned(self, partitions: frozenset[Partition]) -> None:
        if not self.silent:
            self._owner.joined()
            await self._listener.on_assigned(partitions)


class WatchedConsumer:
    """The port `LogConsumer` over whichever consumer is in use; `make` makes one that has not started.

    For one event loop. Only the watchdog calls `give_up` and `start_again`.
    """

    def __init__(self, make: Callable[[], LogConsumer], clock: Clock) -> None:
        self._make = make
        self._clock = clock
        self._inner: LogConsumer | None = make()
        self._topics: list[str] = []
        self._listener: AssignmentListener | None = None
        self._heard: _Heard | None = None
        self._polling: asyncio.Task[object] | None = None
        self._cut: asyncio.Task[object] | None = None
        """The task whose poll `give_up` cancelled, until that poll has come back."""
        self._asked: Sequence[Partition] = ()
        self._asked_at = 0.0
        self._hunger: dict[Partition, float] = {}
        self._positions: dict[Partition, int] = {}
        self.joining_since: float | None = None
        """When it began to wait for an assignment, in the clock's monotonic seconds; None while it has one."""

    @property
    def absent(self) -> bool:
        """Whether the consumer was given up and no other has started yet."""
        return self._inner is None

    def hungry(self, seconds: float) -> dict[Partition, int]:
        """Partitions asked for so long without a record, each with the offset that comes next."""
        return {p: self._positions.get(p, 0) for p, waited in self._hunger.items() if waited >= seconds}

    def fed(self, partitions: Sequence[Partition]) -> None:
        """Note that there is nothing to read in these partitions: their waiting starts anew."""
        for partition in partitions:
            self._hunger.pop(partition, None)

    def joining(self) -> None:
        """Note that an assignment has to come."""
        if self.joining_since is None:
            self.joining_since = self._clock.monotonic()

    def joined(self) -> None:
        """Note that the assignment came, empty as it may be."""
        self.joining_since = None

    def patience(self) -> None:
        """Start every waiting anew: nothing could be expected while the log was away."""
        self._hunger.clear()
        if self.joining_since is not None:
            self.joining_since = self._clock.monotonic()

    async def give_up(self) -> None:
        """Commit what can be, as at a rebalance, and stop the consumer; a poll that hangs in it comes back empty."""
        old, heard = self._inner, self._heard
        if old is None:
            return
        owned = _owned(old)
        if heard is not None:
            await heard.on_revoked(owned)
            heard.silent = True
        self._inner = None
        self._reset()
        if self._polling is not None:
            self._cut = self._polling
            self._cut.cancel()  # a consumer that is kept is never cancelled in a poll; this one is not kept
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await old.stop()
        except TimeoutError:
            log.warning("the consumer that was given up did not stop within %.0f s; its session will end", STOP_SECONDS)

    async def start_again(self) -> None:
        """Join with a new consumer. Raises `Unavailable`."""
        await self._begin(self._make())

    async def start(self, topics: Sequence[str], listener: AssignmentListener | None = None) -> None:
        """Join the group and subscribe. Raises `Unavailable`."""
        self._topics, self._listener = list(topics), listener
        await self._begin(self._started())

    def subscribe(self, topics: Sequence[str]) -> None:
        """Change the subscription, of the consumer that comes as well."""
        self._topics = list(topics)
        if self._inner is not None:
            self._expect_assignment()
            self._inner.subscribe(topics)

    def assignment(self) -> frozenset[Partition]:
        """Return the partitions that are ours now; none without a consumer."""
        return frozenset() if self._inner is None else self._inner.assignment()

    async def poll(self, partitions: Sequence[Partition], *, max_records: int, timeout: float) -> Sequence[Record]:
        """Return records as the port says; nothing without a consumer, and of one that is given up meanwhile."""
        inner = self._inner
        if inner is None:
            await asyncio.sleep(timeout)
            return ()
        self._count(partitions)
        self._polling = asyncio.current_task()
        try:
            records = await inner.poll(partitions, max_records=max_records, timeout=timeout)
        except asyncio.CancelledError:
            if not self._came_back():
                raise
            return ()
        except Unavailable:
            if inner is self._inner:
                raise
            records = ()
        finally:
            self._polling = None
        if inner is not self._inner:
            self._came_back()
            return ()  # the next consumer reads them again
        self._note(records)
        return records

    def seek(self, partition: Partition, offset: int) -> None:
        """Read `partition` from `offset` on."""
        self._started().seek(partition, offset)
        self._positions[partition] = offset

    async def commit(self, commits: Mapping[Partition, Commit], *, timeout: float) -> None:
        """Commit. Raises `Unavailable`, without a consumer too."""
        await self._started().commit(commits, timeout=timeout)

    async def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, Commit]:
        """Return what is committed; where a new assignment is read from, so waiting starts anew there."""
        found = await self._started().committed(partitions)
        for partition in partitions:
            self._hunger.pop(partition, None)
            self._positions[partition] = found[partition].offset if partition in found else 0
        return found

    async def lag(self) -> Mapping[Partition, int]:
        """Records behind the end of each assigned partition; none without a consumer."""
        return {} if self._inner is None else await self._inner.lag()

    async def stop(self) -> None:
        """Leave the group."""
        if self._inner is not None:
            await self._inner.stop()

    async def _begin(self, consumer: LogConsumer) -> None:
        self._reset()
        heard = None if self._listener is None else _Heard(self, self._listener)
        self._expect_assignment()
        try:
            await consumer.start(self._topics, heard)
        except Unavailable:
            if heard is not None:
                heard.silent = True
            self.joining_since = None
            raise
        self._inner, self._heard = consumer, heard

    def _expect_assignment(self) -> None:
        if self._topics and self._listener is not None:
            self.joining()
        else:
            self.joined()  # nobody is told of an assignment, or there will be none

    def _reset(self) -> None:
        self._asked = ()
        self._hunger.clear()
        self._positions.clear()
        self.joining_since = None

    def _came_back(self) -> bool:
        """Take the cancellation of `give_up` back; False: there was none, or another one goes on."""
        task, self._cut = self._cut, None
        return task is not None and task.uncancel() == 0

    def _count(self, partitions: Sequence[Partition]) -> None:
        """Add the time since the last poll to what was asked for then."""
        now = self._clock.monotonic()
        waited = min(now - self._asked_at, GAP_SECONDS)
        hunger = self._hunger
        for partition in self._asked:
            hunger[partition] = hunger.get(partition, 0.0) + waited
        self._asked, self._asked_at = partitions, now

    def _note(self, records: Sequence[Record]) -> None:
        if not records:
            return
        last = records[0]
        for record in records:
            if record.partition != last.partition or record.topic != last.topic:
                self._feed(last)
            last = record
        self._feed(last)

    def _feed(self, record: Record) -> None:
        partition = Partition(record.topic, record.partition)
        self._positions[partition] = record.offset + 1
        self._hunger[partition] = 0.0

    def _started(self) -> LogConsumer:
        if self._inner is None:
            raise Unavailable("the consumer is being replaced")
        return self._inner


def _owned(consumer: LogConsumer) -> frozenset[Partition]:
    try:
        return consumer.assignment()
    except Unavailable:
        return frozenset()
