"""The ready buffer: holds works that were read, and starts each when a permit exists. Nothing here polls or spins.

Who goes first inside an alias `broker.limits.fairness` decides; an alias without a permit holds up no other alias.
`room` tells the loop to stop asking for a lane whose buffer is full.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from broker.clock import Clock
from broker.limits.fairness import FairQueue, Lanes
from broker.ports import Units
from broker.routing.router import Grant, Router
from broker.topics import Lane
from workers.work import Work

READY_LIMIT: Final = 1024
"""Works of one alias and lane that wait here; the rest stays in the log, where it costs no memory."""

PARKED_AT_ONCE: Final = 256
"""A sweep parks at most so many of one lane: it writes a record for each."""

Start = Callable[[Work, Grant], None]
Expire = Callable[[Work], None]
Surplus = Callable[[Work, float], None]


@dataclass(slots=True)
class Fairness:
    """How tenants compete; `several` tells that the configuration knows more than one tenant."""

    weights: Mapping[str, float]
    batch_share: float = 0.05
    several: bool = False


class _Queue:
    """What waits for one alias, and can be served by the same of its deployments: all but `unfit`."""

    __slots__ = ("alias", "asleep", "held", "order", "unfit", "wake")

    def __init__(self, alias: str, unfit: frozenset[str], fairness: Fairness, now: float) -> None:
        self.alias = alias
        self.unfit = unfit
        self.order: Lanes[Work] = Lanes(fairness.batch_share, fairness.weights, now)
        self.held = dict.fromkeys(Lane, 0)
        """Works of each lane in this buffer: those that may start, and those whose time has not come."""
        self.asleep = False
        self.wake: asyncio.TimerHandle | None = None

    def lane(self, lane: Lane) -> FairQueue[Work]:
        return self.order.batch if lane is Lane.BATCH else self.order.interactive

    def head(self) -> Work | None:
        lane = self.order.next()
        return None if lane is None else lane.head()


class Dispatcher:
    """Starts works as permits allow, at most `in_flight` at once in this process. For one event loop only."""

    def __init__(  # noqa: PLR0913 - what starts, ends and parks a work
        self,
        *,
        router: Router,
        clock: Clock,
        in_flight: int,
        start: Start,
        expire: Expire,
        surplus: Surplus | None = None,
        short: Callable[[], None] | None = None,
        fairness: Fairness | None = None,
    ) -> None:
        """`surplus` parks a work for so many seconds; `short` is told when a work found no permit."""
        self._router = router
        self._clock = clock
        self._limit = in_flight
        self._start = start
        self._expire = expire
        self._surplus = surplus
        self._short = short
        self._fairness = fairness or Fairness({})
        self._queues: dict[str | tuple[str, frozenset[str]], _Queue] = {}
        """By alias. Works that some of its deployments cannot serve stand apart, by alias and those: what waits for the
        one deployment that takes images must not hold up what any other could answer."""
        self._parted: dict[str, list[_Queue]] = {}
        """The queues that stand apart, by alias."""
        self._delayed: set[Work] = set()
        self._scheduled = False
        self._closed = False
        self._turn = 0
        self._swept = clock.monotonic()
        self._room = asyncio.Event()
        self.running = 0

    def room(self, alias: str, lane: Lane) -> bool:
        """Whether the buffer of this lane takes more records."""
        queue = self._queues.get(alias)
        held = 0 if queue is None else queue.held[lane]
        if self._parted:
            held += sum(parted.held[lane] for parted in self._parted.get(alias, ()))
        return held < READY_LIMIT

    def waiting(self) -> dict[tuple[str, Lane], int]:
        """Works read and not running, by alias and lane."""
        waiting: dict[tuple[str, Lane], int] = {}
        for queue in self._queues.values():
            for lane, count in queue.held.items():
                waiting[queue.alias, lane] = waiting.get((queue.alias, lane), 0) + count
        return waiting

    def demand(self) -> dict[str, tuple[int, Units, Units]]:
        """Works that wait for a permit now, by alias: how many, what they take together, what the first takes."""
        demand: dict[str, tuple[int, Units, Units]] = {}
        for queue in self._queues.values():
            head = queue.head()
            if head is not None:
                interactive, batch = queue.order.interactive, queue.order.batch
                calls = interactive.count + batch.count
                output = interactive.output + batch.output
                together = Units(calls, interactive.tokens + batch.tokens - output, output)
                first = Units(1, head.tokens - head.output_tokens, head.output_tokens)
                if queue.alias in demand:
                    more, others, first = demand[queue.alias]
                    calls += more
                    together = Units(calls, together.input + others.input, together.output + others.output)
                demand[queue.alias] = (calls, together, first)
        return demand

    async def wait_for_room(self, seconds: float) -> None:
        """Return when a work left the buffer, or after `seconds`."""
        self._room.clear()
        try:
            await asyncio.wait_for(self._room.wait(), seconds)
        except TimeoutError:
            return

    def submit(self, work: Work) -> None:
        """Take a work that may start as soon as a permit exists."""
        queue = self._queue(work)
        queue.held[work.lane] += 1
        self._push(queue, work)

    def later(self, work: Work, seconds: float) -> None:
        """Take a work that may start after `seconds`; it holds no permit meanwhile."""
        self._queue(work).held[work.lane] += 1
        self._delayed.add(work)
        work.timer = asyncio.get_running_loop().call_later(seconds, self._due, work)

    def released(self, alias: str) -> None:
        """Note that a work of `alias` stopped running and its permit is free."""
        self.running -= 1
        queue = self._queues.get(alias)
        if queue is not None:
            queue.asleep = False
        if self._parted:
            for parted in self._parted.get(alias, ()):
                parted.asleep = False
        self._schedule()

    def wake(self) -> None:
        """Let every alias try again: limits that workers share have changed."""
        for queue in self._queues.values():
            queue.asleep = False
        self._schedule()

    def drop(self, work: Work) -> None:
        """Let go of a waiting work whose end has been decided elsewhere."""
        queue = self._queue(work)
        if work.timer is not None:
            work.timer.cancel()
            work.timer = None
        if work in self._delayed:
            self._delayed.discard(work)
        else:
            queue.lane(work.lane).discard(work)
        queue.held[work.lane] -= 1
        self._room.set()

    def sweep(self) -> None:
        """Hand works whose deadline passed to `expire`, and the surplus of noisy tenants to `surplus`."""
        now, now_ms = self._clock.monotonic(), self._clock.now_ms()
        late = [work for work in self._delayed if work.deadline <= now_ms]
        for queue in self._queues.values():
            late += queue.order.interactive.late(now_ms) + queue.order.batch.late(now_ms)
        for work in late:
            self.drop(work)
            self._expire(work)
        for queue in self._queues.values():
            for lane in Lane:
                queue.lane(lane).roll(now)
                if self._fairness.several and not self.room(queue.alias, lane):
                    self._park_surplus(queue, lane, now_ms)

    def close(self) -> None:
        """Start nothing any more; what waits stays uncommitted in the log and is read again by whoever comes next."""
        self._closed = True
        for work in self._delayed:
            if work.timer is not None:
                work.timer.cancel()
        for queue in self._queues.values():
            if queue.wake is not None:
                queue.wake.cancel()

    def _queue(self, work: Work) -> _Queue:
        alias, unfit = work.alias.name, work.unfit
        key = (alias, unfit) if unfit else alias
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue(alias, unfit, self._fairness, self._clock.monotonic())
            if unfit:
                self._parted.setdefault(alias, []).append(queue)
        return queue

    def _push(self, queue: _Queue, work: Work) -> None:
        queue.lane(work.lane).add(
            work, work.tenant, work.tokens, work.output_tokens, work.job.priority, work.deadline, work.seq
        )
        if not queue.asleep:
            self._schedule()

    def _due(self, work: Work) -> None:
        work.timer = None
        self._delayed.discard(work)
        if work.closed:
            return
        self._push(self._queue(work), work)

    def _park_surplus(self, queue: _Queue, name: Lane, now_ms: int) -> None:
        """Make room behind a tenant that fills the buffer: the records of others may stand behind its own."""
        if self._surplus is not None:
            for work, seconds in queue.lane(name).surplus(READY_LIMIT, PARKED_AT_ONCE, now_ms):
                queue.held[name] -= 1
                self._surplus(work, seconds)
            self._room.set()

    def _schedule(self) -> None:
        # Releases come in bursts; one pump serves them all.
        if not self._scheduled and not self._closed:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._scheduled = False
        if self._closed:
            return
        queues = [queue for queue in self._queues.values() if not queue.asleep]
        self._turn += 1
        first = self._turn % len(queues) if queues else 0
        for queue in queues[first:] + queues[:first]:
            if self.running >= self._limit:
                break
            self._pump_queue(queue)
        self._room.set()

    def _pump_queue(self, queue: _Queue) -> None:
        now = self._clock.monotonic()
        now_ms = self._clock.now_ms()
        order = queue.order
        while self.running < self._limit and (lane := order.next()) is not None and (work := lane.head()) is not None:
            if work.deadline <= now_ms:
                lane.discard(work)
                queue.held[work.lane] -= 1
                self._expire(work)
                continue
            grant = self._router.acquire(queue.alias, work.tokens, now, work.tried, work.output_tokens, queue.unfit)
            if not isinstance(grant, Grant):
                self._sleep(queue, grant)
                return
            order.take(lane)
            queue.held[work.lane] -= 1
            self.running += 1
            self._start(work, grant)

    def _sleep(self, queue: _Queue, seconds: float) -> None:
        queue.asleep = True
        if queue.wake is not None:
            queue.wake.cancel()
            queue.wake = None
        if seconds < math.inf:
            # A timer may fire a moment early; 1 ms keeps it from finding the permit not there yet.
            queue.wake = asyncio.get_running_loop().call_later(seconds + 0.001, self._wake, queue)
        elif self._short is not None:
            self._short()

    def _wake(self, queue: _Queue) -> None:
        queue.wake = None
        queue.asleep = False
        self._schedule()
