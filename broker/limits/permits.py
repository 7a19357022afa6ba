"""Permits of one deployment within one process: slots, requests and tokens a minute. Imports the windows only.

Where workers share their limits, `leased` stands in this one's place, and this one serves it while the store is away.
"""

import math

from broker.limits.buckets import SlidingWindow, Step


class Permit:
    """The right to start one attempt on one deployment; given back exactly once, further releases change nothing."""

    __slots__ = ("released", "request_step", "reserved", "token_step")

    def __init__(self, request_step: Step | None, token_step: Step | None, reserved: int) -> None:
        self.released = False
        self.request_step = request_step
        self.token_step = token_step
        self.reserved = reserved


class DeploymentPermits:
    """What one deployment may do now. `now` is monotonic seconds; limits are per 60 s, None means no limit."""

    __slots__ = ("_blocked_until", "_requests", "_tokens", "in_flight", "max_parallel", "unlimited")

    def __init__(self, rpm: int | None, tpm: int | None, max_parallel: int | None) -> None:
        self.in_flight = 0
        self.max_parallel = max_parallel
        self._requests = SlidingWindow(rpm) if rpm is not None else None
        self._tokens = SlidingWindow(tpm) if tpm is not None else None
        self._blocked_until = -math.inf
        self.unlimited = max_parallel is None and rpm is None and tpm is None
        """Whether `wait` depends on nothing but a penalty; such a deployment must cost next to nothing."""

    def wait(self, tokens: int, now: float, output: int = 0) -> float:
        """Seconds until an attempt of about `tokens` tokens can start; 0.0 now, `math.inf` only upon a release."""
        del output  # input and output are told apart by shared limits only
        if self.unlimited:
            return 0.0 if self._blocked_until <= now else self._blocked_until - now
        if self.max_parallel is not None and self.in_flight >= self.max_parallel:
            return math.inf
        wait = max(0.0, self._blocked_until - now)
        if self._requests is not None:
            wait = max(wait, self._requests.wait(1, now))
        if self._tokens is not None:
            wait = max(wait, self._tokens.wait(tokens, now))
        return wait

    def take(self, tokens: int, now: float, output: int = 0) -> Permit:
        """Start an attempt that is expected to use `tokens` tokens (input and most output).

        Ask `wait` first: ValueError is raised when a window has no room, and nothing is taken then.
        """
        del output
        if self.unlimited:
            self.in_flight += 1
            return Permit(None, None, 0)
        tokens = max(0, tokens)
        if self._tokens is None:
            permit = Permit(self._requests.take(1, now) if self._requests is not None else None, None, 0)
        else:
            token_step = self._tokens.take(tokens, now)
            try:
                request_step = self._requests.take(1, now) if self._requests is not None else None
            except ValueError:
                self._tokens.settle(token_step, -tokens, now)
                raise
            permit = Permit(request_step, token_step, min(tokens, self._tokens.limit))
        self.in_flight += 1
        return permit

    def release(
        self, permit: Permit, used_tokens: int | None, now: float, *, started: bool = True, used_output: int = 0
    ) -> None:
        """Give the slot back and settle the tokens to `used_tokens`; None, a rejected or failed call, costs none.

        The request stays counted when the call reached the provider, who counts it too; `started=False` gives it back.
        """
        del used_output
        if permit.released:
            return
        permit.released = True
        self.in_flight -= 1
        if self.unlimited:
            return
        if permit.token_step is not None and self._tokens is not None:
            used = used_tokens if used_tokens is not None and started else 0
            self._tokens.settle(permit.token_step, used - permit.reserved, now)
        if not started and permit.request_step is not None and self._requests is not None:
            self._requests.settle(permit.request_step, -1, now)

    def penalise(self, until: float) -> None:
        """Start nothing before `until`: the provider said so (Retry-After, an exhausted window). Never shortened."""
        self._blocked_until = max(self._blocked_until, until)

    def blocked_until(self, now: float) -> float | None:
        """Until when the provider wants no call, monotonic seconds; None when it does not say."""
        return self._blocked_until if self._blocked_until > now else None

    def requests_used(self, now: float) -> int | None:
        """Requests started in the last 60 s; None without such a limit."""
        return None if self._requests is None else self._requests.used(now)

    def tokens_used(self, now: float) -> int | None:
        """Tokens reserved or spent in the last 60 s; None without such a limit."""
        return None if self._tokens is None else self._tokens.used(now)

    def share_used(self, now: float) -> float:
        """Return the fuller window's filling, 0 empty … 1 full; 0.0 without such limits."""
        windows = [window for window in (self._requests, self._tokens) if window is not None]
        return max((window.used(now) / window.limit for window in windows), default=0.0)
