"""Groups: who owns what, what is committed, and what a rebalance does."""

import asyncio

import pytest

from broker.errors import Unavailable
from broker.ports import Commit, LogConsumer, Partition
from tests.contract.log.log_bench import Bench, Listener, poll_until


async def test_a_lone_member_owns_every_partition_of_its_topics(bench: Bench) -> None:
    one, two = await bench.topic("one", 2), await bench.topic("two", 1)
    await bench.topic("three", 1)
    listener = Listener()
    consumer = await bench.consumer([one, two], listener=listener)
    assert await listener.until(3) == {Partition(one, 0), Partition(one, 1), Partition(two, 0)}
    assert consumer.assignment() == listener.assigned
    assert listener.told == ["assigned 3"]


async def test_an_absent_topic_keeps_nobody_from_the_ones_that_are_there(bench: Bench) -> None:
    topic = await bench.topic()
    await bench.write(topic, [b"x"])
    consumer = await bench.consumer([topic, f"{topic}-absent"])
    assert [record.value for record in await poll_until(consumer, [Partition(topic, 0)], 1)] == [b"x"]


async def test_a_commit_comes_back_with_its_metadata(bench: Bench) -> None:
    topic = await bench.topic(partitions=3)
    listener = Listener()
    consumer = await bench.consumer([topic], listener=listener)
    await listener.until(3)
    done = {Partition(topic, 0): Commit(5, "m" * 1_400), Partition(topic, 1): Commit(0, "é" * 2_045)}
    await consumer.commit(done, timeout=10)
    assert await consumer.committed([Partition(topic, number) for number in range(3)]) == done
    assert await consumer.committed([]) == {}


async def test_the_next_member_goes_on_from_the_commit(bench: Bench) -> None:
    topic = await bench.topic()
    await bench.write(topic, [b"%d" % number for number in range(10)])
    place = Partition(topic, 0)
    listener = Listener()
    first = await bench.consumer([topic], listener=listener)
    await listener.until(1)
    await poll_until(first, [place], 10)
    await first.commit({place: Commit(7)}, timeout=10)
    await first.stop()
    successor = Listener()
    second = await bench.consumer([topic], listener=successor)
    await successor.until(1)
    assert [record.offset for record in await poll_until(second, [place], 3)] == [7, 8, 9]


async def test_a_kept_partition_is_read_again_from_its_commit_after_a_rebalance(bench: Bench) -> None:
    topic = await bench.topic(partitions=4)
    for number in range(4):
        await bench.write(topic, [b"x"] * 20, partition=number)
    first_listener, second_listener = Listener(), Listener()
    first = await bench.consumer([topic], listener=first_listener)
    everything = await first_listener.until(4)
    await poll_until(first, everything, 80)
    await first.commit({partition: Commit(5, f"p{partition.partition}") for partition in everything}, timeout=10)
    second = await bench.consumer([topic], listener=second_listener)
    theirs = await second_listener.until(2)
    kept = await first_listener.until(2)
    assert kept | theirs == everything
    assert first_listener.told == ["assigned 4", "revoked 4", "assigned 2"]
    for consumer, partitions in ((first, kept), (second, theirs)):
        records = await poll_until(consumer, partitions, 30)
        assert {(record.partition, min(r.offset for r in records)) for record in records} == {
            (partition.partition, 5) for partition in partitions
        }


async def test_the_last_commit_of_a_revoked_partition_reaches_its_next_owner(bench: Bench) -> None:
    topic = await bench.topic(partitions=2)
    first_listener, second_listener = Listener(), Listener()
    first = await bench.consumer([topic], listener=first_listener)
    await first_listener.until(2)

    async def commit_all(partitions: frozenset[Partition]) -> None:
        await first.commit({partition: Commit(3, "last words") for partition in partitions}, timeout=10)

    first_listener.on_revoke = commit_all
    second = await bench.consumer([topic], listener=second_listener)
    [theirs] = await second_listener.until(1)
    assert await second.committed([theirs]) == {theirs: Commit(3, "last words")}


async def test_a_partition_of_someone_else_cannot_be_committed(bench: Bench) -> None:
    topic = await bench.topic(partitions=2)
    listeners = [Listener(), Listener()]
    consumers: list[LogConsumer] = []
    for listener in listeners:
        consumers.append(await bench.consumer([topic], listener=listener))
        await listener.until(2 if len(consumers) == 1 else 1)
    [theirs] = listeners[1].assigned
    await listeners[0].until(1)
    with pytest.raises(Unavailable):
        await consumers[0].commit({theirs: Commit(1)}, timeout=5)


async def test_a_member_that_leaves_hands_over_everything(bench: Bench) -> None:
    topic = await bench.topic(partitions=2)
    first_listener, second_listener = Listener(), Listener()
    first = await bench.consumer([topic], listener=first_listener)
    await first_listener.until(2)
    await bench.consumer([topic], listener=second_listener)
    await second_listener.until(1)
    await first_listener.until(1)
    await first.stop()
    assert await second_listener.until(2) == {Partition(topic, 0), Partition(topic, 1)}


async def test_a_changed_subscription_changes_the_assignment(bench: Bench) -> None:
    old, new = await bench.topic("old", 1), await bench.topic("new", 2)
    await bench.write(new, [b"x"])
    listener = Listener()
    consumer = await bench.consumer([old], listener=listener)
    await listener.until(1)
    consumer.subscribe([new])
    assert await listener.until(2) == {Partition(new, 0), Partition(new, 1)}
    assert listener.told == ["assigned 1", "revoked 1", "assigned 2"]
    assert [record.value for record in await poll_until(consumer, listener.assigned, 1)] == [b"x"]


async def test_work_done_before_a_change_of_subscription_can_still_be_committed(bench: Bench) -> None:
    old, new = await bench.topic("old", 1), await bench.topic("new", 2)
    listener = Listener()
    consumer = await bench.consumer([old], listener=listener)
    [place] = await listener.until(1)

    async def commit(partitions: frozenset[Partition]) -> None:
        await consumer.commit({partition: Commit(4) for partition in partitions}, timeout=10)

    listener.on_revoke = commit
    consumer.subscribe([old, new])
    await listener.until(3)
    assert await consumer.committed([place]) == {place: Commit(4)}


async def test_a_poll_keeps_its_time_and_hands_out_nothing_while_a_rebalance_is_held_up(bench: Bench) -> None:
    topic = await bench.topic(partitions=2)
    began, go_on = asyncio.Event(), asyncio.Event()

    async def hold_up(partitions: frozenset[Partition]) -> None:
        del partitions
        began.set()
        await go_on.wait()

    listener = Listener(on_revoke=hold_up)
    consumer = await bench.consumer([topic], listener=listener)
    everything = sorted(await listener.until(2))
    await bench.consumer([topic])
    while not began.is_set():
        assert await consumer.poll(everything, max_records=10, timeout=0.1) == []
    await bench.write(topic, [b"x"], partition=0)
    await bench.write(topic, [b"x"], partition=1)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await consumer.poll(everything, max_records=10, timeout=0.1) == []
    assert loop.time() - begun < 2
    go_on.set()
    [ours] = await listener.until(1)
    assert [record.partition for record in await poll_until(consumer, everything, 1)] == [ours.partition]
