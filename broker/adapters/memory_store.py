"""Topics, records and groups in memory: what the twins of the log's ports share. No client library in here."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

from broker.adapters.memory_group import Group
from broker.adapters.record_batches import UNREADABLE
from broker.clock import Clock, SystemClock
from broker.errors import Unavailable
from broker.ports import Headers, OutRecord, Partition, SendFailure, TopicState

DEFAULT_MAX_MESSAGE_BYTES: Final = 1_048_588
"""Kafka's own default of `max.message.bytes`."""

RECORD_OVERHEAD: Final = 70
"""Bytes of a stored record beside key, value and headers; close to Kafka's."""


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A record as read; see `Record`."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(slots=True)
class _Topic:
    settings: dict[str, str]
    partitions: list[list[MemoryRecord]]
    first: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first = [0] * len(self.partitions)


class MemoryLog:
    """What the broker's processes are to Kafka; holds topics, groups and the faults a test asks for.

    Faults: `down` makes every operation fail as if no broker answered; `fail_sends` is asked about each record and
    may return a failure; `fail_commits` makes commits raise `Unavailable`.
    """

    def __init__(self, topics: Mapping[str, int] | None = None, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._topics: dict[str, _Topic] = {}
        self._groups: dict[str, Group] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        self.down = False
        self.fail_commits = False
        self.fail_sends: Callable[[OutRecord], SendFailure | None] | None = None
        for name, partitions in (topics or {}).items():
            self.create(name, partitions)

    def create(self, name: str, partitions: int, settings: Mapping[str, str] | None = None) -> None:
        """Create a topic; one that exists is left alone."""
        if name not in self._topics:
            self._topics[name] = _Topic(dict(settings or {}), [[] for _ in range(partitions)])
            self._topics_changed()

    def grow(self, name: str, partitions: int) -> None:
        """Add partitions up to `partitions`."""
        topic = self._topics[name]
        while len(topic.partitions) < partitions:
            topic.partitions.append([])
            topic.first.append(0)
        self._topics_changed()

    def states(self, prefix: str = "") -> dict[str, TopicState]:
        """Return the topics whose names start with `prefix`."""
        found = {name: topic for name, topic in self._topics.items() if name.startswith(prefix)}
        return {name: TopicState(name, len(t.partitions), dict(t.settings)) for name, t in found.items()}

    def set(self, name: str, settings: Mapping[str, str]) -> None:
        """Change settings of a topic."""
        self._topics[name].settings.update(settings)

    def append(self, record: OutRecord, partition: int) -> MemoryRecord:
        """Store a record, whatever its size, and wake who waits."""
        records = self._topics[record.topic].partitions[partition]
        offset = self.bounds(record.topic)[Partition(record.topic, partition)][1]
        stored = MemoryRecord(
            record.topic, partition, offset, self._clock.now_ms(), record.key, record.value, tuple(record.headers)
        )
        records.append(stored)
        self.wake()
        return stored

    def append_unreadable(self, topic: str, partition: int, reason: str) -> MemoryRecord:
        """Store what a record reads as that cannot be parsed."""
        return self.append(OutRecord(topic, None, headers=((UNREADABLE, reason.encode()),)), partition)

    def trim(self, partition: Partition, first: int) -> None:
        """Drop records below offset `first`, as retention does."""
        topic = self._topics[partition.topic]
        kept = topic.partitions[partition.partition]
        kept[:] = [record for record in kept if record.offset >= first]
        topic.first[partition.partition] = max(first, topic.first[partition.partition])

    def records(self, topic: str) -> list[MemoryRecord]:
        """Return everything a topic holds, by partition and offset."""
        return [record for partition in self._topics[topic].partitions for record in partition]

    def read(self, partition: Partition, offset: int, limit: int) -> list[MemoryRecord]:
        """Return up to `limit` records from `offset` on; below the first offset, from the first."""
        topic = self._topics.get(partition.topic)
        if topic is None or partition.partition >= len(topic.partitions):
            return []
        start = max(0, offset - topic.first[partition.partition])
        return topic.partitions[partition.partition][start : start + limit]

    def bounds(self, topic: str) -> dict[Partition, tuple[int, int]]:
        """First and end offset of each partition; empty when there is no such topic."""
        found = self._topics.get(topic)
        if found is None:
            return {}
        pairs = zip(found.first, found.partitions, strict=True)
        return {Partition(topic, n): (first, first + len(records)) for n, (first, records) in enumerate(pairs)}

    def send(self, record: OutRecord, turn: int) -> SendFailure | None:
        """Write one record as a producer does, or say why not."""
        if self.down:
            return SendFailure("the log is down", permanent=False)
        if self.fail_sends is not None and (failure := self.fail_sends(record)) is not None:
            return failure
        topic = self._topics.get(record.topic)
        if topic is None:
            return SendFailure(f"topic {record.topic!r} does not exist", permanent=True)
        limit = int(topic.settings.get("max.message.bytes", DEFAULT_MAX_MESSAGE_BYTES))
        if (size := _size(record)) > limit:
            return SendFailure(f"{size} bytes, at most {limit} are allowed", permanent=True)
        count = len(topic.partitions)
        partition = record.partition
        if partition is None:
            partition = turn % count if record.key is None else crc32(record.key) % count
        if not 0 <= partition < count:
            return SendFailure(f"topic {record.topic!r} has no partition {partition}", permanent=True)
        self.append(record, partition)
        return None

    def group(self, name: str) -> Group:
        """Return the consumer group `name`, made when it is first asked for."""
        if name not in self._groups:
            self._groups[name] = Group(lambda topic: list(self.bounds(topic)))
        return self._groups[name]

    def check(self, what: str) -> None:
        """Raise `Unavailable` while the log is down."""
        if self.down:
            raise Unavailable(f"memory log: {what}: the log is down")

    def wake(self) -> None:
        """Wake everyone who waits for records."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, timeout: float) -> None:
        """Return when something changed, or after `timeout` seconds."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=timeout)
        finally:
            self._waiters.discard(waiter)

    def _topics_changed(self) -> None:
        for group in self._groups.values():
            group.request_rebalance()


def _size(record: OutRecord) -> int:
    parts = [record.key or b"", record.value or b"", *(name.encode() + value for name, value in record.headers)]
    return RECORD_OVERHEAD + sum(map(len, parts))
