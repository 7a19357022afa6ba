"""Reading: what comes back is what was written, fairly, from where one asked."""

import asyncio
from collections import Counter

import pytest

from broker.ports import OutRecord, Partition
from tests.contract.log.log_bench import Bench, Listener, poll_until, read_until


async def test_a_record_comes_back_as_it_was_written(bench: Bench) -> None:
    topic = await bench.topic()
    headers = [("request-id", b"r-1"), ("metadata", b"\xff\x00"), ("twice", b"1"), ("twice", b"2"), ("empty", b"")]
    await (await bench.producer()).send_all([OutRecord(topic, b'{"a": 1}', key=b"k\xff", headers=headers, partition=0)])
    reader = await bench.reader()
    await reader.assign({Partition(topic, 0): 0})
    [record] = await read_until(reader, 1)
    assert (record.topic, record.partition, record.offset) == (topic, 0, 0)
    assert (record.key, record.value, list(record.headers)) == (b"k\xff", b'{"a": 1}', headers)
    assert record.timestamp > 1_600_000_000_000


async def test_null_key_and_null_value_stay_null(bench: Bench) -> None:
    topic = await bench.topic()
    await (await bench.producer()).send_all([OutRecord(topic, None, partition=0), OutRecord(topic, b"", partition=0)])
    reader = await bench.reader()
    await reader.assign({Partition(topic, 0): 0})
    records = await read_until(reader, 2)
    assert [(record.key, record.value) for record in records] == [(None, None), (None, b"")]


async def test_a_full_partition_does_not_starve_the_others(bench: Bench) -> None:
    topic = await bench.topic(partitions=3)
    await bench.write(topic, [b"x"] * 300, partition=0)
    await bench.write(topic, [b"y"] * 10, partition=1)
    await bench.write(topic, [b"z"] * 10, partition=2)
    reader = await bench.reader()
    await reader.assign({Partition(topic, number): 0 for number in range(3)})
    records = await read_until(reader, 90)
    found = Counter(record.partition for record in records)
    assert (found[1], found[2]) == (10, 10)


async def test_records_of_a_partition_come_in_order_whatever_the_batch(bench: Bench) -> None:
    topic = await bench.topic(partitions=2)
    for partition in (0, 1):
        await bench.write(topic, [b"%d" % number for number in range(100)], partition=partition)
    listener = Listener()
    consumer = await bench.consumer([topic], listener=listener)
    partitions = await listener.until(2)
    offsets: dict[int, list[int]] = {0: [], 1: []}
    while sum(map(len, offsets.values())) < 200:
        for record in await consumer.poll(sorted(partitions), max_records=7, timeout=1.0):
            offsets[record.partition].append(record.offset)
    assert offsets == {0: list(range(100)), 1: list(range(100))}


async def test_partitions_that_are_not_named_keep_their_records(bench: Bench) -> None:
    topic = await bench.topic(partitions=2)
    await bench.write(topic, [b"a", b"b"], partition=0)
    await bench.write(topic, [b"c", b"d"], partition=1)
    listener = Listener()
    consumer = await bench.consumer([topic], listener=listener)
    await listener.until(2)
    zero, one = Partition(topic, 0), Partition(topic, 1)
    assert [record.value for record in await poll_until(consumer, [one], 2)] == [b"c", b"d"]
    assert await consumer.poll([one], max_records=10, timeout=0.05) == []
    assert [record.value for record in await poll_until(consumer, [zero], 2)] == [b"a", b"b"]


@pytest.mark.parametrize("foreign", [False, True])
async def test_an_empty_or_foreign_list_of_partitions_waits_and_returns_nothing(bench: Bench, foreign: bool) -> None:  # noqa: FBT001 - a parameter of the test
    topic = await bench.topic()
    await bench.write(topic, [b"a"])
    listener = Listener()
    consumer = await bench.consumer([topic], listener=listener)
    await listener.until(1)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await consumer.poll([Partition("other", 0)] if foreign else [], max_records=10, timeout=0.1) == []
    assert 0.09 <= loop.time() - begun < 2
    assert [record.value for record in await poll_until(consumer, [Partition(topic, 0)], 1)] == [b"a"]


async def test_a_poll_ends_when_a_record_comes_not_when_the_time_is_up(bench: Bench) -> None:
    topic = await bench.topic()
    reader = await bench.reader()
    await reader.assign({Partition(topic, 0): 0})
    poll = asyncio.create_task(reader.poll(max_records=10, timeout=30.0))
    await bench.write(topic, [b"late"])
    async with asyncio.timeout(10):
        assert [record.value for record in await poll] == [b"late"]


async def test_reading_goes_on_from_a_given_offset_and_can_be_given_another(bench: Bench) -> None:
    topic = await bench.topic(partitions=2)
    for partition in (0, 1):
        await bench.write(topic, [b"%d" % number for number in range(5)], partition=partition)
    reader = await bench.reader()
    await reader.assign({Partition(topic, 0): 3})
    assert [record.value for record in await read_until(reader, 2)] == [b"3", b"4"]
    await reader.assign({Partition(topic, 1): 4})
    assert [(record.partition, record.offset) for record in await read_until(reader, 1)] == [(1, 4)]
    await reader.assign({})
    assert await reader.poll(max_records=10, timeout=0.05) == []


async def test_bounds_name_the_first_and_the_end_offset_of_every_partition(bench: Bench) -> None:
    topic = await bench.topic(partitions=2)
    await bench.write(topic, [b"a", b"b", b"c"], partition=1)
    reader = await bench.reader()
    assert await reader.bounds(topic) == {Partition(topic, 0): (0, 0), Partition(topic, 1): (0, 3)}
    assert await reader.bounds(f"{topic}-absent") == {}
    assert await reader.offsets_at(f"{topic}-absent", 0) == {}


async def test_an_offset_is_found_by_time(bench: Bench) -> None:
    topic = await bench.topic()
    await bench.write(topic, [b"a", b"b"])
    reader = await bench.reader()
    await reader.assign({Partition(topic, 0): 0})
    stamp = (await read_until(reader, 2))[0].timestamp
    assert await reader.offsets_at(topic, stamp) == {Partition(topic, 0): 0}
    assert await reader.offsets_at(topic, stamp + 3_600_000) == {Partition(topic, 0): 2}


async def test_lag_falls_as_records_are_taken(bench: Bench) -> None:
    topic = await bench.topic()
    await bench.write(topic, [b"x"] * 10)
    listener = Listener()
    consumer = await bench.consumer([topic], listener=listener)
    await listener.until(1)
    await poll_until(consumer, [Partition(topic, 0)], 4)
    assert await consumer.lag() == {Partition(topic, 0): 6}
