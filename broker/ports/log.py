"""The log: a member of a group, a producer, a reader of chosen partitions, an admin. The contract is on the method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.records import Commit, OutRecord, Partition, Record
from broker.topics import TopicSpec


class AssignmentListener(Protocol):
    """Told of rebalances, inside the consumer's own task: it must return well within the rebalance timeout (20 s)."""

    async def on_revoked(self, partitions: frozenset[Partition]) -> None:
        """Handle partitions that are no longer ours after this returns; the last moment to commit them."""
        ...

    async def on_assigned(self, partitions: frozenset[Partition]) -> None:
        """Handle the whole new assignment; kept partitions are named again and will be re-read from their commit."""
        ...


class LogConsumer(Protocol):
    """One member of a consumer group. Not safe for use by two tasks at once, except `commit` beside `poll`."""

    async def start(self, topics: Sequence[str], listener: AssignmentListener | None = None) -> None:
        """Join the group and subscribe; absent topics are waited for. Raises `Unavailable` when no broker answers."""
        ...

    def subscribe(self, topics: Sequence[str]) -> None:
        """Change the subscription; the listener hears of what follows."""
        ...

    def assignment(self) -> frozenset[Partition]:
        """Return the partitions that are ours now."""
        ...

    async def poll(self, partitions: Sequence[Partition], *, max_records: int, timeout: float) -> Sequence[Record]:
        """Return up to `max_records` records of `partitions`, fairly over them, waiting at most `timeout` seconds.

        Partitions that are not named keep what was prefetched. Partitions that are not ours are ignored; an empty list
        waits and returns nothing. A record that cannot be parsed is returned with value None and a header
        `broker-unreadable` that says why. Never cancel this call.
        """
        ...

    def seek(self, partition: Partition, offset: int) -> None:
        """Read `partition` from `offset` on and not from its commit; for a reader whose position is kept elsewhere.

        To be called after `on_assigned` named the partition and before it is polled. A partition that is not ours is
        ignored; an offset outside what the log holds leads to the first record it still has.
        """
        ...

    async def commit(self, commits: Mapping[Partition, Commit], *, timeout: float) -> None:
        """Commit. Raises `Unavailable` on time-out or when the group has moved on; what is stored is then unknown."""
        ...

    async def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, Commit]:
        """Return what is committed, metadata included; partitions without a commit are absent."""
        ...

    async def lag(self) -> Mapping[Partition, int]:
        """Records behind the end of each assigned partition, as far as the last fetch told; asks nobody."""
        ...

    async def stop(self) -> None:
        """Leave the group. Commits nothing."""
        ...


@dataclass(frozen=True, slots=True)
class SendFailure:
    """Why a record was not written. `permanent`: the same record will never be accepted."""

    reason: str
    permanent: bool


class LogProducer(Protocol):
    """Writes records; safe for use by many tasks."""

    async def start(self) -> None:
        """Connect. Raises `Unavailable`."""
        ...

    async def send_all(self, records: Sequence[OutRecord]) -> Sequence[SendFailure | None]:
        """Write all and wait until all replicas have them; one entry per record, None where it is acknowledged.

        A record that the log refuses (too large) fails alone, with `permanent` set; it does not fail its neighbours.
        """
        ...

    async def stop(self) -> None:
        """Flush and close."""
        ...


class LogReader(Protocol):
    """Reads chosen partitions without a group: replies, control, dead letters, single records."""

    async def start(self) -> None:
        """Connect. Raises `Unavailable`."""
        ...

    async def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read exactly these partitions, each from the given offset."""
        ...

    async def bounds(self, topic: str) -> Mapping[Partition, tuple[int, int]]:
        """First offset and end offset of each partition; empty when the topic does not exist."""
        ...

    async def offsets_at(self, topic: str, timestamp_ms: int) -> Mapping[Partition, int]:
        """Return the first offset at or after `timestamp_ms` of each partition, its end offset where there is none."""
        ...

    async def poll(self, *, max_records: int, timeout: float) -> Sequence[Record]:
        """Return up to `max_records` records, waiting at most `timeout` seconds for the first."""
        ...

    async def stop(self) -> None:
        """Close."""
        ...


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it exists."""

    name: str
    partitions: int
    settings: Mapping[str, str]


class LogAdmin(Protocol):
    """Looks at topics and makes them; never shrinks, never deletes."""

    async def start(self) -> None:
        """Connect. Raises `Unavailable`."""
        ...

    async def topics(self, prefix: str) -> Mapping[str, TopicState]:
        """Return the topics whose names start with `prefix`."""
        ...

    async def create(self, spec: TopicSpec, *, replication_factor: int) -> None:
        """Create a topic; one that exists is no error."""
        ...

    async def grow(self, topic: str, partitions: int) -> None:
        """Add partitions up to `partitions`."""
        ...

    async def alter(self, topic: str, settings: Mapping[str, str]) -> None:
        """Change settings by their Kafka names, leaving the others as they are."""
        ...

    async def lags(self, group: str) -> Mapping[Partition, tuple[int, int]]:
        """Committed offset and end offset of each partition the group has committed."""
        ...

    async def stop(self) -> None:
        """Close."""
        ...
