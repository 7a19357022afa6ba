"""Trackers of the assigned partitions, and the commits made from them. Nothing is committed that is not ours now."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from broker.clock import Clock
from broker.delivery.tracker import PartitionTracker, Position
from broker.errors import Unavailable
from broker.metrics import Metrics
from broker.ports import LogConsumer
from broker.records import Commit, Partition

log = logging.getLogger(__name__)

COMMIT_TIMEOUT: Final = 10.0
"""Seconds; aiokafka itself would retry a commit for ever (delivery.md)."""


OnLost = Callable[[frozenset[Partition]], None]


class Committer:
    """Keeps one tracker a partition, over rebalances, and commits what changed every `interval` seconds.

    `on_lost` is told of partitions that another member has now, or had meanwhile.
    """

    def __init__(
        self, *, consumer: LogConsumer, clock: Clock, metrics: Metrics, interval: float, on_lost: OnLost
    ) -> None:
        self._consumer = consumer
        self._clock = clock
        self._metrics = metrics
        self._interval = interval
        self._on_lost = on_lost
        self._trackers: dict[Partition, PartitionTracker] = {}
        self._assigned: frozenset[Partition] = frozenset()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.last_success = clock.monotonic()

    @property
    def trackers(self) -> dict[Partition, PartitionTracker]:
        """Trackers of the assigned partitions."""
        return self._trackers

    @property
    def assigned(self) -> frozenset[Partition]:
        """Partitions that are ours and whose tracker agrees with the broker: the only ones to poll."""
        return self._assigned

    def start(self) -> None:
        """Begin to commit in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="committer")

    async def stop(self) -> None:
        """Stop the background task and commit once more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.commit(self._assigned)

    async def on_revoked(self, partitions: frozenset[Partition]) -> None:
        """Commit what is contiguous; running calls are neither waited for nor cancelled (delivery.md)."""
        await self.commit(partitions)
        self._assigned = frozenset()

    async def on_assigned(self, partitions: frozenset[Partition]) -> None:
        """Adopt the broker's positions, or leave it to the loop, which tries again while nothing is adopted."""
        try:
            await self.adopt(partitions)
        except Unavailable as error:
            log.warning("positions cannot be read after a rebalance, trying again: %s", error)

    async def adopt(self, partitions: frozenset[Partition]) -> None:
        """Adopt the broker's positions: a tracker is kept where both agree, else rebuilt in a new epoch.

        Raises `Unavailable`; nothing is polled until a later call succeeds.
        """
        self._metrics.rebalances_total.inc()
        committed = await self._consumer.committed(list(partitions)) if partitions else {}
        rebuilt: set[Partition] = set()
        for partition in partitions:
            commit = committed.get(partition)
            position = Position(commit.offset, commit.metadata) if commit is not None else None
            tracker = self._trackers.get(partition)
            if tracker is None:
                self._trackers[partition] = PartitionTracker(position)
            elif not tracker.adopt(position):
                log.debug("%s-%d: rebuilt from the committed offset", partition.topic, partition.partition)
                rebuilt.add(partition)
        lost = frozenset(known for known in self._trackers if known not in partitions)
        for partition in lost:
            # Running calls keep their tracker object; should the partition come back, it is read from its commit.
            del self._trackers[partition]
        # What waits of a rebuilt one is read again, and would run twice.
        self._on_lost(lost | rebuilt)
        self._assigned = partitions

    async def commit(self, partitions: Iterable[Partition]) -> None:
        """Commit what changed in `partitions`; a failure leaves them dirty for the next time."""
        async with self._lock:
            pending: dict[Partition, Position] = {}
            for partition in partitions:
                tracker = self._trackers.get(partition)
                position = tracker.pending() if tracker is not None else None
                if position is not None:
                    pending[partition] = position
            if pending:
                await self._commit(pending)
            else:
                self.last_success = self._clock.monotonic()

    async def _commit(self, pending: dict[Partition, Position]) -> None:
        commits = {partition: Commit(*position) for partition, position in pending.items()}
        try:
            await self._consumer.commit(commits, timeout=COMMIT_TIMEOUT)
        except Unavailable as error:
            self._metrics.commit_failures_total.inc()
            log.warning("a commit failed and will be made again: %s", error)
            for tracker in (self._trackers.get(partition) for partition in pending):
                if tracker is not None:
                    tracker.dirty()
        else:
            self._metrics.commits_total.inc()
            self.last_success = self._clock.monotonic()
            for partition, position in pending.items():
                tracker = self._trackers.get(partition)
                if tracker is not None:
                    tracker.committed(position)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.commit(self._assigned)
