"""Static members: one that stops gives its partitions up at once, one that starts again under its name takes them."""

import asyncio

import pytest

from broker.adapters.kafka import KafkaConsumer
from broker.adapters.kafka_admin import KafkaAdmin
from broker.config import Kafka
from broker.records import Partition
from broker.topics import TopicSpec
from tests.serving import eventually

pytestmark = pytest.mark.embedded


@pytest.mark.parametrize("successor", [None, "other", "first"], ids=["dynamic", "another name", "the same name"])
async def test_a_static_member_that_stops_leaves_its_partitions_to_the_next(
    kafka_bootstrap: str, unique_prefix: str, successor: str | None
) -> None:
    kafka, topic, group = Kafka(bootstrap_servers=kafka_bootstrap), f"{unique_prefix}t", f"{unique_prefix}g"
    admin = KafkaAdmin(kafka)
    await admin.start()
    await admin.create(TopicSpec(topic, 2, ()), replication_factor=1)
    await admin.stop()
    every = {Partition(topic, 0), Partition(topic, 1)}
    first = KafkaConsumer(kafka, group, instance="first")
    await first.start([topic])
    await eventually(lambda: first.assignment() == every, "the first owns both")
    second = KafkaConsumer(kafka, group, instance=successor)
    await first.stop()
    await second.start([topic])
    async with asyncio.timeout(10):
        await eventually(lambda: second.assignment() == every, "the second owns both")
    await second.stop()
