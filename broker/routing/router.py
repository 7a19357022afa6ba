"""Gives permits: which deployment of an alias starts the next call, or how long nobody can. Pure state, no I/O.

In this form cool-downs and limits hold within one process (limits.md): several workers each keep their own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from broker.config import Alias, Deployment, Settings, Strategy
from broker.delivery.retry import BUSY
from broker.errors import RequestError, UpstreamError
from broker.limits.permits import DeploymentPermits, Permit
from broker.routing.health import LONGEST_COOLDOWN, Health
from broker.routing.strategy import Latency, choose


@dataclass(slots=True)
class Grant:
    """A permit on a deployment; `probe` marks the one call that a half-open deployment may get."""

    deployment: Deployment
    permit: Permit
    probe: bool = False


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """A deployment as it stands. Times are monotonic seconds; `…_used` count the last 60 s, None without that limit."""

    deployment: Deployment
    in_flight: int
    healthy: bool
    """False while it cools down, and until a probe has succeeded afterwards."""
    cooling_until: float | None
    blocked_until: float | None
    """Until when its provider asked for no calls (Retry-After)."""
    rpm_used: int | None
    tpm_used: int | None
    latency: float | None
    """Seconds a call took of late."""


class Member:
    """A deployment and its state; what strategies see as a candidate."""

    __slots__ = ("cost", "deployment", "health", "latency", "order", "permits")

    def __init__(self, deployment: Deployment, alias: Alias, cost: Decimal | None) -> None:
        self.deployment = deployment
        self.order = deployment.order
        self.cost = cost
        self.permits = DeploymentPermits(deployment.rpm, deployment.tpm, deployment.max_parallel_requests)
        self.health = Health(
            cooldown_time=alias.cooldown_time,
            allowed_fails=alias.allowed_fails,
            alone=len(alias.deployments) == 1,
        )
        self.latency = Latency()

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return self.permits.in_flight

    def share_used(self, now: float) -> float:
        """Return the fuller of its windows, 0 empty … 1 full."""
        return self.permits.share_used(now)

    def recent_latency(self, now: float) -> float | None:
        """Seconds a call took of late; None when unknown."""
        return self.latency.recent(now)

    def wait(self, tokens: int, now: float) -> float:
        """Seconds until a call can start; 0.0 now, `math.inf` upon a release."""
        health = self.health.wait(now)
        permits = self.permits.wait(tokens, now)
        return max(permits, health)

    def grant(self, tokens: int, now: float) -> Grant:
        """Start a call that `wait` allowed."""
        return Grant(self.deployment, self.permits.take(tokens, now), self.health.begin())

    def status(self, now: float) -> DeploymentStatus:
        """Return how it stands."""
        return DeploymentStatus(
            deployment=self.deployment,
            in_flight=self.permits.in_flight,
            healthy=self.health.healthy,
            cooling_until=self.health.cooling_until(now),
            blocked_until=self.permits.blocked_until(now),
            rpm_used=self.permits.requests_used(now),
            tpm_used=self.permits.tokens_used(now),
            latency=self.latency.recent(now),
        )


def configured_cost(deployment: Deployment) -> Decimal | None:
    """Return USD of an input and an output token together, from the configuration's own prices; None without any."""
    prices = deployment.prices
    if prices.input_cost_per_token is None and prices.output_cost_per_token is None:
        return None
    return (prices.input_cost_per_token or Decimal(0)) + (prices.output_cost_per_token or Decimal(0))


class Router:
    """Deployments of every alias and the permits on them. `now` is monotonic seconds and never runs backwards."""

    __slots__ = ("_groups", "_members", "_random", "_strategies")

    def __init__(
        self,
        settings: Settings,
        random: Callable[[], float],
        cost: Callable[[Deployment], Decimal | None] = configured_cost,
    ) -> None:
        """Draw from `random`, [0, 1). `cost` prices a deployment for cost-based routing, USD; None sorts last."""
        self._random = random
        self._members: dict[str, Member] = {}
        self._groups: dict[str, tuple[Member, ...]] = {}
        self._strategies: dict[str, Strategy] = {}
        for name, alias in settings.aliases.items():
            group = [Member(deployment, alias, cost(deployment)) for deployment in alias.deployments]
            self._members.update((member.deployment.name, member) for member in group)
            self._groups[name] = tuple(sorted(group, key=lambda member: member.order))
            self._strategies[name] = alias.strategy

    def acquire(self, alias: str, tokens: int, now: float, tried: frozenset[str] = frozenset()) -> Grant | float:
        """Return a grant, or the seconds until the earliest moment one can exist (`math.inf`: upon a release).

        `tokens` is the estimate of input and most output. Deployments named in `tried` are taken only when no other can
        start now; among the rest, a higher `order` only when no lower one can. A grant must be released exactly once.
        Raises KeyError for an unknown alias.
        """
        group = self._groups[alias]
        if len(group) == 1:
            member = group[0]
            wait = member.wait(tokens, now)
            return wait if wait > 0 else member.grant(tokens, now)
        earliest = math.inf
        ready = []
        for member in group:
            wait = member.wait(tokens, now)
            if wait <= 0:
                ready.append(member)
            elif wait < earliest:
                earliest = wait
        if not ready:
            return earliest
        if tried:
            ready = [member for member in ready if member.deployment.name not in tried] or ready
        if ready[0].order != ready[-1].order:
            ready = [member for member in ready if member.order == ready[0].order]
        return choose(self._strategies[alias], ready, now, self._random).grant(tokens, now)

    def release(  # noqa: PLR0913 - all that a call's end tells, each by its name
        self,
        grant: Grant,
        now: float,
        *,
        used_tokens: int | None,
        latency: float | None,
        error: RequestError | None,
        started: bool,
    ) -> None:
        """Give a grant back; a second release changes nothing.

        `used_tokens`: what the provider counted, None for a failed call. `latency`: seconds of a good call. `error`:
        how it failed. `started`: whether the call went out to the provider; what never did costs and proves nothing.
        """
        if grant.permit.released:
            return
        member = self._members[grant.deployment.name]
        member.permits.release(grant.permit, used_tokens, now, started=started)
        member.health.end(now, error, started=started, probe=grant.probe)
        if latency is not None and error is None and started:
            member.latency.add(latency, now)
        told = error.retry_after if isinstance(error, UpstreamError) and error.status == BUSY else None
        if told is not None and told > 0:
            member.permits.penalise(now + min(told, LONGEST_COOLDOWN))

    def other_available(self, alias: str, tried: frozenset[str], now: float) -> bool:
        """Whether a deployment outside `tried` could start a call now. Raises KeyError for an unknown alias."""
        return any(member.deployment.name not in tried and member.wait(0, now) <= 0 for member in self._groups[alias])

    def wait(self, alias: str, now: float) -> float:
        """Seconds until a deployment could start a call; 0.0 now, `math.inf` upon a release.

        It is a situation's `wait_for_deployment`. Raises KeyError for an unknown alias.
        """
        return min((member.wait(0, now) for member in self._groups[alias]), default=math.inf)

    def snapshot(self, now: float) -> tuple[DeploymentStatus, ...]:
        """Return every deployment as it stands, in the order of the configuration."""
        return tuple(member.status(now) for member in self._members.values())
