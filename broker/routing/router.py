"""Gives permits: which deployment of an alias starts the next call, or how long nobody can. Pure state, no I/O.

Its decisions are made on what is here; with `shared` set, what is here is what `PermitExchange` was granted.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from broker.config import Alias, Deployment, Settings, Strategy
from broker.delivery.retry import BUSY
from broker.errors import RequestError, UpstreamError
from broker.limits.leased import LeasedPermit, LeasedPermits
from broker.limits.permits import DeploymentPermits, Permit
from broker.limits.terms import Granted, Learned
from broker.routing.health import LONGEST_COOLDOWN, SAYS_NOTHING, Health, is_failure, is_overload
from broker.routing.strategy import Latency, choose


@dataclass(slots=True)
class Grant:
    """A permit on a deployment; `probe` marks the one call that a half-open deployment may get."""

    deployment: Deployment
    permit: Permit | LeasedPermit
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
    shared: Granted | None = None
    """What all workers know of it; None within one process."""


class Member:
    """A deployment and its state; what strategies see as a candidate."""

    __slots__ = ("cost", "deployment", "health", "latency", "leased", "order", "permits")

    def __init__(self, deployment: Deployment, alias: Alias, cost: Decimal | None, *, shared: bool) -> None:
        self.deployment = deployment
        self.order = deployment.order
        self.cost = cost
        self.leased = LeasedPermits(deployment, fail_open=alias.fail_open) if shared else None
        self.permits: DeploymentPermits | LeasedPermits = self.leased or DeploymentPermits(
            deployment.rpm, deployment.tpm, deployment.max_parallel_requests
        )
        self.health = Health(
            cooldown_time=alias.cooldown_time,
            allowed_fails=alias.allowed_fails,
            alone=len(alias.deployments) == 1,
        )
        self.latency = Latency()

    @property
    def in_flight(self) -> int:
        """Calls under way, those of other workers included where they share."""
        return self.permits.in_flight + (self.leased.others if self.leased is not None else 0)

    def share_used(self, now: float) -> float:
        """Return the fuller of its windows, 0 empty … 1 full."""
        return self.permits.share_used(now)

    def recent_latency(self, now: float) -> float | None:
        """Seconds a call took of late; None when unknown."""
        if self.leased is not None and self.leased.granted.latency is not None:
            return self.leased.granted.latency
        return self.latency.recent(now)

    def wait(self, tokens: int, now: float, output: int = 0) -> float:
        """Seconds until a call can start; 0.0 now, `math.inf` upon a release."""
        health = self.health.wait(now)
        return health if health > 0 else self.permits.wait(tokens, now, output)

    def likely(self, now: float) -> float:
        """Seconds until a call of any size could start, as far as is known."""
        permits = self.leased.likely(now) if self.leased is not None else self.permits.wait(0, now)
        return max(self.health.wait(now), permits)

    def grant(self, tokens: int, now: float, output: int = 0) -> Grant:
        """Start a call that `wait` allowed."""
        return Grant(self.deployment, self.permits.take(tokens, now, output), self.health.begin())

    def status(self, now: float) -> DeploymentStatus:
        """Return how it stands."""
        return DeploymentStatus(
            deployment=self.deployment,
            in_flight=self.in_flight,
            healthy=self.health.healthy,
            cooling_until=self.health.cooling_until(now),
            blocked_until=self.permits.blocked_until(now),
            rpm_used=self.permits.requests_used(now),
            tpm_used=self.permits.tokens_used(now),
            latency=self.recent_latency(now),
            shared=self.leased.granted if self.leased is not None else None,
        )


def configured_cost(deployment: Deployment) -> Decimal | None:
    """Return USD of an input and an output token together, from the configuration's own prices; None without any."""
    prices = deployment.prices
    if prices.input_cost_per_token is None and prices.output_cost_per_token is None:
        return None
    return (prices.input_cost_per_token or Decimal(0)) + (prices.output_cost_per_token or Decimal(0))


def _without(group: tuple[Member, ...], unfit: frozenset[str]) -> tuple[Member, ...]:
    return tuple(member for member in group if member.deployment.name not in unfit)


class Router:
    """Deployments of every alias and the permits on them. `now` is monotonic seconds and never runs backwards."""

    __slots__ = ("_groups", "_members", "_random", "_strategies")

    def __init__(
        self,
        settings: Settings,
        random: Callable[[], float],
        cost: Callable[[Deployment], Decimal | None] = configured_cost,
        *,
        shared: bool = False,
    ) -> None:
        """Draw from `random`, [0, 1). `cost` prices a deployment for cost-based routing, USD; None sorts last.

        `shared`: permits and cool-downs come from a store that a `PermitExchange` asks.
        """
        self._random = random
        self._members: dict[str, Member] = {}
        self._groups: dict[str, tuple[Member, ...]] = {}
        self._strategies: dict[str, Strategy] = {}
        for name, alias in settings.aliases.items():
            group = [Member(deployment, alias, cost(deployment), shared=shared) for deployment in alias.deployments]
            self._members.update((member.deployment.name, member) for member in group)
            self._groups[name] = tuple(sorted(group, key=lambda member: member.order))
            self._strategies[name] = alias.strategy

    def acquire(  # noqa: PLR0913, PLR0917 - what a call asks for; positional on the hot path
        self,
        alias: str,
        tokens: int,
        now: float,
        tried: frozenset[str] = frozenset(),
        output: int = 0,
        unfit: frozenset[str] = frozenset(),
    ) -> Grant | float:
        """Return a grant, or the seconds until the earliest moment one can exist (`math.inf`: upon a release).

        `tokens` is the estimate of input and most output, `output` its part that is output. Deployments named in
        `tried` are taken only when no other can start now; among the rest, a higher `order` only when no lower one can.
        Those in `unfit` cannot serve the request and are never taken; they must not be all of the alias's. A grant must
        be released exactly once. Raises KeyError for an unknown alias.
        """
        group = self._groups[alias]
        if unfit:
            group = _without(group, unfit)
        if len(group) == 1:
            member = group[0]
            wait = member.wait(tokens, now, output)
            return wait if wait > 0 else member.grant(tokens, now, output)
        earliest = math.inf
        ready = []
        for member in group:
            wait = member.wait(tokens, now, output)
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
        return choose(self._strategies[alias], ready, now, self._random).grant(tokens, now, output)

    def release(  # noqa: PLR0913 - all that a call's end tells, each by its name
        self,
        grant: Grant,
        now: float,
        *,
        used_tokens: int | None,
        latency: float | None,
        error: RequestError | None,
        started: bool,
        used_output: int = 0,
        learned: Learned | None = None,
    ) -> None:
        """Give a grant back; a second release changes nothing.

        `used_tokens`: what the provider counted, None for a failed call; `used_output` its part that is output.
        `learned`: what its answer told of its limits. `latency`: seconds of a good call. `error`:
        how it failed. `started`: whether the call went out to the provider; what never did costs and proves nothing.
        """
        if grant.permit.released:
            return
        member = self._members[grant.deployment.name]
        if member.leased is not None and isinstance(grant.permit, LeasedPermit):
            leased = member.leased
            leased.release(grant.permit, used_tokens, now, started=started, used_output=used_output)
            if started and not isinstance(error, SAYS_NOTHING):
                leased.ended(
                    good=error is None or not is_failure(error, busy=True),
                    overloaded=is_overload(error),
                    latency=latency,
                )
            if learned is not None:
                leased.learn(learned)
        elif isinstance(member.permits, DeploymentPermits) and isinstance(grant.permit, Permit):
            member.permits.release(grant.permit, used_tokens, now, started=started)
        member.health.end(now, error, started=started, probe=grant.probe)
        if latency is not None and error is None and started:
            member.latency.add(latency, now)
        told = error.retry_after if isinstance(error, UpstreamError) and error.status == BUSY else None
        if told is not None and told > 0:
            until = now + min(told, LONGEST_COOLDOWN)
            if member.leased is not None:
                member.leased.penalise(until, now)
            else:
                member.permits.penalise(until)

    def other_available(self, alias: str, tried: frozenset[str], now: float) -> bool:
        """Whether a deployment outside `tried` could start a call now. Raises KeyError for an unknown alias."""
        return any(member.deployment.name not in tried and member.likely(now) <= 0 for member in self._groups[alias])

    def wait(self, alias: str, now: float, unfit: frozenset[str] = frozenset()) -> float:
        """Seconds until a deployment outside `unfit` could start a call; 0.0 now, `math.inf` upon a release.

        It is a situation's `wait_for_deployment`. Raises KeyError for an unknown alias.
        """
        group = self._groups[alias]
        return min((member.likely(now) for member in (_without(group, unfit) if unfit else group)), default=math.inf)

    def members(self) -> Mapping[str, tuple[Member, ...]]:
        """Return the deployments of each alias, lowest `order` first."""
        return self._groups

    def snapshot(self, now: float) -> tuple[DeploymentStatus, ...]:
        """Return every deployment as it stands, in the order of the configuration."""
        return tuple(member.status(now) for member in self._members.values())
