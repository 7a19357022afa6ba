"""A window that moves with time: never more than a number of units in any stretch of its length. Imports nothing."""

from collections import deque
from typing import Final

STEPS: Final = 1000
"""Steps a window is kept in; units taken within one step (60 ms of 60 s) expire together, with the last of them."""

SHORTEST_WAIT: Final = 0.001
"""Seconds a refusal lasts at least: below this a timer cannot sleep, and rounding could answer for ever "not yet"."""


class Step:
    """Units that were taken close together. `expires` and `closes` are seconds of the caller's monotonic clock."""

    __slots__ = ("closes", "expires", "units")

    def __init__(self, units: int, expires: float, closes: float) -> None:
        self.units = units
        self.expires = expires
        self.closes = closes


class SlidingWindow:
    """At most `limit` units start within any `window` seconds, wherever that window begins; not only clock minutes.

    A stretch is half open: a unit taken at 0 has left the window at 60. Units are kept in steps and leave with the last
    one of their step, so a unit may count up to a thousandth of the window too long, never too short. Memory is at most
    `STEPS` + 2 steps, whatever the rate. `now` is monotonic seconds and never runs backwards.
    """

    __slots__ = ("_grain", "_steps", "_used", "_window", "limit")

    def __init__(self, limit: int, window: float = 60.0) -> None:
        """Allow `limit` units per `window` seconds. Raises ValueError unless both are positive."""
        if limit < 1 or window <= 0:
            raise ValueError(f"a window needs a positive limit and length, not {limit} per {window} s")
        self.limit = limit
        self._window = window
        self._grain = window / STEPS
        self._used = 0
        self._steps: deque[Step] = deque()

    def _expire(self, now: float) -> None:
        steps = self._steps
        while steps and steps[0].expires <= now:
            self._used -= steps.popleft().units

    def used(self, now: float) -> int:
        """Units inside the window that ends `now`."""
        self._expire(now)
        return self._used

    def wait(self, n: int, now: float) -> float:
        """Seconds until `n` units fit; 0.0 when they fit now.

        More than the limit is treated as the limit: such a request is served alone, rather than never.
        """
        limit = self.limit
        excess = self._used + min(n, limit) - limit
        if excess <= 0:
            return 0.0
        self._expire(now)
        excess = self._used + min(n, limit) - limit
        if excess <= 0:
            return 0.0
        for step in self._steps:
            excess -= step.units
            if excess <= 0:
                return max(step.expires - now, SHORTEST_WAIT)
        raise AssertionError("units are counted that no step holds")

    def take(self, n: int, now: float) -> Step:
        """Count `n` units (at most the limit) as started now. Raises ValueError when `wait` would not be 0.

        The step is the receipt that `settle` takes.
        """
        n = min(n, self.limit)
        if self._used + n > self.limit:
            self._expire(now)
            if self._used + n > self.limit:
                raise ValueError(f"{n} units do not fit: {self._used} of {self.limit} are taken")
        self._used += n
        steps = self._steps
        if steps and now < steps[-1].closes:
            step = steps[-1]
            step.units += n
            step.expires = now + self._window
            return step
        if len(steps) > STEPS:
            self._expire(now)
        step = Step(n, now + self._window, now + self._grain)
        steps.append(step)
        return step

    def settle(self, step: Step, difference: int, now: float) -> None:
        """Correct what was taken in `step` by `difference` units: negative gives back, positive may exceed the limit.

        The correction counts at the time of taking, so it is without effect once that has left the window.
        """
        self._expire(now)
        if step.expires > now:
            difference = max(difference, -step.units)
            step.units += difference
            self._used += difference
