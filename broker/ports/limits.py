"""Limits that all workers share: of deployments, and of callers. The contract stands on the method.

Nothing here is asked once per call: workers exchange what they used and need, a few times a second, for many calls.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from broker.limits.terms import Granted, Need


class LimitStore(Protocol):
    """State of deployments that all workers share. One round trip a call; safe for use by many tasks."""

    async def start(self) -> None:
        """Connect. Raises `Unavailable`."""
        ...

    async def exchange(self, worker: str, needs: Sequence[Need]) -> Sequence[Granted]:
        """Report and ask, for many deployments at once; one answer a need, in order. Atomic a deployment.

        Slots: never more than the smallest of `max_parallel` and the adaptive concurrency are given out over all live
        workers; they are shared by need (water-filling), so that no worker keeps what another lacks for longer than the
        calls that hold them. Windows: a slice counts from when it was given until its last unit can have left the
        window, so the limit holds for any workers and any window. Raises `Unavailable`; it is then unknown whether it
        took effect: what was reported is not reported again, slices and slots come back by themselves.
        """
        ...

    async def leave(self, worker: str) -> None:
        """Give everything of a worker back: it stops."""
        ...

    async def publish(self, worker: str, snapshot: Mapping[str, Any]) -> None:
        """Keep what a worker says of itself (JSON), for `WORKER_SECONDS`; `broker status` shows it."""
        ...

    async def snapshots(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what live workers said last, by worker."""
        ...

    async def look(self, deployments: Sequence[str]) -> Sequence[Granted]:
        """Return the shared state without asking for anything.

        Of `limits` it tells the learned ones only, and of `used` every window: what is configured the asker knows.
        """
        ...

    async def stop(self) -> None:
        """Close."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """One budget of requests and money that a caller counts against: its key, its team, its tenant.

    Limits are per 60 s, `parallel` counts requests between take and settle, `budget` is pico-dollars for ever; None is
    no limit.
    """

    name: str
    """Unique over all scopes, such as `key:<hash>` or `tenant:<name>`."""
    rpm: int | None = None
    tpm: int | None = None
    parallel: int | None = None
    budget: int | None = None


@dataclass(frozen=True, slots=True)
class CallerClaim:
    """One request that is about to be admitted. `token` as in `Claim`: taken again, it counts once."""

    token: str
    scopes: tuple[Scope, ...]
    tokens: int
    """Estimated input and output."""


@dataclass(frozen=True, slots=True)
class CallerRefusal:
    """Which limit of which scope has no room: `rpm`, `tpm`, `parallel` or `budget`."""

    scope: str
    limit: str
    retry_after: float = math.inf
    """True seconds until it would be let in; `math.inf` where only another request's end can tell."""
    used: int = 0


@dataclass(frozen=True, slots=True)
class CallerEnd:
    """A request that has ended, or goes on elsewhere (`refund`: everything it took is given back)."""

    token: str
    scopes: tuple[Scope, ...]
    tokens: int
    """Estimated when it was taken."""
    used: int | None = None
    """What it really used; None keeps the estimate."""
    cost_pico: int = 0
    refund: bool = False


class CallerStore(Protocol):
    """Limits of callers over all workers. One round trip a batch; safe for use by many tasks."""

    async def start(self) -> None:
        """Connect. Raises `Unavailable`."""
        ...

    async def take(self, claims: Sequence[CallerClaim]) -> Sequence[CallerRefusal | None]:
        """Take each claim out of all its scopes in one atomic step, or out of none; in order. Raises `Unavailable`."""
        ...

    async def settle(self, ends: Sequence[CallerEnd]) -> None:
        """End requests; ending one twice, or one that was never taken, changes nothing. Raises `Unavailable`."""
        ...

    async def renew(self, claims: Sequence[CallerClaim]) -> None:
        """Keep the `parallel` places of running requests, which otherwise return after `CALLER_SECONDS`."""
        ...

    async def used(self, scopes: Sequence[Scope]) -> Sequence[Mapping[str, int]]:
        """Return requests, tokens, running and spent (pico-dollars) of each scope."""
        ...

    async def stop(self) -> None:
        """Close."""
        ...


CALLER_SECONDS = 60.0
"""A request whose worker has not renewed it for so long does not count as running any more."""
