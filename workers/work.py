"""A request while one worker holds it: the job, where its offset is tracked, and what has been tried."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.config import Alias
from broker.delivery.lifecycle import FINAL, State
from broker.delivery.lifecycle import move as checked_move
from broker.delivery.tracker import PartitionTracker
from broker.envelope import Job
from broker.keys import Caller
from broker.ports import Lease
from broker.records import OutRecord
from broker.routing.needs import Needs
from broker.topics import Lane


@dataclass(slots=True, eq=False)
class Work:
    """One request in this worker; `deadline` is unix milliseconds."""

    job: Job
    tracker: PartitionTracker
    epoch: int
    alias: Alias
    caller: Caller
    deadline: int
    tokens: int
    """Estimated input plus output, what a permit reserves."""
    seq: int
    token: str = ""
    """Names this work to the journal and the limits, over all workers and restarts."""
    output_tokens: int = 0
    """The part of `tokens` that is output."""
    lease: Lease | None = None
    """The right to run it; None until the journal gave it, and where its alias serves on without a journal."""
    begun: bool = False
    """Whether the journal knows that a call is made."""
    peer: bool = False
    """Another work holds the lease; this one only keeps its offset open."""
    patient: bool = True
    """As a peer it finds the outcome unpublished for the first time: its owner is about to publish."""
    state: State = State.QUEUED
    tries: int = 0
    """Attempts made in this alias, by this worker."""
    tried: frozenset[str] = frozenset()
    """Deployments that failed it since the last wait."""
    needs: Needs | None = None
    """What it asks of a model; None where its alias does not check before a call."""
    unfit: frozenset[str] = frozenset()
    """Deployments that cannot serve it and are not called."""
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    cancelled: bool = False
    cut: bool = False
    """Its call is not to be made, or not to be waited for."""
    calling: bool = False
    """Its call is under way, so that cancelling its task cuts the call off and nothing else."""
    ended: bool = False
    """Its end is in the outbox's hands."""
    dropped: bool = False
    """Its partition went to another worker before it was started."""
    unleased: bool = False
    """It is answered without a lease, so its rows must not meet those of the request that has this id."""
    events: list[bytes] = field(default_factory=list)
    """Usage events of failed attempts, published with what ends the work here."""

    @property
    def lane(self) -> Lane:
        """The lane it came by."""
        return self.job.lane

    @property
    def tenant(self) -> str:
        """Who pays."""
        return self.caller.tenant

    @property
    def own_fallbacks(self) -> tuple[str, ...] | None:
        """Fallbacks the request names, an empty tuple where it wants none; None where it says nothing."""
        body = self.job.body
        if body.get("disable_fallbacks") is True:
            return ()
        named = body.get("fallbacks")
        return tuple(name for name in named if isinstance(name, str)) if isinstance(named, list) else None

    @property
    def order(self) -> tuple[int, int, int]:
        """Inside its lane and tenant: priority, then earliest deadline, then arrival (limits.md)."""
        return self.job.priority, self.deadline, self.seq

    @property
    def place(self) -> str:
        """Which record it is, `topic-partition-offset@timestamp`: of a topic that was made again it is another one."""
        record = self.job.record
        return f"{record.topic}-{record.partition}-{record.offset}@{record.timestamp}"

    @property
    def closed(self) -> bool:
        """Whether its end has been decided; such a work is skipped wherever it still stands."""
        return self.dropped or self.state in FINAL

    def cut_off(self) -> None:
        """Cut its call off, or keep it from being made."""
        self.cut = True
        if self.calling and self.task is not None:
            self.task.cancel()

    def move(self, to: State) -> None:
        """Change the state; raises where lifecycle.py forbids it."""
        self.state = checked_move(self.state, to)


@dataclass(slots=True, eq=False)
class Outgoing:
    """What has to be stored and published before a work's offset may be committed."""

    work: Work
    usage: list[bytes]
    body: bytes | None = None
    """Of the final reply; None where the request goes on elsewhere."""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 0
    again: OutRecord | None = None
    """The same request for another topic."""
    dead: OutRecord | None = None
    replayed: Lease | None = None
    """Of the earlier owner who stored it; it only has to be published."""
    orphan: bool = False
    """Another owner's outcome came first: only its rows are published."""
