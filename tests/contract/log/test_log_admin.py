"""Administration: topics are looked at, made and changed, never shrunk."""

from broker.ports import Commit, Partition
from broker.topics import TopicSpec
from tests.contract.log.log_bench import Bench, Listener


async def test_a_topic_is_made_as_asked_and_making_it_again_is_no_error(bench: Bench) -> None:
    topic = await bench.topic("made", 3, retention_ms="600000", max_message_bytes="2000000")
    admin = await bench.admin()
    await admin.create(TopicSpec(topic, 9, ()), replication_factor=1)
    state = (await admin.topics(topic))[topic]
    assert (state.name, state.partitions) == (topic, 3)
    assert (state.settings["retention.ms"], state.settings["max.message.bytes"]) == ("600000", "2000000")


async def test_only_topics_of_the_prefix_are_listed(bench: Bench) -> None:
    topic = await bench.topic("listed")
    admin = await bench.admin()
    assert set(await admin.topics(topic)) == {topic}
    assert await admin.topics(f"{topic}-absent") == {}


async def test_partitions_grow(bench: Bench) -> None:
    topic = await bench.topic("growing", 2)
    admin = await bench.admin()
    await admin.grow(topic, 5)
    assert (await admin.topics(topic))[topic].partitions == 5


async def test_changing_one_setting_leaves_the_others(bench: Bench) -> None:
    topic = await bench.topic("changing", 1, retention_ms="600000", max_message_bytes="2000000")
    admin = await bench.admin()
    await admin.alter(topic, {"retention.ms": "700000"})
    settings = (await admin.topics(topic))[topic].settings
    assert (settings["retention.ms"], settings["max.message.bytes"]) == ("700000", "2000000")


async def test_the_lag_of_a_group_is_told_without_joining_it(bench: Bench) -> None:
    topic = await bench.topic("lagging", 2)
    await bench.write(topic, [b"x"] * 10, partition=1)
    listener = Listener()
    consumer = await bench.consumer([topic], listener=listener)
    await listener.until(2)
    await consumer.commit({Partition(topic, 1): Commit(4)}, timeout=10)
    admin = await bench.admin()
    assert await admin.lags(f"{bench.prefix}g") == {Partition(topic, 1): (4, 10)}
    assert await admin.lags(f"{bench.prefix}unknown") == {}
