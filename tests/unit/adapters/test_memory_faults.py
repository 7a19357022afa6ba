"""The faults a test can ask of the twins."""

import pytest

from broker.adapters.memory_journal import MemoryJournal
from broker.adapters.memory_log import MemoryConsumer, MemoryLog, MemoryProducer, MemoryReader
from broker.adapters.record_batches import UNREADABLE
from broker.clock import ManualClock
from broker.errors import Unavailable
from broker.ports import Answer, Commit, Ending, OutRecord, Partition, SendFailure

PLACE = Partition("t", 0)


async def test_a_log_that_is_down_fails_everything_and_forgets_nothing() -> None:
    log = MemoryLog({"t": 1})
    producer, consumer = MemoryProducer(log), MemoryConsumer(log, "g")
    await consumer.start(["t"])
    assert list(await producer.send_all([OutRecord("t", b"x")])) == [None]
    assert len(await consumer.poll([PLACE], max_records=1, timeout=1.0)) == 1
    log.down = True
    assert list(await producer.send_all([OutRecord("t", b"y")])) == [SendFailure("the log is down", permanent=False)]
    for call in (consumer.commit({PLACE: Commit(1)}, timeout=1.0), consumer.committed([PLACE]), producer.start()):
        with pytest.raises(Unavailable):
            await call
    assert await consumer.poll([PLACE], max_records=1, timeout=0.01) == []
    log.down = False
    await consumer.commit({PLACE: Commit(1)}, timeout=1.0)
    await consumer.stop()


async def test_single_sends_and_commits_can_be_made_to_fail() -> None:
    log = MemoryLog({"t": 1})
    log.fail_sends = lambda record: SendFailure("asked for", permanent=False) if record.value == b"bad" else None
    results = await MemoryProducer(log).send_all([OutRecord("t", b"good"), OutRecord("t", b"bad")])
    assert [result and result.reason for result in results] == [None, "asked for"]
    assert [record.value for record in log.records("t")] == [b"good"]
    consumer = MemoryConsumer(log, "g")
    await consumer.start(["t"])
    await consumer.poll([PLACE], max_records=1, timeout=1.0)
    log.fail_commits = True
    with pytest.raises(Unavailable, match="asked"):
        await consumer.commit({PLACE: Commit(1)}, timeout=1.0)
    await consumer.stop()


async def test_a_killed_member_says_nothing_and_its_partitions_go_to_the_others() -> None:
    log = MemoryLog({"t": 2})
    first, second = MemoryConsumer(log, "g"), MemoryConsumer(log, "g")
    await first.start(["t"])
    await second.start(["t"])
    await MemoryProducer(log).send_all([OutRecord("t", b"x", partition=number) for number in range(2)])
    both = [PLACE, Partition("t", 1)]
    assert len(await first.poll(both, max_records=9, timeout=1.0)) == 1
    first.kill()
    with pytest.raises(Unavailable):
        await first.commit({PLACE: Commit(1)}, timeout=1.0)
    found: list[int] = []
    while len(found) < 2:
        found += [record.partition for record in await second.poll(both, max_records=9, timeout=1.0)]
    assert set(found) == {0, 1}
    await second.stop()


async def test_an_unreadable_record_reads_as_the_port_says() -> None:
    log = MemoryLog({"t": 1})
    log.append_unreadable("t", 0, "why")
    reader = MemoryReader(log)
    await reader.assign({PLACE: 0})
    [record] = await reader.poll(max_records=1, timeout=0.0)
    assert (record.value, list(record.headers)) == (None, [(UNREADABLE, b"why")])


async def test_trimmed_records_are_gone_and_reading_goes_on_at_the_first_one_left() -> None:
    log = MemoryLog({"t": 1})
    await MemoryProducer(log).send_all([OutRecord("t", b"%d" % number) for number in range(5)])
    log.trim(PLACE, 3)
    reader = MemoryReader(log)
    assert await reader.bounds("t") == {PLACE: (3, 5)}
    await reader.assign({PLACE: 0})
    assert [record.offset for record in await reader.poll(max_records=9, timeout=0.0)] == [3, 4]


async def test_the_journal_forgets_by_its_clock_and_can_be_down() -> None:
    clock = ManualClock()
    journal = MemoryJournal(clock=clock, answer_ttl=60)
    answer = Answer("r", 200, b"{}", {})
    await journal.complete([Ending(None, "", answer)])
    clock.advance(59)
    assert await journal.outcome("r") == answer
    clock.advance(1)
    assert await journal.outcome("r") is None
    journal.down = True
    for call in (journal.ping(), journal.complete([Ending(None, "", answer)]), journal.outcome("r"), journal.start()):
        with pytest.raises(Unavailable):
            await call
