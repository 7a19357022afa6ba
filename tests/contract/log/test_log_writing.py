"""Writing: every record acknowledged or refused on its own."""

import asyncio
from collections import Counter

import pytest

from broker.ports import OutRecord, Partition
from tests.contract.log.log_bench import Bench, read_until

MEGABYTE = 1 << 20


async def test_a_record_that_is_too_large_fails_alone(bench: Bench) -> None:
    topic = await bench.topic(max_message_bytes=str(MEGABYTE))
    values = [b"a", b"x" * (MEGABYTE + 1000), b"b"]
    results = await (await bench.producer()).send_all([OutRecord(topic, value, partition=0) for value in values])
    assert [result and result.permanent for result in results] == [None, True, None]
    reader = await bench.reader()
    assert await reader.bounds(topic) == {Partition(topic, 0): (0, 2)}


async def test_one_too_large_in_a_big_batch_does_not_take_its_neighbours_along(bench: Bench) -> None:
    topic = await bench.topic(max_message_bytes=str(300_000))
    values = [b"%d" % number for number in range(20)] + [b"x" * 301_000] + [b"%d" % number for number in range(20)]
    results = await (await bench.producer()).send_all([OutRecord(topic, value, partition=0) for value in values])
    assert [index for index, result in enumerate(results) if result is not None] == [20]
    assert results[20] is not None
    assert results[20].permanent


async def test_the_largest_allowed_record_goes_both_ways(bench: Bench) -> None:
    topic = await bench.topic(max_message_bytes=str(4 * MEGABYTE))
    value = b"x" * (4 * MEGABYTE - 1000)
    assert list(await (await bench.producer()).send_all([OutRecord(topic, value, partition=0)])) == [None]
    reader = await bench.reader()
    await reader.assign({Partition(topic, 0): 0})
    assert [record.value == value for record in await read_until(reader, 1)] == [True]


async def test_an_absent_topic_or_partition_is_refused_for_good_and_soon(bench: Bench) -> None:
    topic = await bench.topic()
    records = [
        OutRecord(f"{topic}-absent", b"x"),
        OutRecord(topic, b"x", partition=7),
        OutRecord("not a topic name", b"x"),
        OutRecord(topic, b"x", partition=0),
    ]
    results = await (await bench.producer()).send_all(records)
    assert [result and result.permanent for result in results] == [True, True, True, None]
    admin = await bench.admin()
    assert set(await admin.topics(topic)) == {topic}


async def test_a_key_keeps_its_partition_and_records_without_one_spread_over_calls(bench: Bench) -> None:
    topic = await bench.topic(partitions=4)
    producer = await bench.producer()
    for _ in range(8):
        assert (
            list(await producer.send_all([OutRecord(topic, b"keyed", key=b"k"), OutRecord(topic, b"free")]))
            == [None] * 2
        )
    reader = await bench.reader()
    await reader.assign({Partition(topic, number): 0 for number in range(4)})
    found = Counter((record.value, record.partition) for record in await read_until(reader, 16))
    assert len([place for place in found if place[0] == b"keyed"]) == 1
    assert sorted(found[b"free", number] for number in range(4)) == [2, 2, 2, 2]


async def test_nothing_to_send_is_nothing_sent(bench: Bench) -> None:
    assert list(await (await bench.producer()).send_all([])) == []


async def test_a_batch_larger_than_a_request_arrives_whole_and_in_order(bench: Bench) -> None:
    topic = await bench.topic()
    values = [b"%06d" % number + b"x" * 2_000 for number in range(600)]
    await bench.write(topic, values)
    reader = await bench.reader()
    await reader.assign({Partition(topic, 0): 0})
    assert [record.value for record in await read_until(reader, 600)] == values


async def test_header_values_of_a_tuple_are_taken_as_well(bench: Bench) -> None:
    topic = await bench.topic()
    await (await bench.producer()).send_all([OutRecord(topic, b"x", headers=(("a", b"1"),), partition=0)])
    reader = await bench.reader()
    await reader.assign({Partition(topic, 0): 0})
    assert [list(record.headers) for record in await read_until(reader, 1)] == [[("a", b"1")]]


@pytest.mark.embedded
async def test_a_producer_whose_sender_has_died_is_replaced(real: Bench) -> None:
    topic = await real.topic()
    producer = await real.producer()
    [sender] = [task for task in asyncio.all_tasks() if "_sender_routine" in repr(task)]
    sender.cancel()
    await asyncio.wait({sender})
    assert list(await producer.send_all([OutRecord(topic, b"x", partition=0)])) == [None]
