"""Makes what the servers of a stack must hold before programs start: topics in the log, tables in the ledger."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.adapters.clickhouse import ClickHouseLedger
from broker.adapters.kafka_admin import KafkaAdmin
from broker.config import Settings
from broker.ports import Ledger
from broker.topic_plan import apply_topics
from broker.topics import TopicNames, topic_specs


async def prepare(settings: Settings) -> None:
    """Apply the topics and the migrations; idempotent. Raises `Unavailable`."""
    kafka = settings.kafka
    specs = topic_specs(
        TopicNames(kafka.topic_prefix), sorted(settings.aliases), max_message_bytes=kafka.max_message_bytes
    )
    admin = KafkaAdmin(kafka)
    await admin.start()
    try:
        await apply_topics(admin, specs, kafka.replication_factor)
    finally:
        await admin.stop()
    async with open_ledger(settings) as ledger:
        await ledger.migrate()


@asynccontextmanager
async def open_ledger(settings: Settings) -> AsyncIterator[Ledger]:
    """Connect to the ledger for the block. Raises `Unavailable`."""
    ledger = ClickHouseLedger(settings.clickhouse)
    await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.stop()
