"""A log that is not there, does not answer, or goes away: told in time, by name, and taken up again when it returns."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.adapters.kafka import KafkaConsumer, KafkaProducer, KafkaReader
from broker.adapters.kafka_admin import KafkaAdmin
from broker.config.models import Kafka
from broker.embedded.kafka_part import KafkaPart
from broker.errors import Unavailable
from broker.ports import Commit, OutRecord, Partition
from tests.contract.log.log_bench import Bench, Listener, kafka_bench, poll_until


@pytest.fixture
async def silent() -> AsyncIterator[int]:
    """The port of a server that takes connections and never answers."""
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    for writer in writers:
        writer.close()
    server.close()


def clients(port: int, timeout: float) -> list[KafkaProducer | KafkaReader | KafkaAdmin]:
    kafka = Kafka(bootstrap_servers=f"127.0.0.1:{port}", request_timeout=timeout)
    return [KafkaProducer(kafka), KafkaReader(kafka), KafkaAdmin(kafka)]


async def test_no_client_starts_without_a_broker_and_each_names_the_address(unused_tcp_port: int) -> None:
    for client in clients(unused_tcp_port, 5.0):
        with pytest.raises(Unavailable, match=f"127.0.0.1:{unused_tcp_port}"):
            await client.start()
        await client.stop()
    consumer = KafkaConsumer(Kafka(bootstrap_servers=f"127.0.0.1:{unused_tcp_port}"), "g")
    with pytest.raises(Unavailable, match=f"127.0.0.1:{unused_tcp_port}"):
        await consumer.start(["t"])
    await consumer.stop()


async def test_a_broker_that_does_not_answer_is_given_up_after_the_request_time(silent: int) -> None:
    loop = asyncio.get_running_loop()
    for client in clients(silent, 0.2):
        begun = loop.time()
        with pytest.raises(Unavailable, match="no answer in time"):
            await client.start()
        assert loop.time() - begun < 2


async def test_a_client_that_is_not_started_says_so() -> None:
    producer, reader, admin = clients(1, 1.0)
    assert isinstance(producer, KafkaProducer)
    assert isinstance(reader, KafkaReader)
    assert isinstance(admin, KafkaAdmin)
    for call in (producer.send_all([OutRecord("t", b"x")]), reader.bounds("t"), admin.topics("t")):
        with pytest.raises(Unavailable, match="not started"):
            await call


@pytest.mark.embedded
async def test_a_log_that_goes_away_fails_every_call_in_time_and_is_used_again_when_it_is_back(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    part = KafkaPart()
    await part.start(tmp_path, unused_tcp_port)
    bench = kafka_bench("gone.", f"127.0.0.1:{unused_tcp_port}", request_timeout=1.0)
    try:
        await use_break_and_use(bench, part, tmp_path, unused_tcp_port)
    finally:
        await bench.stop()
        await part.stop()


async def use_break_and_use(bench: Bench, part: KafkaPart, folder: Path, port: int) -> None:
    topic = await bench.topic()
    place = Partition(topic, 0)
    producer, reader, listener = await bench.producer(), await bench.reader(), Listener()
    consumer = await bench.consumer([topic], listener=listener)
    await listener.until(1)
    await bench.write(topic, [b"before"])
    assert len(await poll_until(consumer, [place], 1)) == 1
    await part.stop()
    async with asyncio.timeout(15):
        for calls in (1, 20):
            results = await producer.send_all([OutRecord(topic, b"x", partition=0)] * calls)
            assert [result is not None and not result.permanent for result in results] == [True] * calls
        for call in (
            consumer.commit({place: Commit(1)}, timeout=0.2),
            consumer.committed([place]),
            reader.bounds(topic),
        ):
            with pytest.raises(Unavailable):
                await call
        assert await consumer.poll([place], max_records=1, timeout=0.1) == []
    await part.start(folder, port)
    assert list(await producer.send_all([OutRecord(topic, b"after", partition=0)])) == [None]
    values = [record.value for record in await poll_until(consumer, [place], 1)]
    while b"after" not in values:
        values += [record.value for record in await poll_until(consumer, [place], 1)]
