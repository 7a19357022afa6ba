"""The ready buffer: holds works that were read, and starts each when a permit exists. Nothing here polls or spins.

Who goes first inside an alias `broker.limits.fairness` decides; an alias without a permit holds up no other alias.
`room` tells the loop to stop asking for a lane whose buffer is full.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, cast

from broker.clock import Clock
from broker.limits.fairness import AliasQueue
from broker.ports import Units
from broker.routing.router import Grant, Router
from broker.topics import Lane
from workers.work import Work

READY_LIMIT: Final = 1024
"""Works of one alias and lane that wait here; the rest stays in the log, where it costs no memory."""

NOISY_SHARE: Final = 0.1
NOISY_MOST: Final = 30
"""Above a tenth of the buffer and 30 requests a tenant is noisy; its surplus is parked (limits.md)."""
PARKED_AT_ONCE: Final = 256
"""A sweep parks at most so many: it writes a record for each."""
PROBED_AT_ONCE: Final = 32
"""Where no other tenant was seen of late: enough to find one behind the noisy one, little enough to cost nothing."""
SEEN_SECONDS: Final = 600.0
SHORTEST_PARK: Final = 30.0
LONGEST_PARK: Final = 600.0
"""The shortest and the longest delay topic, seconds."""

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
    """What waits for one alias."""

    __slots__ = ("alias", "asleep", "calls", "held", "input", "order", "output", "rates", "seen", "started", "wake")

    def __init__(self, alias: str, fairness: Fairness) -> None:
        self.alias = alias
        self.order = AliasQueue(fairness.weights, fairness.batch_share)
        self.held = dict.fromkeys(Lane, 0)
        self.started = dict.fromkeys(Lane, 0)
        self.rates = dict.fromkeys(Lane, 0.0)
        self.seen: dict[str, float] = {}
        self.asleep = False
        self.wake: asyncio.TimerHandle | None = None
        self.calls = self.input = self.output = 0

    def count(self, work: Work, sign: int) -> None:
        self.calls += sign
        self.input += sign * (work.tokens - work.output_tokens)
        self.output += sign * work.output_tokens

    def head(self) -> Work | None:
        return cast("Work | None", self.order.head())


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
        self._queues: dict[str, _Queue] = {}
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
        return queue is None or queue.held[lane] < READY_LIMIT

    def waiting(self) -> dict[tuple[str, Lane], int]:
        """Works read and not running, by alias and lane."""
        return {(queue.alias, lane): count for queue in self._queues.values() for lane, count in queue.held.items()}

    def demand(self) -> dict[str, tuple[int, Units, Units]]:
        """Works that wait for a permit now, by alias: how many, what they take together, what the first takes."""
        demand: dict[str, tuple[int, Units, Units]] = {}
        for queue in self._queues.values():
            head = queue.head() if queue.calls > 0 else None
            if head is not None:
                first = Units(1, head.tokens - head.output_tokens, head.output_tokens)
                demand[queue.alias] = (queue.calls, Units(queue.calls, queue.input, queue.output), first)
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
            queue.count(work, -1)
            queue.order.lanes[work.lane].gone(work)
        queue.held[work.lane] -= 1
        self._room.set()

    def withdraw(self, work: Work) -> None:
        """Give a waiting work back that has not ended: it may be submitted again."""
        pushed = work not in self._delayed
        self.drop(work)
        if pushed:
            self._queue(work).order.lanes[work.lane].remove(work)

    def sweep(self) -> None:
        """Hand works whose deadline passed to `expire`, the surplus of noisy tenants to `surplus`, and tidy up."""
        now = self._clock.now_ms()
        late = [work for work in self._delayed if work.deadline <= now]
        for queue in self._queues.values():
            for lane in queue.order.lanes.values():
                late += [work for each in lane if (work := cast("Work", each)).deadline <= now]
        for work in late:
            self.drop(work)
            self._expire(work)
        passed = self._clock.monotonic() - self._swept
        self._swept += passed
        for queue in self._queues.values():
            for name, lane in queue.order.lanes.items():
                if passed > 0:
                    queue.rates[name] += min(1.0, passed / 10) * (queue.started[name] / passed - queue.rates[name])
                queue.started[name] = 0
                if queue.held[name] >= READY_LIMIT and self._surplus is not None:
                    self._park_surplus(queue, name)
                lane.tidy()

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
        queue = self._queues.get(work.alias.name)
        if queue is None:
            queue = self._queues[work.alias.name] = _Queue(work.alias.name, self._fairness)
        return queue

    def _push(self, queue: _Queue, work: Work) -> None:
        queue.count(work, 1)
        queue.order.push(work)
        if self._fairness.several:
            queue.seen[work.tenant] = self._clock.monotonic()
        if not queue.asleep:
            self._schedule()

    def _due(self, work: Work) -> None:
        work.timer = None
        self._delayed.discard(work)
        if work.closed:
            return
        self._push(self._queue(work), work)

    def _park_surplus(self, queue: _Queue, name: Lane) -> None:
        """Make room behind a tenant that fills the buffer: the records of others may stand behind its own."""
        if self._surplus is None or not self._fairness.several:
            return
        now = self._clock.monotonic()
        queue.seen = {tenant: at for tenant, at in queue.seen.items() if now - at < SEEN_SECONDS}
        lane = queue.order.lanes[name]
        counts = lane.counts()
        tenant, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
        allowed = max(NOISY_MOST, int(READY_LIMIT * NOISY_SHARE))
        most = PARKED_AT_ONCE if len(queue.seen) > 1 else PROBED_AT_ONCE
        if count <= allowed:
            return
        rate = max(queue.rates[name], 1 / LONGEST_PARK)
        seconds = min(LONGEST_PARK, max(SHORTEST_PARK, count / rate))
        latest = self._clock.now_ms() + seconds * 1000
        for each in lane.last(tenant, min(most, count - allowed)):
            work = cast("Work", each)
            if work.deadline > latest:
                self.drop(work)
                self._surplus(work, seconds)

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
        while self.running < self._limit and (work := queue.head()) is not None:
            if work.deadline <= now_ms:
                self._take_out(queue, work)
                self._expire(work)
                continue
            grant = self._router.acquire(queue.alias, work.tokens, now, work.tried, work.output_tokens)
            if not isinstance(grant, Grant):
                self._sleep(queue, grant)
                return
            self._take_out(queue, work)
            queue.started[work.lane] += 1
            self.running += 1
            self._start(work, grant)

    @staticmethod
    def _take_out(queue: _Queue, work: Work) -> None:
        queue.order.pop(work)
        queue.count(work, -1)
        queue.held[work.lane] -= 1

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
