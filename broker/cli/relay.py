"""`broker relay`: republish parked requests when they are due."""

import asyncio
import logging
import signal
from pathlib import Path

import click

from broker.adapters.kafka import KafkaConsumer, KafkaProducer
from broker.cli.common import load_settings, process_options, run_async
from broker.clock import SystemClock
from broker.config import Settings
from broker.edge.health import HealthServer
from broker.logs import setup
from broker.metrics import Metrics
from broker.topics import TopicNames

log = logging.getLogger(__name__)


@click.command()
@process_options(4031)
def command(config: Path | None, instance: str | None, host: str | None, port: int, log_level: str) -> None:
    """Republish parked requests when they are due, until SIGTERM or Ctrl-C. Several may run: they share the work."""
    setup(level=log_level)
    settings = load_settings(config)
    run_async(_relay(settings, host or settings.server.host, port, instance))


async def _relay(settings: Settings, host: str, port: int, instance: str | None) -> None:
    from workers.relay import Relay  # noqa: PLC0415 - the core knows workers only inside its commands

    names = TopicNames(settings.kafka.topic_prefix)
    metrics = Metrics()
    relay = Relay(
        consumer=KafkaConsumer(settings.kafka, names.relay_group, instance=instance),
        producer=KafkaProducer(settings.kafka),
        names=names,
        clock=SystemClock(),
        metrics=metrics,
    )
    health = HealthServer(host, port, metrics.registry, relay.ready)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, relay.stop)
    await health.start()
    try:
        await relay.start()
        log.info("republishing parked requests; health and metrics on port %d", health.port)
        await relay.run()
        await relay.close()
    finally:
        await health.stop()
