"""How the simulator behaves: how long an answer takes, which call fails, what the limits leave. Pure but for its clock.

Limits are windows of a minute, counted as providers tell it: a call from its arrival, its tokens from then on too.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

WINDOW_S: Final = 60.0
CHARACTERS_A_TOKEN: Final = 4


@dataclass(frozen=True)
class Behaviour:
    """What was asked for on the command line. Times are seconds; limits a minute, None without."""

    latency: float = 0.0
    tokens_per_second: float | None = None
    """Of a stream, or of the whole answer where it is not streamed; None for at once."""
    output_tokens: int = 16
    rpm: int | None = None
    tpm: int | None = None
    faults: Mapping[str, float] = field(default_factory=dict)
    """Fault → part of the calls it meets: a status such as `429` or `500`, `drop`, `hang`, `html`, `cut`."""
    seed: int = 0


@dataclass
class Call:
    """One call as it was seen."""

    api: str
    request_id: str
    model: str
    input_tokens: int
    fault: str | None
    headers: dict[str, str]
    wait: float = 0.0
    """Seconds until a limit lets it in; 0 where it is in."""


def tokens_of(text: str) -> int:
    """Count the tokens of a text: four characters each, at least one."""
    return max(1, -(-len(text) // CHARACTERS_A_TOKEN))


class Desk:
    """Decides each call and keeps the counts."""

    def __init__(self, behaviour: Behaviour, now: Callable[[], float]) -> None:
        """`now` gives monotonic seconds."""
        self.behaviour = behaviour
        self._now = now
        self._random = random.Random(behaviour.seed)  # noqa: S311 - faults that can be repeated
        self._script: deque[str] = deque()
        self._calls: deque[float] = deque()
        self._tokens: deque[tuple[float, int]] = deque()
        self._used = 0
        self.in_flight = self.peak = 0
        self.by_request: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.by_api: Counter[str] = Counter()

    def script(self, faults: list[str]) -> None:
        """Meet the next calls with these faults, in order; `ok` is none."""
        self._script.extend(faults)

    def decide(self, api: str, request_id: str, model: str, input_tokens: int) -> Call:
        """Return what becomes of a call that arrives now."""
        now, behaviour = self._now(), self.behaviour
        self._forget(now)
        self.by_request[request_id] += 1
        self.by_api[api] += 1
        wait = self._wait(now, input_tokens)
        fault = None
        if wait <= 0:
            self._calls.append(now)
            fault = self._fault()
        if fault is None and wait <= 0:
            used = input_tokens + behaviour.output_tokens
            self._tokens.append((now, used))
            self._used += used
        headers = self._headers(api, now, wait)
        return Call(api, request_id, model, input_tokens, fault, headers, wait)

    def began(self) -> None:
        """Count a call that is being answered."""
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)

    def ended(self, outcome: str) -> None:
        """Count its end: `answered`, a status, or the fault."""
        self.in_flight -= 1
        self.outcomes[outcome] += 1

    def stats(self) -> dict[str, Any]:
        """What `GET /-/stats` answers."""
        return {
            "calls": self.by_request.total(),
            "in_flight": self.in_flight,
            "peak": self.peak,
            "apis": dict(self.by_api),
            "outcomes": dict(self.outcomes),
            "requests": dict(self.by_request),
        }

    def _fault(self) -> str | None:
        if self._script:
            planned = self._script.popleft()
            return None if planned == "ok" else planned
        draw = self._random.random()
        for fault, part in self.behaviour.faults.items():
            if draw < part:
                return fault
            draw -= part
        return None

    def _forget(self, now: float) -> None:
        while self._calls and self._calls[0] <= now - WINDOW_S:
            self._calls.popleft()
        while self._tokens and self._tokens[0][0] <= now - WINDOW_S:
            self._used -= self._tokens.popleft()[1]

    def _wait(self, now: float, tokens: int) -> float:
        waits = [0.0]
        if self.behaviour.rpm is not None and len(self._calls) >= self.behaviour.rpm:
            waits.append(self._calls[0] + WINDOW_S - now)
        if self.behaviour.tpm is not None and self._tokens and self._used + tokens > self.behaviour.tpm:
            waits.append(self._tokens[0][0] + WINDOW_S - now)
        return max(waits)

    def _headers(self, api: str, now: float, wait: float) -> dict[str, str]:
        """Return the limit headers of the API: each provider has its own names (docs, "Rate limits")."""
        behaviour = self.behaviour
        headers: dict[str, str] = {}
        reset = self._calls[0] + WINDOW_S - now if self._calls else 0.0
        for name, limit, used in (("requests", behaviour.rpm, len(self._calls)), ("tokens", behaviour.tpm, self._used)):
            if limit is None or api == "gemini":
                continue
            left = str(max(0, limit - used))
            if api == "openai":
                headers |= {
                    f"x-ratelimit-limit-{name}": str(limit),
                    f"x-ratelimit-remaining-{name}": left,
                    f"x-ratelimit-reset-{name}": f"{reset:.3f}s",
                }
            else:
                headers |= {
                    f"anthropic-ratelimit-{name}-limit": str(limit),
                    f"anthropic-ratelimit-{name}-remaining": left,
                }
        if wait > 0 and api != "gemini":
            headers["retry-after"] = str(max(1, round(wait)))
        return headers
