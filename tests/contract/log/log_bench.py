"""Clients of the two logs that one suite runs over: Kafka's protocol for real, and the twin in memory."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from broker.adapters.kafka import KafkaConsumer, KafkaProducer, KafkaReader
from broker.adapters.kafka_admin import KafkaAdmin
from broker.adapters.memory_log import MemoryAdmin, MemoryConsumer, MemoryLog, MemoryProducer, MemoryReader
from broker.config.models import Kafka
from broker.ports import LogAdmin, LogConsumer, LogProducer, LogReader, OutRecord, Partition, Record
from broker.topics import TopicSpec

DEADLINE_S = 30.0


@dataclass
class Listener:
    """Records what it is told, commits what it is asked to, and lets a test wait for an assignment."""

    assigned: frozenset[Partition] = frozenset()
    told: list[str] = field(default_factory=list)
    on_revoke: Callable[[frozenset[Partition]], Any] | None = None
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def on_revoked(self, partitions: frozenset[Partition]) -> None:
        self.told.append(f"revoked {len(partitions)}")
        if self.on_revoke is not None:
            await self.on_revoke(partitions)

    async def on_assigned(self, partitions: frozenset[Partition]) -> None:
        async with self._changed:
            self.told.append(f"assigned {len(partitions)}")
            self.assigned = partitions
            self._changed.notify_all()

    async def until(self, count: int) -> frozenset[Partition]:
        """Wait until `count` partitions are assigned."""
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(lambda: len(self.assigned) == count)
        return self.assigned


@dataclass
class Bench:
    """Makes clients of one log, and stops them when the test is over."""

    prefix: str
    make: dict[str, Callable[..., Any]]
    started: list[Any] = field(default_factory=list)

    async def topic(self, name: str = "t", partitions: int = 1, **settings: str) -> str:
        topic = f"{self.prefix}{name}"
        spec = TopicSpec(topic, partitions, tuple((key.replace("_", "."), value) for key, value in settings.items()))
        await (await self.admin()).create(spec, replication_factor=1)
        return topic

    async def admin(self) -> LogAdmin:
        admin: LogAdmin = await self._start(self.make["admin"]())
        return admin

    async def producer(self) -> LogProducer:
        producer: LogProducer = await self._start(self.make["producer"]())
        return producer

    async def reader(self) -> LogReader:
        reader: LogReader = await self._start(self.make["reader"]())
        return reader

    async def consumer(self, topics: Iterable[str], group: str = "g", listener: Listener | None = None) -> LogConsumer:
        consumer: LogConsumer = self.make["consumer"](f"{self.prefix}{group}")
        self.started.append(consumer)
        await consumer.start(list(topics), listener or Listener())
        return consumer

    async def write(self, topic: str, values: Iterable[bytes], partition: int | None = 0) -> None:
        records = [OutRecord(topic, value, partition=partition) for value in values]
        assert list(await (await self.producer()).send_all(records)) == [None] * len(records)

    async def _start(self, client: Any) -> Any:
        self.started.append(client)
        await client.start()
        return client

    async def stop(self) -> None:
        for client in reversed(self.started):
            await client.stop()


async def poll_until(consumer: LogConsumer, partitions: Iterable[Partition], count: int) -> list[Record]:
    """Poll until `count` records have come."""
    found: list[Record] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < count:
            found += await consumer.poll(list(partitions), max_records=count - len(found), timeout=1.0)
    return found


async def read_until(reader: LogReader, count: int) -> list[Record]:
    """Read until `count` records have come."""
    found: list[Record] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < count:
            found += await reader.poll(max_records=count - len(found), timeout=1.0)
    return found


def memory_bench(prefix: str) -> Bench:
    log = MemoryLog()
    return Bench(
        prefix,
        {
            "admin": lambda: MemoryAdmin(log),
            "producer": lambda: MemoryProducer(log),
            "reader": lambda: MemoryReader(log),
            "consumer": lambda group: MemoryConsumer(log, group),
        },
    )


def kafka_bench(prefix: str, bootstrap: str, *, request_timeout: float = 40.0) -> Bench:
    kafka = Kafka(bootstrap_servers=bootstrap, request_timeout=request_timeout)
    return Bench(
        prefix,
        {
            "admin": lambda: KafkaAdmin(kafka),
            "producer": lambda: KafkaProducer(kafka),
            "reader": lambda: KafkaReader(kafka),
            "consumer": lambda group: KafkaConsumer(kafka, group, heartbeat=0.2),
        },
    )
