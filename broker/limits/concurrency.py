"""Adaptive concurrency of one deployment: halved on overload, grown back while calls wait for it. Pure numbers.

The same rule stands in Lua, in `redis_limits_scripts`, since it has to be atomic over all workers; one contract suite
runs over both.
"""

from dataclasses import dataclass
from typing import Final

CUT_SECONDS: Final = 1.0
"""At most one cut in so long: a burst of calls that were started together is one overload."""
RETURN_SHARE: Final = 0.75
"""Share of the level that was too much up to which concurrency grows by a quarter a second; then by one a round."""
FORGET_SECONDS: Final = 300.0
"""Without overload for so long, and without calls waiting, nothing limits any more."""
FORGET_TIMES: Final = 4.0
"""Grown to so many times the level that was once too much, it limits nothing any more."""
SLOWER: Final = 2.0
"""Calls of late that take so many times longer than they used to: the deployment fills up, so growth stops."""
FAST_WEIGHT: Final = 0.2
SLOW_WEIGHT: Final = 0.02


@dataclass(slots=True)
class Concurrency:
    """Its state; `limit` None while nothing has taught one. Times are seconds, latencies too."""

    limit: float | None = None
    threshold: float = 0.0
    peak: float = 0.0
    cut_at: float = -1e9
    grown_at: float = -1e9
    fast: float | None = None
    slow: float | None = None

    def measured(self, calls: int, seconds: float) -> None:
        """Note that `calls` good calls took `seconds` together."""
        if calls <= 0:
            return
        mean = seconds / calls
        for _ in range(min(calls, 10)):
            self.fast = mean if self.fast is None else self.fast + FAST_WEIGHT * (mean - self.fast)
            self.slow = mean if self.slow is None else self.slow + SLOW_WEIGHT * (mean - self.slow)

    def adapt(self, now: float, *, good: int, overloaded: int, limited: bool, running: int, cap: int | None) -> None:  # noqa: PLR0913
        """Follow what happened since the last time: `running` calls of all workers, `limited`: others waited."""
        if overloaded > 0:
            if now - self.cut_at >= CUT_SECONDS:
                level = max(1.0, self.limit if self.limit is not None else float(running))
                self.peak = max(self.peak, level)
                self.limit = max(1.0, float(int(level / 2)))
                self.threshold = level * RETURN_SHARE
                self.cut_at = self.grown_at = now
            return
        if self.limit is None:
            return
        filling = self.fast is not None and self.slow is not None and self.fast > SLOWER * self.slow
        if limited and good > 0 and not filling:
            if self.limit >= self.threshold:
                self.limit += good / self.limit
            elif now - self.grown_at >= CUT_SECONDS:
                self.limit = min(self.threshold, max(self.limit + 1, self.limit * 1.25))
                self.grown_at = now
        healthy = not limited and now - self.cut_at >= FORGET_SECONDS
        if healthy or (cap is not None and self.limit >= cap) or self.limit >= FORGET_TIMES * self.peak:
            self.limit, self.peak = None, 0.0
