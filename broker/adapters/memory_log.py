"""The log in memory: one `MemoryLog` shared by consumers, producers, readers and admins of one event loop.

Same meaning as Kafka's, rebalances included: eager, every partition revoked, kept ones read again from their commit.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from broker.adapters.memory_group import Member
from broker.adapters.memory_store import MemoryLog, MemoryRecord
from broker.errors import Unavailable
from broker.ports import AssignmentListener, Commit, OutRecord, Partition, Record, SendFailure, TopicState
from broker.topics import TopicSpec

__all__ = ["MemoryAdmin", "MemoryConsumer", "MemoryLog", "MemoryProducer", "MemoryReader", "MemoryRecord"]

METADATA_LIMIT: Final = 4096
"""Kafka's default limit of a commit's metadata, in bytes."""


async def _poll(
    log: MemoryLog,
    partitions: Callable[[], Sequence[Partition]],
    positions: dict[Partition, int],
    *,
    limit: int,
    timeout: float,
) -> list[Record]:
    """Read up to `limit` records fairly over `partitions`, moving `positions`; wait for the first at most `timeout`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        out: list[Record] = []
        order = [] if log.down else list(partitions())
        while order and len(out) < limit:
            share = -(-(limit - len(out)) // len(order))
            more = []
            for partition in order:
                records = log.read(partition, positions.get(partition, 0), min(share, limit - len(out)))
                if records:
                    positions[partition] = records[-1].offset + 1
                    out += records
                    more.append(partition)
            order = more
        remaining = deadline - loop.time()
        if out or remaining <= 0:
            return out
        await log.wait(remaining)


class MemoryConsumer:
    """One member of a group; see `LogConsumer`.

    Faults of this one member: `deaf` polls find nothing, whatever the log holds; `hung` polls never return.
    """

    def __init__(self, log: MemoryLog, group: str, *, deaf: bool = False, hung: bool = False) -> None:
        self.deaf = deaf
        self.hung = hung
        self._log = log
        self._group = log.group(group)
        self._positions: dict[Partition, int] = {}
        self._sought: dict[Partition, int] = {}
        """Seeks while a rebalance settles, which would undo them."""
        self._member: Member | None = None
        self._turn = 0

    async def start(self, topics: Sequence[str], listener: AssignmentListener | None = None) -> None:
        """Join the group and subscribe; absent topics are waited for."""
        self._log.check("connect")
        self._member = Member(frozenset(topics), listener, self._changed)
        self._group.join(self._member)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Change the subscription; the listener hears of what follows."""
        self._started().topics = frozenset(topics)
        self._group.request_rebalance()

    def assignment(self) -> frozenset[Partition]:
        """Return the partitions that are ours now."""
        member = self._started()
        return frozenset() if member.revoked else member.assigned

    async def poll(self, partitions: Sequence[Partition], *, max_records: int, timeout: float) -> Sequence[Record]:
        """Return records as the port says; none while a rebalance runs."""
        member = self._started()
        if self.hung:
            await asyncio.get_running_loop().create_future()

        def ours() -> list[Partition]:
            named = [p for p in partitions if p in member.assigned] if member.settled and not self.deaf else []
            self._turn += 1
            turn = self._turn % max(1, len(named))
            return named[turn:] + named[:turn]

        return await _poll(self._log, ours, self._positions, limit=max_records, timeout=timeout)

    def seek(self, partition: Partition, offset: int) -> None:
        """Read `partition` from `offset` on; one that is not ours is ignored."""
        member = self._started()
        if partition in self.assignment():
            first, end = self._log.bounds(partition.topic)[partition]
            positions = self._positions if member.settled else self._sought
            positions[partition] = offset if first <= offset <= end else first

    async def commit(self, commits: Mapping[Partition, Commit], *, timeout: float) -> None:
        """Commit. Raises `Unavailable` when the group has moved on."""
        del timeout
        self._log.check("commit")
        member = self._started()
        if self._log.fail_commits:
            raise Unavailable("memory log: commit: failing, as the test asked")
        for partition, commit in commits.items():
            if partition not in self.assignment() or member not in self._group.members:
                raise Unavailable(f"memory log: commit: {partition} is not assigned")
            if len(commit.metadata.encode()) > METADATA_LIMIT:
                raise Unavailable(f"memory log: commit: metadata above {METADATA_LIMIT} bytes")
        self._group.commits.update({Partition(*partition): commit for partition, commit in commits.items()})

    async def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, Commit]:
        """Return what is committed, metadata included."""
        self._log.check("committed offsets")
        return {p: self._group.commits[p] for p in map(Partition._make, partitions) if p in self._group.commits}

    async def lag(self) -> Mapping[Partition, int]:
        """Records behind the end of each assigned partition."""
        ends = {p: end for t in {p.topic for p in self.assignment()} for p, (_, end) in self._log.bounds(t).items()}
        return {p: ends[p] - self._positions[p] for p in self.assignment() if p in self._positions}

    async def stop(self) -> None:
        """Leave the group. Commits nothing."""
        if self._member is not None:
            member, self._member = self._member, None
            await self._group.leave(member)

    def kill(self) -> None:
        """Vanish as a process does that is killed: no callback, no commit; the others are given its partitions."""
        if self._member is not None:
            member, self._member = self._member, None
            self._group.drop(member)

    def _changed(self, assigned: Iterable[Partition]) -> None:
        firsts = {p: first for t in {p.topic for p in assigned} for p, (first, _) in self._log.bounds(t).items()}
        commits = self._group.commits
        # In place: a poll that is under way goes on with the new positions.
        self._positions.clear()
        self._positions.update({p: commits[p].offset if p in commits else firsts[p] for p in assigned})
        self._positions.update({p: offset for p, offset in self._sought.items() if p in assigned})
        self._sought.clear()
        self._log.wake()

    def _started(self) -> Member:
        if self._member is None:
            raise Unavailable("the consumer is not started")
        return self._member


class MemoryProducer:
    """Writes to a `MemoryLog`; see `LogProducer`."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._turn = 0

    async def start(self) -> None:
        """Connect. Raises `Unavailable` while the log is down."""
        self._log.check("connect")

    async def send_all(self, records: Sequence[OutRecord]) -> Sequence[SendFailure | None]:
        """Write all; yields to the event loop once, as a producer's round trip does."""
        self._turn += 1
        turn = self._turn
        await asyncio.sleep(0)
        return [self._log.send(record, turn) for record in records]

    async def stop(self) -> None:
        """Close."""


class MemoryReader:
    """Reads without a group; see `LogReader`."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._positions: dict[Partition, int] = {}

    async def start(self) -> None:
        """Connect. Raises `Unavailable` while the log is down."""
        self._log.check("connect")

    async def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read exactly these partitions, each from the given offset."""
        self._positions = {Partition(*partition): offset for partition, offset in positions.items()}

    async def bounds(self, topic: str) -> Mapping[Partition, tuple[int, int]]:
        """First offset and end offset of each partition."""
        self._log.check("bounds")
        return self._log.bounds(topic)

    async def offsets_at(self, topic: str, timestamp_ms: int) -> Mapping[Partition, int]:
        """First offset at or after `timestamp_ms` of each partition, its end offset where there is none."""
        self._log.check("offsets")
        found = {partition: end for partition, (_, end) in self._log.bounds(topic).items()}
        for partition, end in found.items():
            records = self._log.read(partition, 0, end)
            found[partition] = next((r.offset for r in records if r.timestamp >= timestamp_ms), end)
        return found

    async def poll(self, *, max_records: int, timeout: float) -> Sequence[Record]:
        """Return up to `max_records` records, waiting at most `timeout` seconds for the first."""
        return await _poll(
            self._log, lambda: list(self._positions), self._positions, limit=max_records, timeout=timeout
        )

    async def stop(self) -> None:
        """Close."""


class MemoryAdmin:
    """Administers a `MemoryLog`; see `LogAdmin`."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    async def start(self) -> None:
        """Connect. Raises `Unavailable` while the log is down."""
        self._log.check("connect")

    async def topics(self, prefix: str) -> Mapping[str, TopicState]:
        """Return the topics whose names start with `prefix`."""
        self._log.check("list topics")
        return self._log.states(prefix)

    async def create(self, spec: TopicSpec, *, replication_factor: int) -> None:
        """Create a topic; one that exists is no error."""
        del replication_factor
        self._log.check("create topic")
        self._log.create(spec.name, spec.partitions, dict(spec.settings))

    async def grow(self, topic: str, partitions: int) -> None:
        """Add partitions up to `partitions`."""
        self._log.check("grow topic")
        self._log.grow(topic, partitions)

    async def alter(self, topic: str, settings: Mapping[str, str]) -> None:
        """Change settings by their Kafka names, leaving the others as they are."""
        self._log.check("alter topic")
        self._log.set(topic, settings)

    async def lags(self, group: str) -> Mapping[Partition, tuple[int, int]]:
        """Committed offset and end offset of each partition the group has committed."""
        self._log.check("lag")
        commits = self._log.group(group).commits
        return {p: (commit.offset, self._log.bounds(p.topic)[p][1]) for p, commit in commits.items()}

    async def stop(self) -> None:
        """Close."""
