"""Closes aiokafka's clients so that nothing is left behind, whatever state Kafka is in. May import aiokafka."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.group_coordinator import GroupCoordinator

from broker.adapters.kafka_errors import CLIENT_ERRORS

_log = logging.getLogger(__name__)

STOP_LIMIT_S: Final = 10.0


async def close_quietly(*closing: Awaitable[Any]) -> None:
    """Await each closing call in turn, each for at most 10 s; what a dead Kafka leaves undone is only logged."""
    for step in closing:
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                await step
        except CLIENT_ERRORS as exc:
            _log.warning("while closing a Kafka client: %r", exc)


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Leave the group and close every connection.

    A static member leaves too: aiokafka lets it go without a word, and its partitions would wait for its session to
    end. Only one that is killed keeps its place.
    """
    if isinstance(consumer._coordinator, GroupCoordinator):  # noqa: SLF001 - the consumer has no way to say it
        consumer._coordinator._group_instance_id = None  # noqa: SLF001 - as above
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        # A fetch that sleeps after an error lets its own cancellation through, and the rest of `stop` is skipped.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        await consumer._client.close()  # noqa: SLF001 - `stop` does nothing when it is called again
