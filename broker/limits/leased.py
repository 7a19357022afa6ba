"""Permits of one deployment out of what all workers share: slots and slices that the store has granted this one.

A call starts on what is here already; nothing waits for Redis but the first call after a pause. Imports nothing of ours
but what the exchange is made of, and the local windows that serve while the store is away and the alias
fails open.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from broker.config import Deployment
from broker.limits.permits import DeploymentPermits, Permit
from broker.limits.terms import SLICE_SECONDS, WINDOWS_S, WORKER_SECONDS, Granted, Learned, Need, Settle, Units

ASK_SLOTS: Final = 0.25
"""Seconds after which slots that other workers hold are asked for again: nobody keeps what another lacks."""
RATE_WEIGHT: Final = 0.5
"""Weight of the newest exchange in the rate of starts, from which the next slice is sized."""


@dataclass(slots=True, eq=False)
class _Leased:
    """What is left of a slice; `until` is the clock's monotonic seconds."""

    receipt: str
    until: float
    requests: int
    input: int
    output: int


class LeasedPermit:
    """The right to start one attempt; given back exactly once, further releases change nothing."""

    __slots__ = ("input", "local", "output", "part", "released")

    def __init__(self, part: _Leased | None, given: int, output: int, local: Permit | None = None) -> None:
        self.released = False
        self.part = part
        self.input = given
        self.output = output
        self.local = local


class LeasedPermits:
    """As `DeploymentPermits`, over leased slots and slices. `now` is monotonic seconds."""

    def __init__(self, deployment: Deployment, *, fail_open: bool) -> None:
        limits = {name: getattr(deployment, name) for name in WINDOWS_S}
        self.limits = {name: limit for name, limit in limits.items() if limit is not None}
        self.max_parallel = deployment.max_parallel_requests
        self.in_flight = 0
        self.others = 0
        """Calls of other workers, as far as they have told."""
        self.granted = Granted(limits=self.limits)
        self.away = False
        """Whether the store did not answer the last exchange."""
        self.short = False
        """Whether a call found no permit since the last exchange."""
        self.ask_at = -math.inf
        self._fail_open = fail_open
        self._local = DeploymentPermits(deployment.rpm, deployment.tpm, deployment.max_parallel_requests)
        self._slots: int | None = None if self.max_parallel is None else 0
        self._slots_until = -math.inf
        self._windowed = bool(self.limits)
        self._slices: deque[_Leased] = deque()
        self._blocked_until = -math.inf
        self._blocked_untold = 0.0
        self._settles: dict[str, list[int]] = {}
        self._started = [0, 0, 0]
        self._rate = [0.0, 0.0, 0.0]
        self._exchanged: float | None = None
        self._good = self._failed = self._overloaded = 0
        self._latency = 0.0
        self._limited = False
        self._learned: Learned | None = None

    @property
    def unlimited(self) -> bool:
        """Whether nothing but a penalty can hold a call up."""
        return self._slots is None and not self._windowed

    def wait(self, tokens: int, now: float, output: int = 0) -> float:
        """Seconds until an attempt can start; 0.0 now, `math.inf` upon a release or an exchange."""
        if self._blocked_until > now:
            return self._blocked_until - now
        if self._slots is None and not self._windowed:
            return 0.0
        if self.away and self._fail_open:
            # What was started on leased slots still runs.
            full = self.max_parallel is not None and self.in_flight >= self.max_parallel
            return math.inf if full else self._local.wait(tokens, now)
        if self._slots is not None and (self.in_flight >= self._slots or self._slots_until <= now):
            self.short = self._limited = True
            return math.inf
        if self._windowed and self._part(tokens - output, output, now) is None:
            self.short = True
            return math.inf
        return 0.0

    def likely(self, now: float) -> float:
        """Seconds until an attempt could start as far as is known, the size of the attempt left aside."""
        if self._blocked_until > now:
            return self._blocked_until - now
        if self._slots is not None and self.in_flight >= max(self._slots, 1 if self._slots_until <= now else 0):
            return math.inf
        return max(0.0, self.ask_at - now) if self._windowed and not self._slices else 0.0

    def take(self, tokens: int, now: float, output: int = 0) -> LeasedPermit:
        """Start an attempt that `wait` allowed. Raises ValueError where nothing is there."""
        if self.away and self._fail_open and not self.unlimited:
            local = self._local.take(tokens, now)
            self.in_flight += 1
            return LeasedPermit(None, 0, 0, local)
        if self._windowed:
            part = self._part(tokens - output, output, now)
            if part is None:
                raise ValueError(f"no slice holds a request of {tokens} tokens")
            given, output = min(tokens - output, part.input), min(output, part.output)
            part.requests -= 1
            part.input -= given
            part.output -= output
            started = self._started
            started[0] += 1
            started[1] += given
            started[2] += output
            self.in_flight += 1
            return LeasedPermit(part, given, output)
        self.in_flight += 1
        return LeasedPermit(None, 0, 0)

    def release(
        self, permit: LeasedPermit, used_tokens: int | None, now: float, *, started: bool = True, used_output: int = 0
    ) -> None:
        """Give the slot back and settle the tokens to the truth; None, a rejected or failed call, costs none."""
        if permit.released:
            return
        permit.released = True
        self.in_flight -= 1
        if permit.local is not None:
            self._local.release(permit.local, used_tokens, now, started=started)
        part = permit.part
        if part is None:
            return
        truth = (used_tokens - used_output, used_output) if used_tokens is not None and started else (0, 0)
        change = (0 if started else -1, truth[0] - permit.input, truth[1] - permit.output)
        if any(change):
            settle = self._settles.setdefault(part.receipt, [0, 0, 0])
            for place, difference in enumerate(change):
                settle[place] += difference

    def ended(self, *, good: bool, overloaded: bool, latency: float | None) -> None:
        """Count a call that reached the provider."""
        if good:
            self._good += 1
            self._latency += latency or 0.0
        else:
            self._failed += not overloaded
            self._overloaded += overloaded

    def learn(self, learned: Learned) -> None:
        """Keep what a provider's answer told until the next exchange."""
        self._learned = learned

    def penalise(self, until: float, now: float | None = None) -> None:
        """Start nothing before `until`: the provider said so. Never shortened."""
        if until > self._blocked_until:
            self._blocked_until = until
            self._blocked_untold = until if now is None else max(0.0, until - now)

    def blocked_until(self, now: float) -> float | None:
        """Until when the provider wants no call, monotonic seconds; None when it does not say."""
        return self._blocked_until if self._blocked_until > now else None

    def need(self, deployment: str, calls: int, waiting: Units, first: Units, now: float) -> Need:
        """Return what is to be told and asked now; what is told here is not told again."""
        self._expire(now)
        self._measure(now)
        want = Units()
        if self._windowed and (calls or self._rate[0] > 0):
            left = [sum(getattr(part, name) for part in self._slices) for name in ("requests", "input", "output")]
            ahead = [math.ceil(rate * SLICE_SECONDS) for rate in self._rate]
            asked = (waiting.requests, waiting.input, waiting.output)
            want = Units(*(max(0, each + more - have) for each, more, have in zip(asked, ahead, left, strict=True)))
            if not calls:
                first = Units(min(1, want.requests), 0, 0)
            elif want.requests < first.requests:
                want = first if self.short else Units()
        need = Need(
            deployment=deployment,
            limits=self.limits,
            max_parallel=self.max_parallel,
            demand=self.in_flight + calls,
            running=self.in_flight,
            first=first if want != Units() else Units(),
            want=want,
            settles=tuple(Settle(receipt, *change) for receipt, change in self._settles.items() if any(change)),
            good=self._good,
            failed=self._failed,
            overloaded=self._overloaded,
            limited=self._limited,
            latency_sum=self._latency,
            blocked_for=self._blocked_untold,
            learned=self._learned,
        )
        self._settles.clear()
        self._good = self._failed = self._overloaded = 0
        self._latency = self._blocked_untold = 0.0
        self._limited = self.short = False
        self._learned = None
        return need

    def apply(self, granted: Granted, need: Need, asked_at: float, now: float) -> None:
        """Take what was granted to a need that was told at `asked_at`."""
        self.granted = granted
        self.away = False
        self.others = max(0, granted.running - need.running)
        self._slots, self._slots_until = granted.slots, asked_at + WORKER_SECONDS
        self._windowed = bool(granted.limits)
        if granted.blocked_for > 0:
            self._blocked_until = max(self._blocked_until, now + granted.blocked_for)
        part = granted.slice
        if part is not None:
            units = part.units
            self._slices.append(
                _Leased(part.receipt, asked_at + SLICE_SECONDS, units.requests, units.input, units.output)
            )
        if granted.wait > 0:
            self.ask_at = now + granted.wait
        elif granted.slots is not None and granted.slots < need.demand:
            self.ask_at = now + ASK_SLOTS
        else:
            self.ask_at = -math.inf

    def lost(self) -> None:
        """Note that the store does not answer: what is leased runs out, then calls wait, or fail open."""
        self.away = True

    def share_used(self, now: float) -> float:
        """Return the fullest window over all workers, 0 empty … 1 full; 0.0 without limits."""
        del now
        granted = self.granted
        return max((granted.used.get(name, 0) / limit for name, limit in granted.limits.items()), default=0.0)

    def requests_used(self, now: float) -> int | None:
        """Requests of all workers in the last 60 s; None without such a limit."""
        del now
        return self.granted.used.get("rpm", 0) if "rpm" in self.granted.limits else None

    def tokens_used(self, now: float) -> int | None:
        """Tokens of all workers in the last 60 s; None without such a limit."""
        del now
        return self.granted.used.get("tpm", 0) if "tpm" in self.granted.limits else None

    def _part(self, given: int, output: int, now: float) -> _Leased | None:
        """Return a slice that holds the request; one larger than the limit needs the whole of it."""
        limits = self.granted.limits
        for part in self._slices:
            if part.until <= now or part.requests < 1:
                continue
            short = max(0, given - part.input) + max(0, output - part.output)
            if not short:
                return part
            tightest = min((limit for name, limit in limits.items() if name[0] != "r"), default=math.inf)
            if given + output > tightest and part.input + part.output >= tightest:
                return part
        return None

    def _expire(self, now: float) -> None:
        while self._slices and self._slices[0].until <= now:
            part = self._slices.popleft()
            if part.requests > 0 or part.input > 0 or part.output > 0:
                settle = self._settles.setdefault(part.receipt, [0, 0, 0])
                for place, rest in enumerate((part.requests, part.input, part.output)):
                    settle[place] -= rest

    def _measure(self, now: float) -> None:
        if self._exchanged is not None and now > self._exchanged:
            passed = now - self._exchanged
            weight = min(1.0, RATE_WEIGHT * passed / ASK_SLOTS)
            for place, started in enumerate(self._started):
                self._rate[place] += weight * (started / passed - self._rate[place])
                if self._rate[place] < 0.05:  # noqa: PLR2004 - one start in 20 s is no rate to lease ahead for
                    self._rate[place] = 0.0
        self._exchanged = now
        self._started = [0, 0, 0]
