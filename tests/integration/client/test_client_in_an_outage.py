"""The log goes away and comes back while a client waits."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.adapters.kafka import KafkaProducer, KafkaReader
from broker.adapters.kafka_admin import KafkaAdmin
from broker.client import BrokerClient
from broker.config import Kafka
from broker.embedded.kafka_part import KafkaPart
from broker.embedded.probe import free_port
from broker.topics import TopicNames, topic_specs
from tests.unit.client.fake_worker import FakeWorker

pytestmark = pytest.mark.embedded

NAMES = TopicNames()


class Restartable:
    """A log of this test alone, that keeps its data and its port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._part = KafkaPart()
        self.kafka = Kafka(bootstrap_servers=f"127.0.0.1:{self._port}", request_timeout=5)

    async def start(self) -> None:
        await self._part.start(self._folder, self._port)

    async def stop(self) -> None:
        await self._part.stop()
        self._part = KafkaPart()

    def worker(self, *, from_first: bool) -> FakeWorker:
        return FakeWorker(KafkaProducer(self.kafka), KafkaReader(self.kafka), NAMES, from_first=from_first)


@pytest.fixture
async def restartable(tmp_path: Path) -> AsyncIterator[Restartable]:
    restartable = Restartable(tmp_path)
    await restartable.start()
    admin = KafkaAdmin(restartable.kafka)
    await admin.start()
    for spec in topic_specs(NAMES, ["local"]):
        await admin.create(spec, replication_factor=1)
    await admin.stop()
    yield restartable
    await restartable.stop()


async def test_a_request_sent_while_the_log_is_away_is_answered_when_it_is_back(restartable: Restartable) -> None:
    async with BrokerClient(kafka=restartable.kafka, timeout=60) as client:
        async with restartable.worker(from_first=False):
            assert (await client.chat("local", "before")).text == "BEFORE"
        await restartable.stop()
        asked = [asyncio.create_task(client.chat("local", f"during {number}")) for number in range(5)]
        done, _ = await asyncio.wait(asked, timeout=0.3)
        assert done == set()
        await restartable.start()
        async with restartable.worker(from_first=True):
            answers = [answer.text for answer in await asyncio.gather(*asked)]
            assert (await client.chat("local", "after")).text == "AFTER"
    assert answers == [f"DURING {number}" for number in range(5)]
