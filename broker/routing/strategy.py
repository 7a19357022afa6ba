"""How one deployment is chosen among those that could start a call now; the names are LiteLLM's. Imports models only.

A strategy sees candidates through `Candidate` and draws one number in [0, 1); equal candidates are drawn evenly.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final, Protocol, TypeVar

from broker.config import Deployment, Strategy

LATENCY_BUFFER: Final = 0.1
"""Share above the lowest latency within which deployments count as equally fast, so that not all go to one."""

LATENCY_WEIGHT: Final = 0.2
"""Weight of the newest call in the moving average: about the last ten calls decide."""

LATENCY_LIFETIME: Final = 600.0
"""Seconds after which a measured latency is forgotten, so that a deployment once slow is tried again."""


class Candidate(Protocol):
    """What a strategy may know of a deployment. `now` is monotonic seconds."""

    @property
    def deployment(self) -> Deployment:
        """Its configuration."""
        ...

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        ...

    @property
    def cost(self) -> Decimal | None:
        """USD of an input and an output token together; None when unknown."""
        ...

    def share_used(self, now: float) -> float:
        """Return the fuller of its windows, 0 empty … 1 full; 0.0 without limits."""
        ...

    def recent_latency(self, now: float) -> float | None:
        """Seconds a call took of late; None when unknown."""
        ...


C = TypeVar("C", bound=Candidate)


class Latency:
    """Moving average of a deployment's call times, in seconds."""

    __slots__ = ("_measured_at", "_seconds")

    def __init__(self) -> None:
        self._seconds = 0.0
        self._measured_at: float | None = None

    def add(self, seconds: float, now: float) -> None:
        """Count a call that took `seconds` and ended `now`."""
        known = self.recent(now)
        self._seconds = seconds if known is None else known + LATENCY_WEIGHT * (seconds - known)
        self._measured_at = now

    def recent(self, now: float) -> float | None:
        """Return the average; None without a call in the last `LATENCY_LIFETIME` seconds."""
        if self._measured_at is None or now - self._measured_at > LATENCY_LIFETIME:
            return None
        return self._seconds


def choose(strategy: Strategy, candidates: Sequence[C], now: float, random: Callable[[], float]) -> C:
    """Choose one of `candidates`, of which there is at least one; `random` draws from [0, 1)."""
    if len(candidates) == 1:
        return candidates[0]
    match strategy:
        case Strategy.SIMPLE_SHUFFLE:
            return _weighted(candidates, random())
        case Strategy.LEAST_BUSY:
            return _lowest(candidates, lambda candidate: candidate.in_flight, random())
        case Strategy.USAGE_BASED:
            return _lowest(candidates, lambda candidate: (candidate.share_used(now), candidate.in_flight), random())
        case Strategy.LATENCY_BASED:
            return _fastest(candidates, now, random())
        case Strategy.COST_BASED:
            return _lowest(candidates, lambda candidate: (candidate.cost is None, candidate.cost or 0), random())


def _weighted(candidates: Sequence[C], draw: float) -> C:
    """Draw by weight where any candidate has one, else by rpm, else by tpm, else evenly.

    Without a weight among weighted ones a deployment gets nothing, as in LiteLLM; without a limit among limited ones it
    gets as much as the largest.
    """
    weights = _weights([candidate.deployment for candidate in candidates])
    point = draw * sum(weights)
    for candidate, weight in zip(candidates, weights, strict=True):
        point -= weight
        if point < 0:
            return candidate
    return next(candidate for candidate, weight in zip(candidates, weights, strict=True) if weight)


def _weights(deployments: Sequence[Deployment]) -> list[float]:
    stated = [deployment.weight for deployment in deployments]
    if any(weight is not None for weight in stated):
        return [weight or 0.0 for weight in stated] if any(stated) else [1.0] * len(stated)
    for limits in ([deployment.rpm for deployment in deployments], [deployment.tpm for deployment in deployments]):
        largest = max((limit for limit in limits if limit is not None), default=None)
        if largest is not None:
            return [float(limit or largest) for limit in limits]
    return [1.0] * len(deployments)


def _lowest(candidates: Sequence[C], key: Callable[[C], object], draw: float) -> C:
    keys = [key(candidate) for candidate in candidates]
    lowest = min(keys)  # type: ignore[type-var] # every strategy's keys compare with each other
    best = [candidate for candidate, value in zip(candidates, keys, strict=True) if value == lowest]
    return best[int(draw * len(best))]


def _fastest(candidates: Sequence[C], now: float, draw: float) -> C:
    """Draw among those near the lowest known latency and those of unknown latency.

    An unknown one shares with the best instead of taking everything, or a burst at start would meet one deployment.
    """
    latencies = [candidate.recent_latency(now) for candidate in candidates]
    known = [latency for latency in latencies if latency is not None]
    bar = min(known, default=0.0) * (1 + LATENCY_BUFFER)
    best = [
        candidate for candidate, latency in zip(candidates, latencies, strict=True) if latency is None or latency <= bar
    ]
    return best[int(draw * len(best))]
