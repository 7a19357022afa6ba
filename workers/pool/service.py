"""Runs what reads the log beside the workers, the sink and the relay, until it is told to stop: a composition root.

Both are watched as workers are: a consumer that stands still is built anew, and if that does not help the process ends.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

from broker.adapters.kafka import KafkaConsumer, KafkaReader
from broker.clock import SystemClock
from broker.config import Kafka
from broker.edge.health import HealthServer
from broker.metrics import Metrics
from broker.ports import LogConsumer
from workers.watchdog import EXIT_STUCK, LoopGuard, Watchdog
from workers.watched import WatchedConsumer

log = logging.getLogger(__name__)

STOP_SECONDS: Final = 120.0
"""What is in hand gets less than this to be written; then the process is ended."""


class Service(Protocol):
    """What the sink and the relay have in common."""

    @property
    def turned(self) -> float:
        """When its loop last turned, monotonic seconds."""
        ...

    async def start(self) -> None:
        """Connect. Raises `Unavailable`, having closed again."""
        ...

    async def run(self) -> None:
        """Run until stopped."""
        ...

    def stop(self) -> None:
        """Ask it to end."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether it works, and what keeps it from it."""
        ...


async def run_service(  # noqa: PLR0913 - what a process is told
    make: Callable[[LogConsumer], Service],
    *,
    kafka: Kafka,
    group: str,
    metrics: Metrics,
    host: str,
    port: int,
    instance: str | None,
    doing: str,
) -> None:
    """Run what `make` makes of a consumer until SIGTERM or SIGINT; ends with `EXIT_STUCK` where it cannot read."""
    clock = SystemClock()
    consumer = WatchedConsumer(lambda: KafkaConsumer(kafka, group, instance=instance), clock)
    service = make(consumer)
    watchdog = Watchdog(
        consumer=consumer,
        turned=lambda: service.turned,
        adopted=lambda: True,  # where they go on reading does not stand in the log, or is asked with each assignment
        make_reader=lambda: KafkaReader(kafka),
        clock=clock,
    )
    guard = LoopGuard(clock)
    health = HealthServer(host, port, metrics.registry, lambda: _ready(service, watchdog))
    loop = asyncio.get_running_loop()

    def stop() -> None:
        guard.allow(STOP_SECONDS)
        service.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await health.start()
    guard.start()
    try:
        await service.start()
        watchdog.start()
        log.info("%s; health and metrics on port %d", doing, health.port)
        stuck = await _run(service, watchdog)
    finally:
        await watchdog.stop()
        guard.stop()
        await health.stop()
    if stuck:
        sys.exit(EXIT_STUCK)


async def _run(service: Service, watchdog: Watchdog) -> bool:
    """Run to the end; whether the watchdog asked for it."""
    running = asyncio.create_task(service.run(), name="service")
    watching = asyncio.create_task(watchdog.wait(), name="watching")
    try:
        await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
        stuck = watching.done()
        if stuck:
            service.stop()
        await running
        return stuck
    finally:
        running.cancel()
        watching.cancel()
        await asyncio.gather(running, watching, return_exceptions=True)
        await service.close()


def _ready(service: Service, watchdog: Watchdog) -> tuple[bool, dict[str, Any]]:
    good, told = service.ready()
    if watchdog.problem is None:
        return good, told
    return False, {**told, "problems": {**told.get("problems", {}), "consumer": watchdog.problem}}
