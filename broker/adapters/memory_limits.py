"""What workers share of deployments, in memory: the twin of `RedisLimitStore`, its time an injected clock."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from broker.clock import Clock, SystemClock
from broker.errors import Unavailable
from broker.limits.concurrency import Concurrency
from broker.limits.shares import water_filling
from broker.ports import SLICE_SECONDS, WINDOWS_S, WORKER_SECONDS, Granted, Need, Settle, Slice, Units

STEPS: Final = 600
LEARNED_SECONDS: Final = 600.0
LATENCY_SECONDS: Final = 600.0


class _Window:
    """Units in steps, as the Lua library keeps them."""

    def __init__(self, length: float) -> None:
        self._length = length
        self._grain = length / STEPS
        self._steps: dict[int, int] = {}

    def used(self, now: float) -> int:
        first = math.floor((now - self._length) / self._grain)
        for step in [step for step in self._steps if step < first]:
            del self._steps[step]
        return sum(self._steps.values())

    def wait(self, n: int, limit: int, now: float) -> float:
        excess = self.used(now) + min(n, limit) - limit
        if excess <= 0:
            return 0.0
        for step in sorted(self._steps):
            excess -= self._steps[step]
            if excess <= 0:
                return max(0.001, (step + 1) * self._grain + self._length - now)
        return self._length

    def take(self, n: int, at: float) -> None:
        step = math.floor(at / self._grain)
        self._steps[step] = self._steps.get(step, 0) + n

    def settle(self, at: float, difference: int) -> None:
        step = math.floor(at / self._grain)
        if step in self._steps:
            self._steps[step] += max(difference, -self._steps[step])


@dataclass(slots=True)
class _Worker:
    running: int = 0
    demand: int = 0
    held: int = 0
    seen: float = 0.0


@dataclass(slots=True)
class _State:
    windows: dict[str, _Window] = field(default_factory=dict)
    good: _Window = field(default_factory=lambda: _Window(60.0))
    failed: _Window = field(default_factory=lambda: _Window(60.0))
    workers: dict[str, _Worker] = field(default_factory=dict)
    concurrency: Concurrency = field(default_factory=Concurrency)
    latency_at: float = -math.inf
    cool_until: float | None = None
    probe: str | None = None
    blocked_until: float = -math.inf
    learned: dict[str, tuple[int, float]] = field(default_factory=dict)
    foreign: dict[str, tuple[int, float]] = field(default_factory=dict)


def amount(name: str, requests: int, given: int, output: int) -> int:
    """Return what so many requests, input and output tokens take out of the window of limit `name`."""
    if name in {"rpm", "rpd"}:
        return requests
    return given if name == "itpm" else output if name == "otpm" else given + output


class MemoryLimitStore:
    """Keeps what `RedisLimitStore` keeps. While `down` is set every operation is `Unavailable`."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._states: dict[str, _State] = {}
        self._said: dict[str, tuple[float, Mapping[str, Any]]] = {}
        self.down = False

    async def start(self) -> None:
        """Connect. Raises `Unavailable`."""
        self._check()

    async def exchange(self, worker: str, needs: Sequence[Need]) -> Sequence[Granted]:
        """Report and ask; see the port."""
        self._check()
        return [self._exchange(worker, need) for need in needs]

    async def leave(self, worker: str) -> None:
        """Give everything of a worker back."""
        self._check()
        self._said.pop(worker, None)
        for state in self._states.values():
            state.workers.pop(worker, None)
            if state.probe == worker:
                state.probe = None

    async def publish(self, worker: str, snapshot: Mapping[str, Any]) -> None:
        """Keep what a worker says of itself."""
        self._check()
        self._said[worker] = (self._clock.monotonic() + WORKER_SECONDS, snapshot)

    async def snapshots(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what live workers said last."""
        self._check()
        now = self._clock.monotonic()
        return {worker: said for worker, (end, said) in self._said.items() if end > now}

    async def look(self, deployments: Sequence[str]) -> Sequence[Granted]:
        """Return the shared state without asking for anything."""
        self._check()
        now = self._clock.monotonic()
        states = [self._state(name) for name in deployments]
        return [
            replace(
                self._told(state, Need(""), now), used={each: self._window(state, each).used(now) for each in WINDOWS_S}
            )
            for state in states
        ]

    async def stop(self) -> None:
        """Close."""

    def _exchange(self, worker: str, need: Need) -> Granted:
        now, state = self._clock.monotonic(), self._state(need.deployment)
        for name in [name for name, each in state.workers.items() if each.seen <= now - WORKER_SECONDS]:
            del state.workers[name]
        mine = state.workers.setdefault(worker, _Worker())
        mine.running, mine.demand, mine.seen = need.running, need.demand, now
        self._report(state, need, now)
        self._health(state, worker, need, now)
        running = sum(each.running for each in state.workers.values())
        state.concurrency.adapt(
            now,
            good=need.good,
            overloaded=need.overloaded,
            limited=need.limited,
            running=running + need.overloaded,
            cap=need.max_parallel,
        )
        slots, contended = self._slots(state, worker, need)
        given, wait = self._slice(state, need, now)
        told = self._told(state, need, now)
        probe = told.half_open and need.demand > 0 and state.probe in {None, worker}
        if probe:
            state.probe = worker
        return Granted(
            slice=given,
            slots=slots,
            wait=wait,
            contended=contended,
            cooling_for=told.cooling_for,
            half_open=told.half_open,
            probe=probe,
            blocked_for=told.blocked_for,
            running=told.running,
            used=told.used,
            limits=told.limits,
            concurrency=told.concurrency,
            latency=told.latency,
            good=told.good,
            failed=told.failed,
        )

    def _report(self, state: _State, need: Need, now: float) -> None:
        for settle in need.settles:
            self._settle(state, settle)
        state.good.take(need.good, now)
        state.failed.take(need.failed, now)
        if need.good:
            if state.latency_at < now - LATENCY_SECONDS:
                state.concurrency.fast = state.concurrency.slow = None
            state.concurrency.measured(need.good, need.latency_sum)
            state.latency_at = now
        state.blocked_until = max(state.blocked_until, now + need.blocked_for if need.blocked_for else -math.inf)
        if need.learned is not None:
            for name, limit in need.learned.limits.items():
                state.learned[name] = (limit, now + LEARNED_SECONDS)
            for name, left in need.learned.left.items():
                known = self._limits(state, need, now).get(name)
                if known is not None and name in need.learned.reset:
                    foreign = max(0, known - left - self._window(state, name).used(now))
                    state.foreign[name] = (foreign, now + need.learned.reset[name])

    @staticmethod
    def _health(state: _State, worker: str, need: Need, now: float) -> None:
        if state.probe is not None and (
            state.probe not in state.workers or (state.probe == worker and (need.probe is not None or not need.running))
        ):
            state.probe = None
        if need.probe is True and not need.cool_for:
            state.cool_until = None
        if need.cool_for:
            state.cool_until = max(state.cool_until or 0.0, now + need.cool_for)

    def _settle(self, state: _State, settle: Settle) -> None:
        for name, window in state.windows.items():
            difference = amount(name, settle.requests, settle.input, settle.output)
            if difference:
                window.settle(float(settle.receipt), difference)

    @staticmethod
    def _slots(state: _State, worker: str, need: Need) -> tuple[int | None, bool]:
        mine, limit = state.workers[worker], state.concurrency.limit
        caps = [cap for cap in (need.max_parallel, None if limit is None else max(1, int(limit))) if cap is not None]
        if not caps:
            mine.held = mine.running
            return None, False
        cap = min(caps)
        shares = water_filling(cap, {name: each.demand for name, each in state.workers.items()})
        others = sum(each.held for name, each in state.workers.items() if name != worker)
        granted = max(0, min(mine.demand, shares[worker], cap - others))
        mine.held = max(mine.running, granted)
        lacking = any(each.demand > each.held for name, each in state.workers.items() if name != worker)
        return granted, lacking and mine.held > shares[worker]

    def _slice(self, state: _State, need: Need, now: float) -> tuple[Slice | None, float]:
        limits = self._limits(state, need, now)
        if need.want == Units() or not limits:
            return None, 0.0
        first = (need.first.requests, need.first.input, need.first.output)
        want = (need.want.requests, need.want.input, need.want.output)
        wait, scale = 0.0, 1.0
        asking = max(1, sum(1 for each in state.workers.values() if each.demand > 0))
        rooms: dict[str, int] = {}
        for name, limit in limits.items():
            window, reserved = self._window(state, name), self._foreign(state, name, now)
            wait = max(wait, window.wait(amount(name, *first) + reserved, limit, now))
            rooms[name] = max(0, limit - window.used(now) - reserved)
            if (wanted := amount(name, *want)) > 0:
                scale = min(scale, rooms[name] / asking / wanted)
        if wait > 0:
            return None, wait
        given = tuple(max(least, int(most * scale)) for least, most in zip(first, want, strict=True))
        if any(amount(name, *given) > max(rooms[name], 0) for name in limits):
            given = first
        at = now + SLICE_SECONDS
        for name, limit in limits.items():
            self._window(state, name).take(min(amount(name, *given), limit), at)
        return Slice(Units(*given), repr(at)), 0.0

    def _told(self, state: _State, need: Need, now: float) -> Granted:
        cooling = state.cool_until
        running = sum(each.running for each in state.workers.values() if each.seen > now - WORKER_SECONDS)
        limits = self._limits(state, need, now)
        limit, fresh = state.concurrency.limit, state.latency_at >= now - LATENCY_SECONDS
        return Granted(
            cooling_for=max(0.0, cooling - now) if cooling is not None else 0.0,
            half_open=cooling is not None and cooling <= now,
            blocked_for=max(0.0, state.blocked_until - now),
            running=running,
            used={name: self._window(state, name).used(now) for name in limits},
            limits=limits,
            concurrency=None if limit is None else max(1, int(limit)),
            latency=state.concurrency.fast if fresh else None,
            good=state.good.used(now),
            failed=state.failed.used(now),
        )

    @staticmethod
    def _limits(state: _State, need: Need, now: float) -> dict[str, int]:
        """Return the limits in force: the smaller of configured and learned."""
        limits = dict(need.limits)
        for name, (limit, until) in state.learned.items():
            if until > now:
                limits[name] = min(limit, limits.get(name, limit))
        return limits

    @staticmethod
    def _foreign(state: _State, name: str, now: float) -> int:
        units, until = state.foreign.get(name, (0, 0.0))
        return units if until > now else 0

    def _window(self, state: _State, name: str) -> _Window:
        return state.windows.setdefault(name, _Window(float(WINDOWS_S[name])))

    def _state(self, deployment: str) -> _State:
        return self._states.setdefault(deployment, _State())

    def _check(self) -> None:
        if self.down:
            raise Unavailable("memory limits: down")
