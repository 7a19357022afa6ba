"""Seeking: a reader whose position is kept elsewhere than in the group's commits."""

from broker.ports import Commit, Partition
from tests.contract.log.log_bench import Bench, Listener, poll_until


async def test_a_sought_partition_is_read_from_there_and_not_from_its_commit(bench: Bench) -> None:
    topic = await bench.topic(partitions=2)
    for number in range(2):
        await bench.write(topic, [b"x"] * 10, partition=number)
    listener = Listener()
    consumer = await bench.consumer([topic], listener=listener)
    both = await listener.until(2)
    await consumer.commit({partition: Commit(3) for partition in both}, timeout=10)
    consumer.seek(Partition(topic, 0), 8)
    consumer.seek(Partition(topic, 1), 1)
    records = await poll_until(consumer, both, 11)
    assert [r.offset for r in records if r.partition == 0] == [8, 9]
    assert [r.offset for r in records if r.partition == 1] == list(range(1, 10))


async def test_seeking_back_reads_again(bench: Bench) -> None:
    topic = await bench.topic()
    await bench.write(topic, [b"%d" % number for number in range(6)])
    place = Partition(topic, 0)
    listener = Listener()
    consumer = await bench.consumer([topic], listener=listener)
    await listener.until(1)
    assert len(await poll_until(consumer, [place], 3)) == 3
    consumer.seek(place, 1)
    assert [r.offset for r in await poll_until(consumer, [place], 5)] == [1, 2, 3, 4, 5]


async def test_a_position_the_log_does_not_have_leads_to_its_first_record(bench: Bench) -> None:
    topic = await bench.topic()
    await bench.write(topic, [b"x"] * 3)
    place = Partition(topic, 0)
    listener = Listener()
    consumer = await bench.consumer([topic], listener=listener)
    await listener.until(1)
    consumer.seek(place, 1000)
    assert [r.offset for r in await poll_until(consumer, [place], 3)] == [0, 1, 2]


async def test_a_partition_of_somebody_else_is_not_sought(bench: Bench) -> None:
    topic = await bench.topic()
    listener = Listener()
    consumer = await bench.consumer([topic], listener=listener)
    await listener.until(1)
    consumer.seek(Partition(topic, 7), 5)
    consumer.seek(Partition(f"{topic}-other", 0), 5)
    assert consumer.assignment() == {Partition(topic, 0)}
