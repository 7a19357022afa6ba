"""Decides what becomes of each call, and keeps the counts: what limits leave, which call fails, what a cache knows.

Pure but for its clock. Limits are windows counted as providers tell it: a call from its arrival, its tokens too.
"""

import hashlib
import random
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from broker.simulate.answers import Plan, Wanted
from broker.simulate.api import Limits
from broker.simulate.behaviour import FREE, Behaviour
from broker.simulate.samples import CHARACTERS_A_TOKEN, tokens_of

LEAST_CACHED: Final = 1024
"""Tokens of a prefix that OpenAI and Gemini 2.5 find again, and that Anthropic takes a marker for; OpenAI's guide to
prompt caching also names the step:"""
CACHE_STEP: Final = 128
MOST_PREFIXES: Final = 20_000


@dataclass
class _Window:
    """What one model has been sent within the window."""

    calls: deque[float] = field(default_factory=deque)
    tokens: deque[tuple[float, int, int]] = field(default_factory=deque)
    """Arrival, input tokens, output tokens."""
    used: list[int] = field(default_factory=lambda: [0, 0])

    def forget(self, before: float) -> None:
        while self.calls and self.calls[0] <= before:
            self.calls.popleft()
        while self.tokens and self.tokens[0][0] <= before:
            _, came, went = self.tokens.popleft()
            self.used[0] -= came
            self.used[1] -= went

    def use(self, now: float, came: int, went: int) -> None:
        self.tokens.append((now, came, went))
        self.used[0] += came
        self.used[1] += went


@dataclass
class Call:
    """One call as it was seen."""

    api: str
    request_id: str
    model: str
    fault: str | None
    limits: Limits
    plan: Plan
    latency: float
    paid: bool
    """Whether a provider would bill it: it began to answer, whether or not the answer arrives."""


class Desk:
    """Decides each call and keeps the counts."""

    def __init__(self, behaviour: Behaviour, now: Callable[[], float], unix: Callable[[], float]) -> None:
        """`now` gives monotonic seconds, `unix` those since 1970."""
        self.behaviour = behaviour
        self._now, self._unix = now, unix
        self._random = random.Random(behaviour.seed)  # noqa: S311 - faults that can be repeated
        self._script: deque[str] = deque()
        self._turn = 0
        self._windows: defaultdict[tuple[str, str], _Window] = defaultdict(_Window)
        self._prefixes: OrderedDict[bytes, None] = OrderedDict()
        self.in_flight = self.peak = self.paid = self.cut = 0
        self.by_request: Counter[str] = Counter()
        self.paid_by_request: Counter[str] = Counter()
        self.again: Counter[str] = Counter()
        """Of the requests that were paid more than once: how often."""
        self.outcomes: Counter[str] = Counter()
        self.by_api: Counter[str] = Counter()
        self.by_model: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def script(self, faults: Sequence[str]) -> None:
        """Meet the next calls with these faults, in order; `ok` is none."""
        self._script.extend(faults)

    def decide(self, api: str, request_id: str, wanted: Wanted) -> Call:
        """Return what becomes of a good request that arrives now."""
        behaviour, tokens = self.behaviour, tokens_of(wanted.prompt)
        self._arrived(api, request_id)
        limits = self._limit(api, wanted, tokens)
        fault = self._fault(wanted.model) if wanted.billed and limits.wait <= 0 else None
        paid = wanted.billed and limits.wait <= 0 and not (fault is not None and (fault.isdigit() or fault in FREE))
        if paid:
            self._pay(request_id)
        low, high = behaviour.latency
        cached, written = self._known(api, wanted) if paid else (0, 0)
        plan = Plan(
            identity=uuid.uuid4().hex[:24],
            created=int(self._unix()),
            output_tokens=behaviour.output_tokens,
            cached=cached,
            written=written,
            text=f"answer {self.paid} to {request_id}" if behaviour.numbered else None,
            refuses=fault == "refusal",
            filtered=fault == "content_policy",
        )
        latency = low if low == high else self._random.uniform(low, high)
        return Call(api, request_id, wanted.model, fault, limits, plan, latency, paid)

    def refused(self, api: str, request_id: str, status: int) -> None:
        """Count a request that was refused as malformed, unknown or unauthorized: no limit counts it."""
        self._arrived(api, request_id)
        self.outcomes[str(status)] += 1

    def _arrived(self, api: str, request_id: str) -> None:
        self.by_api[api] += 1
        if request_id:
            self.by_request[request_id] += 1

    def _pay(self, request_id: str) -> None:
        self.paid += 1
        if request_id:
            self.paid_by_request[request_id] += 1
            if self.paid_by_request[request_id] > 1:
                self.again[request_id] = self.paid_by_request[request_id]

    def began(self) -> None:
        """Count a call that is being answered."""
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)

    def ended(self, call: Call, *, cut: bool) -> None:
        """Count its end; `cut` where the caller went away before it had everything."""
        self.in_flight -= 1
        outcome = "429" if call.limits.wait > 0 else call.fault or "answered"
        if cut and outcome not in {"hang", "drop", "cut"}:
            outcome = "disconnected"
        self.cut += cut and call.paid
        self.outcomes[outcome] += 1
        self.by_model[call.model][outcome] += 1

    def totals(self) -> dict[str, Any]:
        """What `GET /-/totals` answers: all counts but those of each request."""
        return {
            "calls": self.by_api.total(),
            "in_flight": self.in_flight,
            "peak": self.peak,
            "paid": self.paid,
            "cut": self.cut,
            "apis": dict(self.by_api),
            "models": {model: dict(outcomes) for model, outcomes in self.by_model.items()},
            "outcomes": dict(self.outcomes),
            "again": dict(self.again),
        }

    def stats(self) -> dict[str, Any]:
        """What `GET /-/stats` answers: the totals, and calls and paid calls by request id."""
        return {**self.totals(), "requests": dict(self.by_request), "paid_requests": dict(self.paid_by_request)}

    def _fault(self, model: str) -> str | None:
        if self._script:
            planned = self._script.popleft()
        elif (always := self._of_model(model)) is not None:
            planned = always
        elif script := self.behaviour.script:
            planned = script[self._turn % len(script)]
            self._turn += 1
        else:
            planned = self._drawn()
        return None if planned == "ok" else planned

    def _of_model(self, model: str) -> str | None:
        for pattern, fault in self.behaviour.model_faults:
            if fnmatchcase(model, pattern):
                return fault
        return None

    def _drawn(self) -> str:
        if self.behaviour.faults:
            draw = self._random.random()
            for fault, part in self.behaviour.faults.items():
                if draw < part:
                    return fault
                draw -= part
        return "ok"

    def _limit(self, api: str, wanted: Wanted, tokens: int) -> Limits:
        behaviour = self.behaviour
        rpm, tpm = behaviour.rpm, behaviour.tpm
        if (rpm is None and tpm is None) or not wanted.billed:
            return Limits(unix=self._unix())
        now, window = self._now(), self._windows[api, wanted.model]
        window.forget(now - behaviour.window)
        requests = 0 if rpm is None else behaviour.allowed(rpm)
        room = 0 if tpm is None else behaviour.allowed(tpm)
        waits = [0.0]
        if rpm is not None and len(window.calls) >= requests:
            waits.append(window.calls[0] + behaviour.window - now)
        if tpm is not None and window.tokens and sum(window.used) + tokens > room:
            waits.append(window.tokens[0][0] + behaviour.window - now)
        wait = max(waits)
        if wait <= 0:
            window.calls.append(now)
            window.use(now, tokens, behaviour.output_tokens if wanted.generates else 0)
        oldest = window.calls[0] if window.calls else now
        return Limits(
            rpm=rpm,
            requests_left=max(0, requests - len(window.calls)),
            requests_reset=max(0.0, oldest + behaviour.window - now),
            tpm=tpm,
            tokens_left=max(0, room - sum(window.used)),
            tokens_reset=max(0.0, (window.tokens[0][0] if window.tokens else now) + behaviour.window - now),
            input_used=window.used[0],
            output_used=window.used[1],
            wait=wait,
            unix=self._unix(),
        )

    def _known(self, api: str, wanted: Wanted) -> tuple[int, int]:
        """Return tokens read from the cache and tokens written to it, and remember the prompt."""
        least = LEAST_CACHED * CHARACTERS_A_TOKEN
        length = len(wanted.prompt)
        if length < least or not wanted.generates:
            return 0, 0
        if wanted.marks is None:
            ends: Sequence[int] = range(least, length + 1, CACHE_STEP * CHARACTERS_A_TOKEN)
        else:
            ends = sorted({end for end in wanted.marks if end >= least})
        read = last = 0
        digest, at = hashlib.blake2b(f"{api} {wanted.model} ".encode(), digest_size=16), 0
        for end in ends:
            digest.update(wanted.prompt[at:end].encode())
            at = last = end
            key = digest.digest()
            if key in self._prefixes:
                read = end
                self._prefixes.move_to_end(key)
            else:
                self._prefixes[key] = None
        while len(self._prefixes) > MOST_PREFIXES:
            self._prefixes.popitem(last=False)
        written = 0 if wanted.marks is None else last - read
        return read // CHARACTERS_A_TOKEN, written // CHARACTERS_A_TOKEN
