"""Consumer groups in memory: joins, leaves and eager rebalances, in the order of Kafka's classic protocol."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from broker.ports import AssignmentListener, Commit, Partition

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Member:
    """One consumer of a group: what it wants, what it has, and whom it tells."""

    topics: frozenset[str]
    listener: AssignmentListener | None
    changed: Callable[[Iterable[Partition]], None]
    """Called with each new assignment, after the listener."""
    assigned: frozenset[Partition] = frozenset()
    settled: bool = False
    """False while a rebalance runs: nothing may be handed out."""
    revoked: bool = False
    """Whether `assigned` is no longer ours: the listener has had its say."""


@dataclass(slots=True)
class Group:
    """The members and commits of one group; rebalances run one after the other in a task of their own."""

    partitions_of: Callable[[str], list[Partition]]
    members: list[Member] = field(default_factory=list)
    commits: dict[Partition, Commit] = field(default_factory=dict)
    stalled: bool = False
    """A fault: a rebalance revokes everything and gives nothing out, until one is asked for with this unset."""
    _requested: bool = False
    _task: asyncio.Task[None] | None = None

    def join(self, member: Member) -> None:
        """Add a member; its assignment follows."""
        self.members.append(member)
        self.request_rebalance()

    async def leave(self, member: Member) -> None:
        """Take a member out as Kafka's close does, without telling its listener."""
        self.drop(member)
        if not self.members and self._task is not None:
            await asyncio.wait({self._task})

    def drop(self, member: Member) -> None:
        """Take a member out and have the others given its partitions."""
        if member in self.members:
            self.members.remove(member)
        member.assigned = frozenset()
        member.settled = False
        self.request_rebalance()

    def request_rebalance(self) -> None:
        """Have the group rebalanced; requests that come while one runs are served by one more."""
        if not self.members:
            return
        self._requested = True
        for member in self.members:
            member.settled = False
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._rebalance())

    async def _rebalance(self) -> None:
        while self._requested:
            self._requested = False
            await asyncio.gather(*(_revoke(member) for member in self.members))
            if self._requested:
                continue
            if self.stalled:
                return
            shares = assign(self.members, self.partitions_of)
            for member in self.members:
                member.assigned, member.revoked = frozenset(shares[member]), False
            await asyncio.gather(*(_give(member) for member in self.members))
        for member in self.members:
            member.settled = True
            member.changed(member.assigned)


def assign(members: Sequence[Member], partitions_of: Callable[[str], list[Partition]]) -> dict[Member, list[Partition]]:
    """Share out all wanted partitions evenly, leaving as many as possible where they are."""
    wanted = sorted({p for topic in {t for m in members for t in m.topics} for p in partitions_of(topic)})
    shares: dict[Member, list[Partition]] = {member: [] for member in members}
    fair = -(-len(wanted) // max(1, len(members)))
    moving = []
    for partition in wanted:
        owner = next((m for m in members if partition in m.assigned and partition.topic in m.topics), None)
        if owner is not None and len(shares[owner]) < fair:
            shares[owner].append(partition)
        else:
            moving.append(partition)
    for partition in moving:
        takers = [member for member in members if partition.topic in member.topics]
        shares[min(takers, key=lambda member: len(shares[member]))].append(partition)
    return shares


async def _revoke(member: Member) -> None:
    if member.listener is not None and member.assigned and not member.revoked:
        await _tell(member.listener.on_revoked(member.assigned))
    member.revoked = True


async def _give(member: Member) -> None:
    if member.listener is not None:
        await _tell(member.listener.on_assigned(member.assigned))


async def _tell(callback: Awaitable[None]) -> None:
    try:
        await callback
    except Exception:  # noqa: BLE001 - as in aiokafka, a listener's error does not stop the rebalance
        _log.exception("a listener failed in a rebalance")
