"""One worker process of a pool: it starts the rooms, watches them, and stops them in order. A composition root."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from broker.config import Pool, Settings
from broker.errors import BrokerError, Unavailable
from broker.metrics import Metrics
from broker.records import Partition
from broker.topics import Lane
from workers.pool.joined import Joined
from workers.pool.parts import Parts
from workers.pool.topics import wanted_topics
from workers.snapshot import lanes_now, snapshot

log = logging.getLogger(__name__)

OBSERVE_SECONDS: Final = 2.0
DISCOVER_SECONDS: Final = 30.0
STUCK_SECONDS: Final = 30.0
"""A loop that did not turn for this long is not ready."""
FLUSH_SECONDS: Final = 30.0


class Stuck(BrokerError):
    """The process cannot read any more and a new consumer did not help: it has to end, and to be started anew."""


class WorkerProcess(Joined):
    """`start`, `wait`, `stop`. For one event loop."""

    def __init__(self, settings: Settings, pool: Pool, parts: Parts, metrics: Metrics | None = None) -> None:
        super().__init__(settings, pool, parts, metrics)
        self._task: asyncio.Task[None] | None = None
        self._helpers: list[asyncio.Task[None]] = []
        self._topics: list[str] = []
        self._measured: set[tuple[str, Lane]] = set()

    async def start(self) -> None:
        """Connect, read the controls, join the group and begin to serve. Raises `Unavailable`, having closed again."""
        try:
            await self._start()
        except BrokerError:
            await self._close()
            raise

    async def _start(self) -> None:
        parts = self.parts
        for part in (parts.admin, parts.producer, parts.journal, parts.callers, parts.limits):
            await part.start()
        await self.control.start()
        self._topics = await wanted_topics(self.settings, self.pool, self.names, parts.admin)
        await self.exchange.exchange()
        for room in (self.leases, self.callers, self.exchange, self.admission, self.outbox):
            room.start()
        await parts.consumer.start(self._topics, self.committer)
        self.committer.start()
        self.watchdog.start()
        create = asyncio.get_running_loop().create_task
        self._task = create(self.loop.run(), name="request-loop")
        self._helpers = [create(self._observe(), name="observe"), create(self._discover(), name="discover")]

    async def wait(self) -> None:
        """Return when the loop has ended; raises what ended it: a defect, or `Stuck`."""
        if self._task is None:
            return
        stuck = asyncio.get_running_loop().create_task(self.watchdog.wait())
        try:
            await asyncio.wait({self._task, stuck}, return_when=asyncio.FIRST_COMPLETED)
            if stuck.done():
                raise Stuck(stuck.result())
            await self._task
        finally:
            stuck.cancel()

    async def stop(self) -> None:
        """Stop fetching, let running calls finish within `drain_seconds`, publish, commit and leave the group."""
        self.loop.stop()
        await self.watchdog.stop()
        if self._task is not None:
            if self.watchdog.problem is not None:
                self._task.cancel()  # it may hang in the consumer that is stuck
            await asyncio.gather(self._task, return_exceptions=True)
        self.dispatcher.close()
        await self.admission.stop()
        self.inference.let_go()
        running = self.inference.running
        if running:
            log.info("draining %d running calls, at most %.0f s", len(running), self.pool.drain_seconds)
            await asyncio.wait(running, timeout=self.pool.drain_seconds)
        self.inference.abort()
        await asyncio.gather(*self.inference.running, return_exceptions=True)
        try:
            await asyncio.wait_for(self.outbox.drain(), FLUSH_SECONDS)
        except TimeoutError:
            log.warning("not everything could be published; it will be served again")
        await self._close()

    def abort(self) -> None:
        """Cut running calls off at once; `stop` then has nothing to wait for. Nothing is lost."""
        self.inference.abort()

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether this process can serve, and what keeps it from it."""
        age = self.parts.clock.monotonic() - self.loop.turned
        reasons: dict[str, Any] = dict(self.outbox.failing)
        if (failing := self.admission.failing) is not None:
            reasons.setdefault("journal", failing)
        if self.exchange.failing is not None:
            reasons.setdefault("limits", self.exchange.failing)
        if self.watchdog.problem is not None:
            reasons["consumer"] = self.watchdog.problem
        if age > STUCK_SECONDS:
            reasons["loop"] = f"did not turn for {age:.0f} s"
        if not self._assigned():
            reasons["group"] = "no partition is assigned"
        return not reasons, {"pool": self.pool.name, "in_flight": self.dispatcher.running, "problems": reasons}

    def _assigned(self) -> bool:
        try:
            return bool(self.parts.consumer.assignment())
        except Unavailable:  # asked while it starts or stops
            return False

    async def _close(self) -> None:
        for task in self._helpers:
            task.cancel()
        await asyncio.gather(*self._helpers, return_exceptions=True)
        await self.outbox.stop()
        if self._task is not None:
            await self.committer.stop()
        parts = self.parts
        closing: Sequence[Any] = (
            *(self.watchdog, self.control, self.admission, self.callers, self.leases, self.exchange),
            *(parts.consumer, parts.producer, parts.journal, parts.callers, parts.limits, parts.admin),
        )
        for part in closing:
            await part.stop()
        await parts.provider.close()

    async def _discover(self) -> None:
        while True:
            await asyncio.sleep(DISCOVER_SECONDS)
            try:
                topics = await wanted_topics(self.settings, self.pool, self.names, self.parts.admin)
            except Unavailable as error:
                log.debug("topics cannot be listed now: %s", error)
                continue
            if topics != self._topics:
                self._topics = topics
                self.parts.consumer.subscribe(topics)

    async def _observe(self) -> None:
        while True:
            await asyncio.sleep(OBSERVE_SECONDS)
            try:
                await self._measure()
            except Unavailable as error:
                log.debug("lag cannot be told now: %s", error)

    async def _measure(self) -> None:
        metrics, clock = self.metrics, self.parts.clock
        for (alias, lane), count in self.dispatcher.waiting().items():
            metrics.waiting.labels(alias, lane).set(count)
        lags: dict[tuple[str, Lane], int] = {}
        lag = await self.parts.consumer.lag()
        for partition, behind in lag.items():
            place = self.names.parse(partition.topic)
            if place is not None:
                lags[place] = lags.get(place, 0) + behind
        oldest, now = self.inference.oldest(), clock.now_ms()
        # A topic whose partitions went to other workers has no lag here; its last one must not stand there for good.
        self._measured |= lags.keys()
        for place in self._measured:
            behind = lags.get(place, 0)
            metrics.consumer_lag.labels(*place).set(behind)
            age = max(0, now - oldest[place]) / 1000 if place in oldest else 0.0
            metrics.oldest_unfinished_seconds.labels(*place).set(age)
        metrics.commit_age_seconds.set(clock.monotonic() - self.committer.last_success)
        metrics.loop_age_seconds.set(clock.monotonic() - self.loop.turned)
        await self._tell(lag, oldest, now)

    async def _tell(self, lag: Mapping[Partition, int], oldest: Mapping[tuple[str, Lane], int], now: int) -> None:
        """Say how this worker stands: to autoscalers as gauges, to `broker status` as a snapshot."""
        self.meter.roll(self.parts.clock.monotonic())
        lanes = lanes_now(
            self.names,
            assigned=self.committer.assigned,
            trackers=self.committer.trackers,
            lag=lag,
            waiting=self.dispatcher.waiting(),
            oldest=oldest,
        )
        running, granted = self.exchange.running(), self.exchange.granted()
        said = snapshot(
            self.identity,
            now_ms=now,
            in_flight=self.dispatcher.running,
            problems=self.ready()[1]["problems"],
            lanes=lanes,
            meter=self.meter,
            deployments=running,
        )
        self.gauges.set_lanes(said)
        self.gauges.set_limits(list(granted), list(granted.values()), running)
        await self.parts.limits.publish(self.name, said)
