"""Cool-down of one deployment: when it is left alone, for how long, and how it comes back. Imports errors only.

The rules are those of limits.md, "cooldown", and of delivery.md for 401, 403 and 404. A cool-down turns requests to the
other deployments of the alias. The only deployment of an alias has none to turn to: there, every request backs off by
itself, and a cool-down would only hold up the answers, one probe at a time. So it trips on `allowed_fails` alone, where
the configuration sets it.
"""

import math
from collections import deque
from typing import Final

from broker.delivery.retry import BUSY
from broker.errors import (
    DEPLOYMENT_FAULTS,
    Cancelled,
    DeadlineExceeded,
    Fault,
    InternalError,
    RateLimitExceeded,
    RequestError,
    UpstreamError,
    UpstreamTimeout,
)
from broker.limits.terms import Granted

MINUTE: Final = 60.0
"""Seconds of the past that failures are counted in."""

FEWEST_CALLS: Final = 5
"""Calls in the last minute below which a share of failures says nothing (limits.md)."""

WORST_SHARE: Final = 0.5
"""Share of failures above which a deployment cools down (limits.md)."""

LONGEST_COOLDOWN: Final = 600.0
"""Seconds for which a Retry-After is believed before a probe asks again."""

SAYS_NOTHING: Final = (Cancelled, DeadlineExceeded, InternalError)
"""Ends of a call that were ours, not the deployment's."""


class Tally:
    """Good and failed calls of the last minute, in steps of one second."""

    __slots__ = ("_steps", "failed", "good")

    def __init__(self) -> None:
        self.good = 0
        self.failed = 0
        self._steps: deque[list[int]] = deque()  # second, good, failed

    def count(self, now: float, *, good: bool) -> None:
        """Count a call that ended `now`, monotonic seconds."""
        second = int(now)
        steps = self._steps
        if not steps or steps[-1][0] != second:
            self._forget(second)
            steps.append([second, 0, 0])
        if good:
            steps[-1][1] += 1
            self.good += 1
        else:
            steps[-1][2] += 1
            self.failed += 1

    def _forget(self, second: int) -> None:
        steps = self._steps
        while steps and steps[0][0] <= second - MINUTE:
            _, good, failed = steps.popleft()
            self.good -= good
            self.failed -= failed

    def clear(self) -> None:
        """Start anew."""
        self.good = self.failed = 0
        self._steps.clear()


class Health:
    """Whether a deployment may be called. `now` is monotonic seconds.

    Healthy; cooling until a moment; then half open: one call at a time, until one succeeds.
    """

    __slots__ = (
        "_allowed_fails",
        "_alone",
        "_calm_until",
        "_cooldown",
        "_counts",
        "_may_probe",
        "_outcome",
        "_probing",
        "_shared",
        "_tally",
        "_told_failures",
        "_until",
        "_untold",
    )

    def __init__(self, *, cooldown_time: float, allowed_fails: int | None, alone: bool) -> None:
        """Cool for `cooldown_time` seconds where no Retry-After says otherwise; 0 cools only upon a Retry-After.

        `allowed_fails` a minute replace the share of failures. `alone`: the alias has no other deployment.
        """
        self._cooldown = cooldown_time
        self._allowed_fails = allowed_fails
        self._alone = alone
        self._counts = not alone or allowed_fails is not None
        self._tally = Tally()
        self._until: float | None = None
        self._probing = False
        self._shared = False
        self._may_probe = False
        self._untold = 0.0
        self._outcome: bool | None = None
        self._told_failures = 0
        self._calm_until = 0.0

    @property
    def healthy(self) -> bool:
        """Whether it may be called without restraint."""
        return self._until is None

    def wait(self, now: float) -> float:
        """Seconds until it may be called; 0.0 now, `math.inf` once the probe under way has ended."""
        if self._until is None:
            return 0.0
        if self._until > now:
            return self._until - now
        return math.inf if self._probing or (self._shared and not self._may_probe) else 0.0

    def cooling_until(self, now: float) -> float | None:
        """Until when it is left alone, monotonic seconds; None when it is healthy or half open."""
        return self._until if self._until is not None and self._until > now else None

    def begin(self) -> bool:
        """Note the start of a call that `wait` allowed; True when it is the probe, as `end` wants to know."""
        if self._until is None:
            return False
        self._probing, self._may_probe = True, False
        return True

    def end(self, now: float, error: RequestError | None, *, started: bool, probe: bool) -> None:
        """Note the end of a call. What is the request's fault counts as good: the deployment has answered."""
        if probe:
            self._probing = False
        if not started or isinstance(error, SAYS_NOTHING):
            return
        trip = error is not None and self._trips(error)
        if self._until is None:
            if not self._counts:
                return
            failed = error is not None and is_failure(error)
            self._tally.count(now, good=not failed)
            trip = trip or (failed and self._too_many(self._tally.good, self._tally.failed))
        elif probe:
            trip = trip or (error is not None and is_failure(error))
            self._outcome = not trip
            if not trip:
                self._until = None
        if trip:
            self._cool(now, error)

    def tell(self, now: float) -> tuple[float, bool | None]:
        """Return what other workers are to hear: seconds to cool down for, and how the probe ended; each told once."""
        cool_for, self._untold = max(0.0, self._untold - now), 0.0
        outcome, self._outcome = self._outcome, None
        return cool_for, outcome

    def hear(self, granted: Granted, now: float) -> None:
        """Follow what all workers know. News of our own that nobody has heard yet goes first."""
        self._shared = True
        if self._untold > 0 or self._outcome is not None:
            return
        if granted.cooling_for > 0:
            self._until = now + granted.cooling_for
        elif granted.half_open:
            self._until = min(self._until or now, now)
            self._may_probe = granted.probe
        elif not self._probing:
            self._until = None
        failures, self._told_failures = granted.failed - self._told_failures, granted.failed
        news = self._until is None and self._counts and failures > 0 and now >= self._calm_until
        if news and self._too_many(granted.good, granted.failed):
            self._cool(now, None)

    def alone_again(self) -> None:
        """Go by what this process sees: the others cannot be heard."""
        self._shared = False

    def _trips(self, error: RequestError) -> bool:
        """Whether this one error is enough."""
        told = error.fault if isinstance(error, UpstreamError) else None
        return not self._alone and told in {Fault.RATE_LIMIT, *DEPLOYMENT_FAULTS}

    def _too_many(self, good: int, failed: int) -> bool:
        if self._allowed_fails is not None:
            return failed > self._allowed_fails
        calls = good + failed
        return not self._alone and calls >= FEWEST_CALLS and failed > WORST_SHARE * calls

    def _cool(self, now: float, error: RequestError | None) -> None:
        told = error.retry_after if error is not None else None
        seconds = min(told, LONGEST_COOLDOWN) if told is not None and told > 0 else self._cooldown
        self._tally.clear()
        if seconds > 0:
            self._until = self._untold = max(now + seconds, self._until or 0.0)
            self._calm_until = self._until + MINUTE  # what was counted before the trip is in the minute so long
        else:
            self._until = None


def is_failure(error: RequestError, *, busy: bool = False) -> bool:
    """Whether the deployment is to blame; being busy is one only where asked for, a caller's own limits never are."""
    if isinstance(error, UpstreamError) and error.fault in DEPLOYMENT_FAULTS:
        return True
    return error.retriable and (busy or error.status != BUSY) and not isinstance(error, RateLimitExceeded)


def is_overload(error: RequestError | None) -> bool:
    """Whether an error says that there were too many calls at once: 429, overload, time-outs (limits.md)."""
    if isinstance(error, UpstreamError):
        return error.fault in {Fault.RATE_LIMIT, Fault.OVERLOADED}
    return isinstance(error, UpstreamTimeout)
