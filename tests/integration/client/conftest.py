"""Topics of this test alone on a real Kafka-protocol log, and a worker of a few lines that serves them."""

from collections.abc import AsyncIterator, Sequence

import pytest

from broker.adapters.kafka import KafkaProducer, KafkaReader
from broker.adapters.kafka_admin import KafkaAdmin
from broker.config import Kafka
from broker.envelope import Job
from broker.records import OutRecord
from broker.topics import TopicNames, topic_specs
from tests.unit.client.fake_worker import FakeWorker, chunk, completion, failure, reply


def respond(job: Job) -> Sequence[OutRecord]:
    """Answer in upper case, twice as after a crash; stream by letters; fail where asked to."""
    text = str(job.body["messages"][-1]["content"])
    if text.startswith("fail"):
        return [failure(job, 400, "invalid_request", param="messages")]
    answer = reply(job, completion(text.upper()))
    if job.streams:
        return [*(chunk(job, seq, letter) for seq, letter in enumerate(text.upper())), answer]
    return [answer, answer]


@pytest.fixture
async def kafka(kafka_bootstrap: str, unique_prefix: str) -> Kafka:
    kafka = Kafka(bootstrap_servers=kafka_bootstrap, topic_prefix=unique_prefix)
    admin = KafkaAdmin(kafka)
    await admin.start()
    for spec in topic_specs(TopicNames(unique_prefix), ["local"]):
        await admin.create(spec, replication_factor=1)
    await admin.stop()
    return kafka


@pytest.fixture
async def worker(kafka: Kafka) -> AsyncIterator[FakeWorker]:
    names = TopicNames(kafka.topic_prefix)
    async with FakeWorker(KafkaProducer(kafka), KafkaReader(kafka), names, respond=respond) as worker:
        yield worker
