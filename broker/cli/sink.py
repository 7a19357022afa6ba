"""`broker sink`: write usage events to ClickHouse."""

import gc
from pathlib import Path
from typing import Final

import click

from broker.adapters.clickhouse import ClickHouseLedger
from broker.adapters.kafka import KafkaProducer
from broker.cli.common import load_settings, process_options, run_async
from broker.clock import SystemClock
from broker.config import Settings
from broker.logs import setup
from broker.metrics import Metrics
from broker.topics import TopicNames

GARBAGE_THRESHOLD: Final = 200_000
"""New objects between two collections. A batch makes about 40,000 that live until it is written and are in no cycle;
with Python's own threshold, looking through them again and again takes 40 % of the time of reading events."""


@click.command()
@process_options(4030)
def command(config: Path | None, instance: str | None, host: str | None, port: int, log_level: str) -> None:
    """Write usage events to ClickHouse until SIGTERM or Ctrl-C. Several may run: they share the partitions.

    The tables are made by `broker clickhouse migrate`.
    """
    setup(level=log_level)
    gc.set_threshold(GARBAGE_THRESHOLD)
    settings = load_settings(config)
    run_async(_sink(settings, host or settings.server.host, port, instance))


async def _sink(settings: Settings, host: str, port: int, instance: str | None) -> None:
    from workers.pool.service import run_service  # noqa: PLC0415 - the core knows workers only inside its commands
    from workers.sinks.clickhouse import Sink  # noqa: PLC0415

    names = TopicNames(settings.kafka.topic_prefix)
    metrics = Metrics()
    await run_service(
        lambda consumer: Sink(
            consumer=consumer,
            producer=KafkaProducer(settings.kafka),
            ledger=ClickHouseLedger(settings.clickhouse),
            names=names,
            clock=SystemClock(),
            metrics=metrics,
            batch_rows=settings.clickhouse.batch_rows,
            batch_seconds=settings.clickhouse.batch_seconds,
        ),
        kafka=settings.kafka,
        group=names.sink_group,
        metrics=metrics,
        host=host,
        port=port,
        instance=instance,
        doing="writing usage events",
    )
