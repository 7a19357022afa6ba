"""A log in memory with the topics of two aliases, a client's ports over it, and a worker at the other end."""

from collections.abc import AsyncIterator

import pytest

from broker.adapters.memory_log import MemoryLog, MemoryProducer, MemoryReader
from broker.client import LogPorts
from broker.topics import TopicNames, topic_specs
from tests.unit.client.fake_worker import FakeWorker

NAMES = TopicNames()


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog({spec.name: spec.partitions for spec in topic_specs(NAMES, ["local", "other"])})


@pytest.fixture
def ports(log: MemoryLog) -> LogPorts:
    return LogPorts(producer=MemoryProducer(log), open_reader=lambda: MemoryReader(log))


@pytest.fixture
async def worker(log: MemoryLog) -> AsyncIterator[FakeWorker]:
    async with FakeWorker(MemoryProducer(log), MemoryReader(log), NAMES) as worker:
        yield worker
