"""The ready buffer: holds works that were read, and starts each when a permit exists. Nothing here polls or spins.

Inside an alias interactive goes before batch, then priority, deadline and arrival (limits.md); an alias without a
permit holds up no other alias. `room` tells the loop to stop asking for a lane whose buffer is full.
"""

import asyncio
import heapq
import math
from collections.abc import Callable
from typing import Final

from broker.clock import Clock
from broker.routing.router import Grant, Router
from broker.topics import Lane
from workers.work import Work

READY_LIMIT: Final = 1024
"""Works of one alias and lane that wait here; the rest stays in the log, where it costs no memory."""

Start = Callable[[Work, Grant], None]
Expire = Callable[[Work], None]


_Entry = tuple[int, int, int, Work]
"""Order inside a lane: priority, then earliest deadline, then arrival (limits.md)."""


class _Queue:
    """What waits for one alias."""

    __slots__ = ("alias", "asleep", "held", "ready", "wake")

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.ready: dict[Lane, list[_Entry]] = {lane: [] for lane in Lane}
        self.held = dict.fromkeys(Lane, 0)
        self.asleep = False
        self.wake: asyncio.TimerHandle | None = None

    def head(self) -> Work | None:
        """Return the work to start next, dropping those that ended while they waited."""
        for heap in self.ready.values():
            while heap:
                work = heap[0][3]
                if not work.closed:
                    return work
                heapq.heappop(heap)
        return None

    def tidy(self) -> None:
        """Drop what ended while it waited: an alias that sleeps for long would keep it all."""
        for heap in self.ready.values():
            if any(entry[3].closed for entry in heap):
                heap[:] = [entry for entry in heap if not entry[3].closed]
                heapq.heapify(heap)

    def pop(self, work: Work) -> None:
        heapq.heappop(self.ready[work.job.lane])
        self.held[work.job.lane] -= 1


class Dispatcher:
    """Starts works as permits allow, at most `in_flight` at once in this process. For one event loop only."""

    def __init__(self, *, router: Router, clock: Clock, in_flight: int, start: Start, expire: Expire) -> None:
        self._router = router
        self._clock = clock
        self._limit = in_flight
        self._start = start
        self._expire = expire
        self._queues: dict[str, _Queue] = {}
        self._delayed: set[Work] = set()
        self._scheduled = False
        self._closed = False
        self._turn = 0
        self._room = asyncio.Event()
        self.running = 0

    def room(self, alias: str, lane: Lane) -> bool:
        """Whether the buffer of this lane takes more records."""
        queue = self._queues.get(alias)
        return queue is None or queue.held[lane] < READY_LIMIT

    def waiting(self) -> dict[tuple[str, Lane], int]:
        """Works read and not running, by alias and lane."""
        return {(queue.alias, lane): count for queue in self._queues.values() for lane, count in queue.held.items()}

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
        queue.held[work.job.lane] += 1
        self._push(queue, work)

    def later(self, work: Work, seconds: float) -> None:
        """Take a work that may start after `seconds`; it holds no permit meanwhile."""
        self._queue(work).held[work.job.lane] += 1
        self._delayed.add(work)
        work.timer = asyncio.get_running_loop().call_later(seconds, self._due, work)

    def released(self, alias: str) -> None:
        """Note that a work of `alias` stopped running and its permit is free."""
        self.running -= 1
        queue = self._queues.get(alias)
        if queue is not None:
            queue.asleep = False
        self._schedule()

    def drop(self, work: Work) -> None:
        """Let go of a waiting work whose end has been decided elsewhere."""
        if work.timer is not None:
            work.timer.cancel()
            work.timer = None
        self._delayed.discard(work)
        self._queue(work).held[work.job.lane] -= 1
        self._room.set()

    def sweep(self) -> None:
        """Hand works whose deadline passed while they waited to `expire`, and let go of those that ended."""
        now = self._clock.now_ms()
        late = [work for work in self._delayed if work.deadline <= now]
        for queue in self._queues.values():
            for heap in queue.ready.values():
                late += [entry[3] for entry in heap if entry[1] <= now and not entry[3].closed]
        for work in late:
            self.drop(work)
            self._expire(work)
        for queue in self._queues.values():
            queue.tidy()

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
            queue = self._queues[work.alias.name] = _Queue(work.alias.name)
        return queue

    def _push(self, queue: _Queue, work: Work) -> None:
        job = work.job
        heapq.heappush(queue.ready[job.lane], (job.priority, work.deadline, work.seq, work))
        if not queue.asleep:
            self._schedule()

    def _due(self, work: Work) -> None:
        work.timer = None
        self._delayed.discard(work)
        if not work.closed:
            self._push(self._queue(work), work)

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
                queue.pop(work)
                self._expire(work)
                continue
            grant = self._router.acquire(queue.alias, work.tokens, now, work.tried)
            if not isinstance(grant, Grant):
                self._sleep(queue, grant)
                return
            queue.pop(work)
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

    def _wake(self, queue: _Queue) -> None:
        queue.wake = None
        queue.asleep = False
        self._schedule()
