"""The client against a real Kafka-protocol log, with a worker of a few lines at the other end."""

import asyncio

import pytest

from broker.adapters.kafka import KafkaReader
from broker.client import BrokerClient, Options, Request, RequestFailed
from broker.config import Kafka
from broker.envelope import read_cancel
from broker.errors import ModelNotFound
from broker.topics import TopicNames
from tests.unit.client.fake_worker import FakeWorker

pytestmark = pytest.mark.embedded


async def test_a_chat_comes_back_typed_with_its_reply(kafka: Kafka, worker: FakeWorker) -> None:
    async with BrokerClient(kafka=kafka, key="sk-1", timeout=20) as client:
        answer = await client.chat("local", "hello", options=Options(tags={"team": "x"}), max_tokens=5)
    assert answer.choices[0].message.content == "HELLO"
    assert (answer.reply.status, answer.reply.served_by) == (200, "local/0")
    assert [(job.authorization, job.tags, job.body["max_tokens"]) for job in worker.jobs] == [
        ("Bearer sk-1", {"team": "x"}, 5)
    ]


async def test_a_stream_arrives_in_pieces_and_whole(kafka: Kafka, worker: FakeWorker) -> None:
    async with BrokerClient(kafka=kafka, timeout=20) as client:
        stream = client.stream("local", "hello")
        pieces = [piece.text async for piece in stream]
        whole = await stream.completion()
    assert (pieces, whole.text) == (list("HELLO"), "HELLO")
    assert worker.jobs[0].streams


async def test_many_clients_share_the_replies_topic(kafka: Kafka, worker: FakeWorker) -> None:
    async def one(number: int) -> list[str]:
        async with BrokerClient(kafka=kafka, timeout=20) as client:
            answers = await asyncio.gather(*(client.chat("local", f"n{number}-{turn}") for turn in range(5)))
            return [answer.text for answer in answers]

    assert await asyncio.gather(*map(one, range(4))) == [[f"N{n}-{turn}" for turn in range(5)] for n in range(4)]
    assert len(worker.jobs) == 20


async def test_an_alias_without_topics_is_not_found_at_once(kafka: Kafka) -> None:
    async with BrokerClient(kafka=kafka) as client:
        with pytest.raises(ModelNotFound, match="no alias 'nobody'"):
            await client.chat("nobody", "hello")


async def test_an_error_reply_is_raised_with_its_code(kafka: Kafka, worker: FakeWorker) -> None:
    async with BrokerClient(kafka=kafka, timeout=20) as client:
        with pytest.raises(RequestFailed) as caught:
            await client.chat("local", "fail please")
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_request", "messages")
    assert len(worker.jobs) == 1


async def test_a_cancel_reaches_the_control_topic(kafka: Kafka) -> None:
    names = TopicNames(kafka.topic_prefix)
    async with BrokerClient(kafka=kafka) as client:
        handle = await client.submit(Request(alias="local", body={"messages": []}))
        await handle.cancel()
    reader = KafkaReader(kafka)
    await reader.start()
    await reader.assign({partition: first for partition, (first, _) in (await reader.bounds(names.control)).items()})
    (record,) = await reader.poll(max_records=10, timeout=10)
    await reader.stop()
    cancel = read_cancel(record)
    assert cancel is not None
    assert cancel[0] == handle.request_id
