"""Joins the parts of one worker process and runs them until it is told to stop. A composition root."""

import asyncio
import gc
import logging
import os
import random
import resource
import secrets
import socket
from collections.abc import Sequence
from typing import Any, Final

from broker.adapters.kafka import KafkaConsumer, KafkaProducer, KafkaReader
from broker.adapters.kafka_admin import KafkaAdmin
from broker.adapters.redis_journal import RedisJournal
from broker.clock import Clock, SystemClock
from broker.config import Pool, Settings
from broker.edge.health import HealthServer
from broker.errors import BrokerError, ConfigError, Unavailable
from broker.keys import KeyLimits, KeyRing
from broker.ledger.prices import PriceTable
from broker.metrics import Metrics
from broker.ports import Journal, LogAdmin, LogConsumer, LogProducer, LogReader
from broker.routing.catalog import Catalog
from broker.routing.router import Router
from broker.topics import Lane, TopicNames
from workers.committer import Committer
from workers.control import Control
from workers.dispatcher import Dispatcher
from workers.endings import Endings
from workers.inference import Inference, Policy
from workers.loop import RequestLoop
from workers.outbox import Outbox
from workers.providers.base import ProviderClient
from workers.providers.client import HttpProviderClient
from workers.providers.transport import make_transport
from workers.streams import ChunkWriter
from workers.work import Outgoing

log = logging.getLogger(__name__)

OBSERVE_SECONDS: Final = 2.0
DISCOVER_SECONDS: Final = 30.0
STUCK_SECONDS: Final = 30.0
"""A loop that did not turn for this long is not ready."""
FLUSH_SECONDS: Final = 30.0
OPEN_FILES: Final = 65_536


class Parts:
    """The adapters of one worker process; tests hand in twins."""

    def __init__(  # noqa: PLR0913 - one a port
        self,
        *,
        consumer: LogConsumer,
        producer: LogProducer,
        reader: LogReader,
        admin: LogAdmin,
        journal: Journal,
        provider: ProviderClient,
        clock: Clock,
    ) -> None:
        self.consumer = consumer
        self.producer = producer
        self.reader = reader
        self.admin = admin
        self.journal = journal
        self.provider = provider
        self.clock = clock

    @classmethod
    def real(cls, settings: Settings, pool: Pool, instance: str | None = None) -> "Parts":
        """Build the parts that production uses."""
        names = TopicNames(settings.kafka.topic_prefix)
        return cls(
            consumer=KafkaConsumer(settings.kafka, names.group(pool.name), instance=instance),
            producer=KafkaProducer(settings.kafka),
            reader=KafkaReader(settings.kafka),
            admin=KafkaAdmin(settings.kafka),
            journal=RedisJournal(settings.redis, names),
            provider=HttpProviderClient(make_transport(pool.in_flight)),
            clock=SystemClock(),
        )


class WorkerProcess:
    """One worker process of a pool: `start`, `wait`, `stop`. For one event loop."""

    def __init__(self, settings: Settings, pool: Pool, parts: Parts, metrics: Metrics | None = None) -> None:
        self.settings = settings
        self.pool = pool
        self.parts = parts
        self.metrics = metrics or Metrics()
        self._names = TopicNames(settings.kafka.topic_prefix)
        self._catalog = Catalog(settings)
        self._task: asyncio.Task[None] | None = None
        self._helpers: list[asyncio.Task[None]] = []
        self._topics: list[str] = []
        self._measured: set[tuple[str, Lane]] = set()
        self._join(settings, pool, parts)

    def _join(self, settings: Settings, pool: Pool, parts: Parts) -> None:
        clock, metrics, names = parts.clock, self.metrics, self._names
        deployments = [deployment for alias in settings.aliases.values() for deployment in alias.deployments]
        secret = _signing_key(settings)
        self.router = Router(settings, random.random)
        self.endings = Endings(
            prices=PriceTable.compile(deployments, settings.price_overrides, clock.now_ms()),
            names=names,
            clock=clock,
            metrics=metrics,
            secret=secret,
            worker=f"{socket.gethostname()}-{os.getpid()}",
            config_hash=settings.config_hash,
            put=self._put,
        )
        self.control = Control(
            reader=parts.reader,
            names=names,
            clock=clock,
            on_cancel=self._cancel,
        )
        self.inference = Inference(
            policy=Policy(
                settings=settings,
                names=names,
                catalog=self._catalog,
                keys=KeyRing(settings),
                key_limits=KeyLimits(),
                secret=secret,
            ),
            router=self.router,
            provider=parts.provider,
            endings=self.endings,
            chunks=ChunkWriter(parts.producer),
            clock=clock,
            metrics=metrics,
            cancelled=self.control.cancelled,
        )
        self.dispatcher = Dispatcher(
            router=self.router,
            clock=clock,
            in_flight=pool.in_flight,
            start=self.inference.start,
            expire=self.inference.expire,
        )
        self.inference.dispatcher = self.dispatcher
        self.outbox = Outbox(
            journal=parts.journal,
            producer=parts.producer,
            names=names,
            metrics=metrics,
            done=self.inference.done,
            stranded=self.endings.stranded,
            letter=self.endings.letter,
        )
        self.committer = Committer(
            consumer=parts.consumer,
            clock=clock,
            metrics=metrics,
            interval=pool.commit_interval,
            on_lost=self.inference.forget,
        )
        self.loop = RequestLoop(
            consumer=parts.consumer,
            committer=self.committer,
            dispatcher=self.dispatcher,
            outbox=self.outbox,
            names=names,
            clock=clock,
            serve=self.inference.serve,
        )

    # Endings and outbox, control and inference need each other; these two bind late.
    def _put(self, outgoing: Outgoing) -> None:
        self.outbox.put(outgoing)

    def _cancel(self, request_id: str) -> None:
        self.inference.cancel(request_id)

    async def start(self) -> None:
        """Connect, read the controls, join the group and begin to serve. Raises `Unavailable`, having closed again."""
        try:
            await self._start()
        except BrokerError:
            await self._close()
            raise

    async def _start(self) -> None:
        parts = self.parts
        await parts.admin.start()
        await parts.producer.start()
        await parts.journal.start()
        await self.control.start()
        self._topics = await self._wanted_topics()
        self.outbox.start()
        await parts.consumer.start(self._topics, self.committer)
        self.committer.start()
        create = asyncio.get_running_loop().create_task
        self._task = create(self.loop.run(), name="request-loop")
        self._helpers = [create(self._observe(), name="observe"), create(self._discover(), name="discover")]

    async def wait(self) -> None:
        """Return when the loop has ended; raises what ended it, which is a defect."""
        if self._task is not None:
            await self._task

    async def stop(self) -> None:
        """Stop fetching, let running calls finish within `drain_seconds`, publish, commit and leave the group."""
        self.loop.stop()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self.dispatcher.close()
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
        await self.control.stop()
        parts = self.parts
        closing: Sequence[Any] = (parts.consumer, parts.producer, parts.journal, parts.admin)
        for part in closing:
            await part.stop()
        await parts.provider.close()

    async def _wanted_topics(self) -> list[str]:
        wanted = set(self.pool.aliases)
        every = "*" in wanted
        aliases = [name for name in self.settings.aliases if every or name in wanted]
        unknown = [name for name in wanted if name != "*" and name not in self.settings.aliases]
        if unknown:
            raise ConfigError(f"workers.pools.{self.pool.name}.aliases: no alias is named {', '.join(sorted(unknown))}")
        topics = {self._names.lane(alias, lane) for alias in aliases for lane in Lane}
        if every:
            # A request for an alias nobody configured is answered 404 rather than left unread.
            existing = await self.parts.admin.topics(self._names.prefix)
            topics |= {
                topic
                for topic in existing
                if (parsed := self._names.parse(topic)) is not None and parsed[0] not in self.settings.aliases
            }
        return sorted(topics)

    async def _discover(self) -> None:
        while True:
            await asyncio.sleep(DISCOVER_SECONDS)
            try:
                topics = await self._wanted_topics()
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
        for partition, behind in (await self.parts.consumer.lag()).items():
            place = self._names.parse(partition.topic)
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


def _signing_key(settings: Settings) -> bytes:
    if settings.signing_key is not None:
        return settings.signing_key.get_secret_value().encode()
    if settings.keys:
        # A request that is sent on carries no key but our word for it, which every worker has to be able to check.
        raise ConfigError("keys need general_settings.signing_key, BROKER_SIGNING_KEY or a master_key to sign with")
    log.warning(
        "no signing key is configured (general_settings.signing_key or BROKER_SIGNING_KEY): a request that one worker "
        "reroutes or parks looks new to every other one; fit for a single process only"
    )
    return secrets.token_bytes(32)


def _calm_collector() -> None:
    """Let the cyclic collector leave what was imported alone and look at young objects less often.

    Thousands of requests are alive at once and almost none is part of a cycle: 5-10 % of the CPU of a request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def _allow_connections() -> None:
    """Raise the soft limit of open files: each call in flight is a connection, and systems start with 256 or 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def run_worker(  # noqa: PLR0913 - what a process is told
    settings: Settings, pool: Pool, *, host: str, port: int, stop: asyncio.Event, instance: str | None = None
) -> None:
    """Serve until `stop` is set, then drain; set again (cleared by us) it stops at once."""
    _calm_collector()
    _allow_connections()
    process = WorkerProcess(settings, pool, Parts.real(settings, pool, instance))
    health = HealthServer(host, port, process.metrics.registry, process.ready)
    await health.start()
    try:
        await process.start()
        stopping = asyncio.get_running_loop().create_task(stop.wait())
        serving = asyncio.get_running_loop().create_task(process.wait())
        await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        stop.clear()
        again = asyncio.get_running_loop().create_task(stop.wait())
        draining = asyncio.get_running_loop().create_task(process.stop())
        await asyncio.wait({again, draining}, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            log.warning("stopping at once; running calls are cut off and will be made again")
            process.abort()
        await draining
        for task in (stopping, again):
            task.cancel()
        if serving.done() and (error := serving.exception()) is not None:
            raise error
    finally:
        await health.stop()
