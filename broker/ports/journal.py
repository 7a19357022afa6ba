"""The journal: who runs a request (lease and fence), and how it ended. The contract stands on the method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from broker.records import Headers


@dataclass(frozen=True, slots=True)
class Answer:
    """The final reply of a request: what its record carries."""

    request_id: str
    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Claim:
    """One record that a worker has read and wants to run.

    `key` is what makes two records the same request: `delivery.identity` makes it. `token` names this one work of this
    one process and nothing else, ever: a claim that is made again, because its answer was lost, finds its own lease.
    `hop` counts how often the broker has republished the request, 0 for the producer's own record. `place` says which
    record it is.
    """

    key: str
    token: str
    hop: int
    place: str
    request_id: str
    tenant: str


class Standing(StrEnum):
    """What a claim found."""

    OWNED = "owned"
    """The lease is the claimer's."""
    PEER = "peer"
    """Another work holds the lease and is alive: keep the offset open, take no permit, look again each second."""
    DONE = "done"
    """The request has ended; `ending` is how, or None where its body is no longer kept."""
    MOVED = "moved"
    """A later hop of the request exists, so this record is spent. `ending` is what the earlier owner may not have
    published yet, None where all of it is out."""
    FOREIGN = "foreign"
    """The id belongs to a request of another tenant."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right of one work to run one request; `fence` grows with every owner, also over a loss of the store."""

    key: str
    token: str
    hop: int
    fence: int


@dataclass(frozen=True, slots=True)
class Copy:
    """A record to be published whose key and value are those of the request's own record."""

    topic: str
    headers: Headers
    keep_value: bool = True


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended in one worker: everything that must be published, stored before any of it is.

    `answer` is None where the request goes on elsewhere (rerouted, parked); a later hop then has to claim it.
    `lease` None stores the answer under its own request id and nothing else: for a request that was answered without
    a lease (the same idempotency key, an alias that fails open).
    """

    lease: Lease | None
    place: str
    answer: Answer | None
    usage: tuple[bytes, ...] = ()
    copies: tuple[Copy, ...] = ()


@dataclass(frozen=True, slots=True)
class Claimed:
    """The answer to a claim, in the claim's place. What does not apply is at its default."""

    standing: Standing
    fence: int = 0
    starts: int = 0
    """Calls of this hop that earlier owners began and that have no outcome."""
    request_id: str = ""
    """Of the request that the outcome belongs to: another one than the claim's with an idempotency key."""
    place: str = ""
    """Where the record stood whose outcome this is; the claim's own after a redelivery."""
    published: bool = False
    """Whether all of the outcome was published."""
    ending: Ending | None = None


class Journal(Protocol):
    """Leases and outcomes by request; safe for use by many tasks.

    Every method is one round trip for its whole batch and may raise `Unavailable`, after which it is unknown whether it
    took effect; making the same call again is always safe. An empty batch asks nobody. A lease lasts `lease_seconds`
    (30) and is renewed by its owner; the request's marker is kept for `marker_ttl`, a day, bodies for `answer_ttl`.
    """

    async def start(self) -> None:
        """Connect. Raises `Unavailable`."""
        ...

    async def acquire(self, claims: Sequence[Claim]) -> Sequence[Claimed]:
        """Claim; one answer a claim, in order.

        Absent, expired or released lease, or one of an earlier hop → OWNED with a new, larger fence. The claim's own
        token → OWNED with the fence it has. A final outcome of the claim's hop or a later one → DONE; one of a later
        hop than the outcome's → OWNED: that is a dead letter replayed on purpose. The claim's hop moved on, or a later
        hop exists without an outcome → MOVED. A live lease of another token, also of the same worker → PEER, so of two
        claims of one key in a batch the second is PEER.
        """
        ...

    async def begin(self, leases: Sequence[Lease]) -> Sequence[bool]:
        """Note, before each call, that it is about to be made; False: the lease is lost, do not call.

        What was begun and has no outcome counts as `starts` of the next owner. A lease the store has forgotten is taken
        again.
        """
        ...

    async def renew(self, leases: Sequence[Lease]) -> Sequence[bool]:
        """Let the leases last from now on; False: another work has it. One the store has forgotten is taken again."""
        ...

    async def release(self, leases: Sequence[Lease]) -> None:
        """Give leases up without an outcome; the next claim owns them at once. Those that are lost are left alone."""
        ...

    async def complete(self, endings: Sequence[Ending]) -> Sequence[bool]:
        """Store outcomes; False: the fence is not the newest, or an outcome exists, and this one is an orphan.

        An ending that was stored before, by the same token and fence, is True again; so is an answer by the token and
        fence whose request moved on, while no later hop exists: the log refused to take it elsewhere. An ending without
        a lease never replaces a stored answer.
        """
        ...

    async def published(self, leases: Sequence[Lease]) -> None:
        """Note that everything of these completed leases was acknowledged by the log."""
        ...

    async def outcome(self, request_id: str) -> Answer | None:
        """Return the stored final reply; None when there is none, or no longer."""
        ...

    async def ping(self) -> None:
        """Return when the store answers, raise `Unavailable` when it does not."""
        ...

    async def stop(self) -> None:
        """Close."""
        ...
