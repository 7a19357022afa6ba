"""Several workers, their routers and exchanges, one store and one clock that moves by hand: nothing here takes time."""

import heapq
import math
import random
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from broker.adapters.memory_limits import MemoryLimitStore
from broker.clock import ManualClock
from broker.config import Alias, Deployment, Settings
from broker.errors import RequestError, Unavailable
from broker.ports import Granted, Need, Units
from broker.routing.router import Grant, Router
from workers.exchange import HEARTBEAT_SECONDS, RETRY_SECONDS, PermitExchange

STEP_S = 0.05
TOKENS = 100


class Store(MemoryLimitStore):
    """Answers nobody while `away`."""

    away = False

    async def exchange(self, worker: str, needs: Sequence[Need]) -> Sequence[Granted]:
        if self.away:
            raise Unavailable("the store is away")
        return await super().exchange(worker, needs)


class Worker:
    """One worker process as far as limits see it."""

    def __init__(self, simulation: "Simulation", name: str) -> None:
        self.simulation = simulation
        self.name = name
        self.waiting = 0
        self.running: list[tuple[float, int, Grant]] = []
        self.router = Router(simulation.settings, simulation.rng.random, shared=True)
        self.exchange = PermitExchange(
            store=simulation.store, router=self.router, worker=name, clock=simulation.clock,
            demand=self.demand, changed=lambda: None,
        )  # fmt: skip
        self.exchanged = -math.inf

    def demand(self) -> Mapping[str, tuple[int, Units, Units]]:
        if not self.waiting:
            return {}
        one = Units(1, TOKENS // 2, TOKENS // 2)
        return {"a": (self.waiting, Units(*(self.waiting * each for each in (1, TOKENS // 2, TOKENS // 2))), one)}

    async def turn(self) -> None:
        """End what is due, start what may start, exchange where the real one would."""
        now = self.simulation.clock.monotonic()
        while self.running and self.running[0][0] <= now:
            _, _, grant = heapq.heappop(self.running)
            self.finish(grant, self.simulation.error)
        self.start()
        due = RETRY_SECONDS if self.exchange.failing else HEARTBEAT_SECONDS
        short = any(member.leased.short and member.leased.ask_at <= now for member in self.members())
        if short or now - self.exchanged >= due:
            self.exchanged = now
            await self.exchange.exchange()
            self.start()

    def members(self) -> Sequence[Any]:
        return self.router.members()["a"]

    def start(self) -> None:
        simulation = self.simulation
        now = simulation.clock.monotonic()
        while self.waiting:
            grant = self.router.acquire("a", TOKENS, now, output=TOKENS // 2)
            if not isinstance(grant, Grant):
                return
            self.waiting -= 1
            simulation.started.append((now, grant.deployment.name, grant.probe))
            seconds = simulation.rng.uniform(*simulation.call_s)
            heapq.heappush(self.running, (now + seconds, len(simulation.started), grant))
            simulation.peak = max(simulation.peak, simulation.running)

    def finish(self, grant: Grant, error: RequestError | None) -> None:
        now = self.simulation.clock.monotonic()
        self.simulation.ended += 1
        used = None if error else TOKENS
        self.router.release(grant, now, used_tokens=used, latency=None if error else 0.5, error=error, started=True)


class Simulation:
    """`count` workers over the deployments of alias `a`."""

    def __init__(self, *limits: Mapping[str, Any], count: int = 4, seed: int = 1, **alias: Any) -> None:
        deployments = tuple(
            Deployment(name=f"a/{number}", alias="a", provider="openai", model="m", **each)
            for number, each in enumerate(limits)
        )
        self.settings = Settings(aliases={"a": Alias(name="a", deployments=deployments, **alias)})
        self.rng = random.Random(seed)  # noqa: S311 - a simulation that can be repeated
        self.clock = ManualClock()
        self.store = Store(clock=self.clock)
        self.started: list[tuple[float, str, bool]] = []
        self.ended = self.peak = 0
        self.call_s = (0.2, 0.8)
        self.error: RequestError | None = None
        """How every call that ends now ends."""
        self.workers = [Worker(self, f"w{number}") for number in range(count)]

    @property
    def running(self) -> int:
        return sum(len(worker.running) for worker in self.workers)

    @property
    def waiting(self) -> int:
        return sum(worker.waiting for worker in self.workers)

    async def run(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            await self.turn()

    async def turn(self) -> None:
        for worker in self.workers:
            await worker.turn()
        self.clock.advance(STEP_S)

    async def until_done(self, most: float = 600.0) -> None:
        """Run until nothing waits or runs; fails after `most` simulated seconds."""
        end = self.clock.monotonic() + most
        while self.waiting or self.running:
            assert self.clock.monotonic() < end, f"{self.waiting} wait, {self.running} run"
            await self.turn()

    def crash(self, worker: Worker) -> int:
        """Take a worker away as SIGKILL does; return what it held."""
        self.workers.remove(worker)
        return len(worker.running)

    def most_in_window(self, seconds: float = 60.0) -> int:
        """Return the most starts that fell into any stretch of so many seconds."""
        window: deque[float] = deque()
        most = 0
        for at, _, _ in self.started:
            window.append(at)
            while window[0] <= at - seconds:
                window.popleft()
            most = max(most, len(window))
        return most
