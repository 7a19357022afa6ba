"""Records that cannot be parsed: they are told of, they take no neighbour along, and they stop nothing."""

import pytest
from aiokafka.errors import KafkaError

from broker.adapters.record_batches import UNREADABLE
from broker.ports import Commit, Partition, Record
from tests.contract.log.log_bench import Bench, Listener, poll_until, read_until
from tests.contract.log.raw_batches import BAD_NAME, batch, produce_raw, with_bad_names, with_codec

pytestmark = pytest.mark.embedded

MIXED = batch(
    [
        (b"one", [("a", b"1")]),
        (b"two", [("request-id", b"r-2"), (BAD_NAME, b"x"), ("reply-to", b"llm.replies")]),
        (b"three", [("a", b"3")]),
    ]
)


def told(records: list[Record]) -> list[tuple[int, bytes | None]]:
    return [(record.offset, record.value) for record in records]


async def test_a_header_name_that_is_not_utf8_costs_only_its_own_record(real: Bench, kafka_bootstrap: str) -> None:
    topic = await real.topic()
    await real.write(topic, [b"before"])
    await produce_raw(kafka_bootstrap, topic, with_bad_names(MIXED))
    await real.write(topic, [b"after"])
    listener = Listener()
    consumer = await real.consumer([topic], listener=listener)
    places = await listener.until(1)
    records = await poll_until(consumer, places, 5)
    assert told(records) == [(0, b"before"), (1, b"one"), (2, None), (3, b"three"), (4, b"after")]
    headers = dict(records[2].headers)
    assert (headers["request-id"], headers["reply-to"]) == (b"r-2", b"llm.replies")
    assert b"not UTF-8" in headers[UNREADABLE]
    await consumer.commit({Partition(topic, 0): Commit(5)}, timeout=10)
    assert await consumer.poll(sorted(places), max_records=10, timeout=0.05) == []


async def test_poison_in_one_partition_does_not_lose_records_of_another(real: Bench, kafka_bootstrap: str) -> None:
    topic = await real.topic(partitions=3)
    for partition in (1, 2):
        await real.write(topic, [b"x"] * 20, partition=partition)
    await produce_raw(kafka_bootstrap, topic, with_bad_names(MIXED))
    listener = Listener()
    consumer = await real.consumer([topic], listener=listener)
    records = await poll_until(consumer, await listener.until(3), 43)
    by_partition = {n: [r.offset for r in records if r.partition == n] for n in range(3)}
    assert by_partition == {0: [0, 1, 2], 1: list(range(20)), 2: list(range(20))}


async def test_a_reader_in_the_middle_of_a_bad_batch_goes_on_behind_it(real: Bench, kafka_bootstrap: str) -> None:
    topic = await real.topic()
    await produce_raw(kafka_bootstrap, topic, with_bad_names(MIXED))
    reader = await real.reader()
    await reader.assign({Partition(topic, 0): 2})
    assert told(await read_until(reader, 1)) == [(2, b"three")]
    await reader.assign({Partition(topic, 0): 1})
    assert told(await read_until(reader, 2)) == [(1, None), (2, b"three")]


async def test_a_batch_that_cannot_be_decompressed_is_told_of_record_by_record(
    real: Bench, kafka_bootstrap: str
) -> None:
    topic = await real.topic()
    try:
        await produce_raw(kafka_bootstrap, topic, with_codec(MIXED, 4))
    except KafkaError:
        pytest.skip("this log looks into compressed batches and refuses a broken one")
    await real.write(topic, [b"after"])
    reader = await real.reader()
    await reader.assign({Partition(topic, 0): 0})
    records = await read_until(reader, 4)
    assert told(records) == [(0, None), (1, None), (2, None), (3, b"after")]
    assert all(b"decompress" in dict(record.headers)[UNREADABLE] for record in records[:3])


async def test_a_null_header_value_is_read_as_an_empty_one(real: Bench, kafka_bootstrap: str) -> None:
    topic = await real.topic()
    await produce_raw(kafka_bootstrap, topic, batch([(b"x", [("a", None), ("b", b"1")])]))
    reader = await real.reader()
    await reader.assign({Partition(topic, 0): 0})
    assert [list(record.headers) for record in await read_until(reader, 1)] == [[("a", b""), ("b", b"1")]]
