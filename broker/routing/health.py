"""Cool-down of one deployment: when it is left alone, for how long, and how it comes back. Imports errors only.

The rules are those of limits.md, "cooldown", and of delivery.md for 401, 403 and 404. A cool-down turns requests to the
other deployments of the alias. The only deployment of an alias has none to turn to: there, every request backs off by
itself, and a cool-down would only hold up the answers, one probe at a time. So it trips on `allowed_fails` alone, where
the configuration sets it.
"""

import math
from collections import deque
from typing import Final

from broker.delivery.retry import BUSY, DEPLOYMENT_FAULTS
from broker.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    RateLimitExceeded,
    RequestError,
    UpstreamError,
)

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

    __slots__ = ("_allowed_fails", "_alone", "_cooldown", "_counts", "_probing", "_tally", "_until")

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
        return math.inf if self._probing else 0.0

    def cooling_until(self, now: float) -> float | None:
        """Until when it is left alone, monotonic seconds; None when it is healthy or half open."""
        return self._until if self._until is not None and self._until > now else None

    def begin(self) -> bool:
        """Note the start of a call that `wait` allowed; True when it is the probe, as `end` wants to know."""
        if self._until is None:
            return False
        self._probing = True
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
            failed = error is not None and _is_failure(error)
            self._tally.count(now, good=not failed)
            trip = trip or (failed and self._too_many())
        elif probe:
            trip = trip or (error is not None and _is_failure(error))
            if not trip:
                self._until = None
        if trip:
            self._cool(now, error)

    def _trips(self, error: RequestError) -> bool:
        """Whether this one error is enough."""
        return not self._alone and isinstance(error, UpstreamError) and error.status in {BUSY, *DEPLOYMENT_FAULTS}

    def _too_many(self) -> bool:
        tally = self._tally
        if self._allowed_fails is not None:
            return tally.failed > self._allowed_fails
        calls = tally.good + tally.failed
        return not self._alone and calls >= FEWEST_CALLS and tally.failed > WORST_SHARE * calls

    def _cool(self, now: float, error: RequestError | None) -> None:
        told = error.retry_after if error is not None else None
        seconds = min(told, LONGEST_COOLDOWN) if told is not None and told > 0 else self._cooldown
        self._tally.clear()
        if seconds > 0:
            self._until = max(now + seconds, self._until or 0.0)
        else:
            self._until = None


def _is_failure(error: RequestError) -> bool:
    """Whether the deployment is to blame; being busy is no failure, and the caller's own limits are no upstream's."""
    if isinstance(error, UpstreamError) and error.status in DEPLOYMENT_FAULTS:
        return True
    return error.retriable and error.status != BUSY and not isinstance(error, RateLimitExceeded)
