"""Injected time: nothing in the core asks the operating system what time it is."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now_ms(self) -> int:
        """Unix time in milliseconds; what headers and the ledger carry."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards; what durations and limits are computed from."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        """Return unix milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told to; both of its faces move together. For tests and simulations."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms
        self._monotonic = 0.0

    def now_ms(self) -> int:
        """Return unix milliseconds."""
        return self._now_ms

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move time forward by `seconds`, which must not be negative."""
        if seconds < 0:
            raise ValueError(f"time does not run backwards: {seconds} s")
        self._monotonic += seconds
        self._now_ms += round(seconds * 1000)
