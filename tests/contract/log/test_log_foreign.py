"""Records of a client that is neither ours nor aiokafka: librdkafka."""

import pytest
from confluent_kafka import Producer

from broker.ports import Partition
from tests.contract.log.log_bench import Bench, read_until

pytestmark = pytest.mark.embedded

BODY = b'{"model": "local", "messages": [{"role": "user", "content": "h\xc3\xa9llo"}]}'


def send(bootstrap: str, topic: str, values: list[bytes], **settings: str) -> None:
    """Write to partition 0 with no headers at all, and wait."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": "20", **settings})
    failures: list[object] = []
    for value in values:
        producer.produce(topic, value=value, partition=0, on_delivery=lambda error, _: failures.append(error))
    assert producer.flush(30) == 0
    assert failures == [None] * len(values)


async def test_a_record_without_key_and_headers_is_read(real: Bench, kafka_bootstrap: str) -> None:
    topic = await real.topic()
    send(kafka_bootstrap, topic, [BODY])
    reader = await real.reader()
    await reader.assign({Partition(topic, 0): 0})
    [record] = await read_until(reader, 1)
    assert (record.key, record.value, list(record.headers)) == (None, BODY, [])


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_records_are_read(real: Bench, kafka_bootstrap: str, codec: str) -> None:
    topic = await real.topic()
    values = [BODY + b"%d" % number for number in range(50)]
    send(kafka_bootstrap, topic, values, **{"compression.type": codec})
    reader = await real.reader()
    await reader.assign({Partition(topic, 0): 0})
    assert [record.value for record in await read_until(reader, 50)] == values
