"""A consumer that is given up and made anew, on a real log: nothing is lost, nothing is read twice."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry

from broker.adapters.kafka import KafkaConsumer, KafkaProducer, KafkaReader
from broker.adapters.kafka_admin import KafkaAdmin
from broker.clock import SystemClock
from broker.config import Kafka
from broker.metrics import Metrics
from broker.records import OutRecord, Partition
from broker.topics import TopicSpec
from workers.committer import Committer
from workers.watchdog import unread
from workers.watched import WatchedConsumer

pytestmark = pytest.mark.embedded

PATIENCE = 40.0


@pytest.mark.parametrize("instance", [None, "static-1"])
async def test_a_consumer_made_anew_goes_on_where_the_one_given_up_stood(
    kafka_bootstrap: str, unique_prefix: str, instance: str | None
) -> None:
    kafka, topic = Kafka(bootstrap_servers=kafka_bootstrap, topic_prefix=unique_prefix), f"{unique_prefix}requests.a"
    admin, producer = KafkaAdmin(kafka), KafkaProducer(kafka)
    await admin.start()
    await admin.create(TopicSpec(topic, 2, ()), replication_factor=1)
    await admin.stop()
    await producer.start()

    async def publish(count: int) -> None:
        records = [OutRecord(topic, b"%d" % number, partition=number % 2) for number in range(count)]
        assert set(await producer.send_all(records)) == {None}

    consumer = WatchedConsumer(lambda: KafkaConsumer(kafka, f"{unique_prefix}g", instance=instance), SystemClock())
    committer = Committer(
        consumer=consumer,
        clock=SystemClock(),
        metrics=Metrics(CollectorRegistry()),
        interval=60,
        on_lost=lambda _: None,
    )
    started: list[tuple[int, int]] = []

    async def poll() -> None:
        records = await consumer.poll(list(committer.assigned), max_records=50, timeout=0.1)
        started.extend(
            (record.partition, record.offset)
            for record in records
            if committer.trackers[Partition(topic, record.partition)].receive(record.offset)
        )

    await publish(10)
    await consumer.start([topic], committer)
    await until(lambda: len(started) == 10, poll)
    # Half of it is done; the other half are calls that run on through the exchange.
    for partition, offset in started:
        if offset < 3:
            committer.trackers[Partition(topic, partition)].finish(offset, 0)

    polling = asyncio.create_task(poll())
    await consumer.give_up()
    await polling
    assert consumer.absent
    assert consumer.assignment() == frozenset()
    await publish(4)
    await consumer.start_again()
    await until(lambda: len(started) == 14, poll)
    assert len(set(started)) == 14
    assert [committer.trackers[Partition(topic, number)].in_flight for number in range(2)] == [4, 4]

    read = {Partition(topic, 0): 7, Partition(topic, 1): 6}
    assert await unread(lambda: KafkaReader(kafka), read) == {Partition(topic, 1)}
    await consumer.stop()
    await producer.stop()


async def until(condition: Callable[[], bool], step: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await step()
