"""Reads chosen partitions of Kafka without a group: the port `LogReader`."""

import asyncio
from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaClient, AIOKafkaConsumer, TopicPartition

from broker.adapters.kafka_closing import close_quietly, stop_consumer
from broker.adapters.kafka_consumer import FETCH_BYTES, PARTITION_FETCH_BYTES
from broker.adapters.kafka_errors import CLIENT_ERRORS, unavailable
from broker.adapters.kafka_options import connect_limit, connection_options
from broker.adapters.kafka_pace import FETCH_WAIT_MS, pace
from broker.adapters.kafka_poll import Poller
from broker.adapters.kafka_rescue import Rescue
from broker.adapters.kafka_topics import find_partitions
from broker.config.models import Kafka
from broker.errors import Unavailable
from broker.ports import Partition, Record


class KafkaReader:
    """Reads without a group; see `LogReader`."""

    def __init__(self, kafka: Kafka, *, client_id: str = "broker") -> None:
        self._options = connection_options(kafka, client_id)
        self._address = self._options["bootstrap_servers"]
        self._timeout = kafka.request_timeout
        self._connect_limit = connect_limit(kafka)
        self._fetch_bytes = max(PARTITION_FETCH_BYTES, kafka.max_message_bytes)
        self._parts: tuple[AIOKafkaConsumer, AIOKafkaClient, Poller, Rescue] | None = None
        self._assigned: list[Partition] = []

    async def start(self) -> None:
        """Connect. Raises `Unavailable` naming the address."""
        consumer = AIOKafkaConsumer(
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=self._fetch_bytes,
            fetch_max_bytes=max(FETCH_BYTES, self._fetch_bytes),
            **self._options,
        )
        pace(consumer)
        client = AIOKafkaClient(**self._options)
        try:
            async with asyncio.timeout(self._connect_limit):
                await consumer.start()
                await client.bootstrap()
        except BaseException as exc:
            await close_quietly(stop_consumer(consumer), client.close())
            if isinstance(exc, CLIENT_ERRORS):
                raise unavailable(exc, "connect", self._address) from exc
            raise
        rescue = Rescue(self._options, fetch_bytes=self._fetch_bytes)
        self._parts = consumer, client, Poller(consumer, rescue, address=self._address, settled=True), rescue

    async def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read exactly these partitions, each from the given offset."""
        consumer, _, poller, _ = self._started()
        poller.unsettle()
        self._assigned = [Partition(*partition) for partition in positions]
        consumer.assign([TopicPartition(*partition) for partition in positions])
        for partition, offset in positions.items():
            consumer.seek(TopicPartition(*partition), offset)
        poller.settle()

    async def bounds(self, topic: str) -> Mapping[Partition, tuple[int, int]]:
        """First offset and end offset of each partition; empty when the topic does not exist."""
        consumer = self._started()[0]
        try:
            async with asyncio.timeout(self._timeout):
                partitions = await self._partitions(topic)
                first = await consumer.beginning_offsets(partitions)
                end = await consumer.end_offsets(partitions)
        except CLIENT_ERRORS as exc:
            raise unavailable(exc, f"bounds of {topic}", self._address) from exc
        return {Partition(*tp): (first[tp], end[tp]) for tp in partitions}

    async def offsets_at(self, topic: str, timestamp_ms: int) -> Mapping[Partition, int]:
        """First offset at or after `timestamp_ms` of each partition, its end offset where there is none."""
        consumer = self._started()[0]
        try:
            async with asyncio.timeout(self._timeout):
                partitions = await self._partitions(topic)
                end = await consumer.end_offsets(partitions)
                found = await consumer.offsets_for_times(dict.fromkeys(partitions, timestamp_ms)) if partitions else {}
        except CLIENT_ERRORS as exc:
            raise unavailable(exc, f"offsets of {topic}", self._address) from exc
        return {Partition(*tp): at.offset if (at := found.get(tp)) else end[tp] for tp in partitions}

    async def poll(self, *, max_records: int, timeout: float) -> Sequence[Record]:
        """Return up to `max_records` records, waiting at most `timeout` seconds for the first."""
        return await self._started()[2].poll(self._assigned, max_records=max_records, timeout=timeout)

    async def stop(self) -> None:
        """Close."""
        if self._parts is not None:
            consumer, client, poller, rescue = self._parts
            self._parts = None
            await close_quietly(stop_consumer(consumer), poller.stop(), rescue.stop(), client.close())

    async def _partitions(self, topic: str) -> list[TopicPartition]:
        found = await find_partitions(self._started()[1], topic)
        return [TopicPartition(topic, partition) for partition in found]

    def _started(self) -> tuple[AIOKafkaConsumer, AIOKafkaClient, Poller, Rescue]:
        if self._parts is None:
            raise Unavailable("the reader is not started")
        return self._parts
