"""What workers and the store of shared limits tell each other, as plain data. Imports nothing of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field

WINDOWS_S: Mapping[str, int] = {"rpm": 60, "tpm": 60, "itpm": 60, "otpm": 60, "rpd": 86_400, "tpd": 86_400}
"""Limit by name → seconds of its window. `r…` counts requests, `t…` input and output tokens, `it…` and `ot…` only one
of them. Never more than the limit starts within any stretch of that length."""


@dataclass(frozen=True, slots=True)
class Units:
    """What calls take out of the windows: requests, input tokens, output tokens."""

    requests: int = 0
    input: int = 0
    output: int = 0


@dataclass(frozen=True, slots=True)
class Slice:
    """Units a worker may start within `SLICE_SECONDS` of having asked; `receipt` names where they were counted."""

    units: Units
    receipt: str


@dataclass(frozen=True, slots=True)
class Settle:
    """A correction of a slice: the unused rest of it, or truth less estimate of a call. Negative gives back.

    A positive correction may exceed the limit; one whose receipt has left the window is without effect.
    """

    receipt: str
    requests: int = 0
    input: int = 0
    output: int = 0


@dataclass(frozen=True, slots=True)
class Learned:
    """Limits a provider's answer told (`x-ratelimit-*`, `anthropic-ratelimit-*`). None where it told nothing.

    `limits` by the names of `WINDOWS_S` replace larger configured ones, never smaller ones. `left` is what the provider
    still allows now, by the same names, and `reset` the seconds until that window is whole again.
    """

    limits: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)
    reset: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Need:
    """What one worker used, learned and wants of one deployment since its last exchange.

    Times are durations in seconds, since no two machines' clocks agree.
    """

    deployment: str
    limits: Mapping[str, int] = field(default_factory=dict)
    """Configured limits by the names of `WINDOWS_S`; empty where there is none."""
    max_parallel: int | None = None
    demand: int = 0
    """Calls that run or could start now: what the worker would like to have as slots."""
    running: int = 0
    first: Units = Units()
    """What the next waiting call takes; a slice holds at least this, or nothing."""
    want: Units = Units()
    """What all waiting calls, and those expected within a second, take. Zero: no slice is wanted."""
    settles: tuple[Settle, ...] = ()
    good: int = 0
    failed: int = 0
    """Calls that ended, and how, for the share of failures."""
    overloaded: int = 0
    """Of the failed and the busy: 429, overload, time-outs; what halves the adaptive concurrency."""
    limited: bool = False
    """Whether calls waited for a slot though there was work: only then concurrency grows."""
    latency_sum: float = 0.0
    """Seconds of the good calls together."""
    cool_for: float = 0.0
    """Leave the deployment alone for so long: this worker saw it trip."""
    blocked_for: float = 0.0
    """The provider wants no call for so long (Retry-After)."""
    probe: bool | None = None
    """How the probe ended that this worker was given; None where it had none or it still runs."""
    learned: Learned | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """The state of one deployment as all workers share it, and what this one may start. Times are durations, seconds.

    `slots` is how many calls this worker may have running, None without any such limit; it may be below what runs now,
    which then runs out. `wait`: until `first` can be granted, where it was not: `math.inf` upon a release elsewhere.
    """

    slice: Slice | None = None
    slots: int | None = None
    wait: float = 0.0
    contended: bool = False
    """Whether another worker wants slots this one holds and may not need."""
    cooling_for: float = 0.0
    half_open: bool = False
    """The cool-down is over and no probe has succeeded yet."""
    probe: bool = False
    """This worker may make the one probe."""
    blocked_for: float = 0.0
    running: int = 0
    """Calls of all workers, as far as they have told."""
    used: Mapping[str, int] = field(default_factory=dict)
    """Units in each window that has a limit."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Limits in force: the smaller of configured and learned."""
    concurrency: int | None = None
    """Adaptive limit of calls at once over all workers; None while nothing has taught one."""
    latency: float | None = None
    """Seconds a good call took of late, over all workers."""
    good: int = 0
    failed: int = 0
    """Calls of all workers in the last minute."""


SLICE_SECONDS = 1.0
"""A slice is used or given back within this (limits.md)."""

WORKER_SECONDS = 10.0
"""A worker that has not exchanged for so long has crashed: its slots and its probe return."""
