"""Trackers of the assigned partitions, and the commits made from them. Nothing is committed that is not ours now."""

import asyncio
import logging
from collections.abc import Iterable
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


class Committer:
    """Keeps one tracker a partition, over rebalances, and commits what changed every `interval` seconds."""

    def __init__(self, *, consumer: LogConsumer, clock: Clock, metrics: Metrics, interval: float) -> None:
        self._consumer = consumer
        self._clock = clock
        self._metrics = metrics
        self._interval = interval
        self._trackers: dict[Partition, PartitionTracker] = {}
        self._assigned: frozenset[Partition] = frozenset()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.last_success = clock.monotonic()

    @property
    def trackers(self) -> dict[Partition, PartitionTracker]:
        """Trackers by partition; those of partitions that went away are kept while their work runs."""
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
        """Adopt the broker's positions: a tracker is kept where both agree, else rebuilt in a new epoch."""
        self._metrics.rebalances_total.inc()
        committed = await self._consumer.committed(list(partitions)) if partitions else {}
        for partition in partitions:
            commit = committed.get(partition)
            position = Position(commit.offset, commit.metadata) if commit is not None else None
            tracker = self._trackers.get(partition)
            if tracker is None:
                tracker = self._trackers[partition] = PartitionTracker()
            if not tracker.adopt(position):
                log.debug("%s-%d: rebuilt from the committed offset", partition.topic, partition.partition)
        for partition in [known for known in self._trackers if known not in partitions]:
            if self._trackers[partition].in_flight == 0:
                del self._trackers[partition]
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
            for partition in pending:
                self._trackers[partition].dirty()
        else:
            self._metrics.commits_total.inc()
            self.last_success = self._clock.monotonic()
            for partition, position in pending.items():
                self._trackers[partition].committed(position)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.commit(self._assigned)
