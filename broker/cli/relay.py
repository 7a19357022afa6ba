"""`broker relay`: republish parked requests when they are due."""

from pathlib import Path

import click

from broker.adapters.kafka import KafkaProducer
from broker.cli.common import load_settings, process_options, run_async
from broker.clock import SystemClock
from broker.config import Settings
from broker.logs import setup
from broker.metrics import Metrics
from broker.topics import TopicNames


@click.command()
@process_options(4031)
def command(config: Path | None, instance: str | None, host: str | None, port: int, log_level: str) -> None:
    """Republish parked requests when they are due, until SIGTERM or Ctrl-C. Several may run: they share the work."""
    setup(level=log_level)
    settings = load_settings(config)
    run_async(_relay(settings, host or settings.server.host, port, instance))


async def _relay(settings: Settings, host: str, port: int, instance: str | None) -> None:
    from workers.pool.service import run_service  # noqa: PLC0415
    from workers.relay import Relay  # noqa: PLC0415 - the core knows workers only inside its commands

    names = TopicNames(settings.kafka.topic_prefix)
    metrics = Metrics()
    await run_service(
        lambda consumer: Relay(
            consumer=consumer,
            producer=KafkaProducer(settings.kafka),
            names=names,
            clock=SystemClock(),
            metrics=metrics,
        ),
        kafka=settings.kafka,
        group=names.relay_group,
        metrics=metrics,
        host=host,
        port=port,
        instance=instance,
        doing="republishing parked requests",
    )
