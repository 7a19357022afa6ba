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
from broker.records import OutRecord


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
    state: State = State.QUEUED
    tries: int = 0
    """Attempts made in this alias, by this worker."""
    tried: frozenset[str] = frozenset()
    """Deployments that failed it since the last wait."""
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
    events: list[bytes] = field(default_factory=list)
    """Usage events of failed attempts, published with what ends the work here."""

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
