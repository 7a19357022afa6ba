"""The reply partition: what is read, what is dropped, and how a broken reader is replaced."""

import asyncio
from collections.abc import Sequence

import pytest

from broker.adapters.memory_log import MemoryLog, MemoryProducer, MemoryReader
from broker.client import BrokerClient, LogPorts
from broker.client.mailbox import Mailbox, Result, Waiting
from broker.client.outbox import Backoff
from broker.envelope import Reply
from broker.errors import Unavailable
from broker.records import OutRecord, Record
from tests.unit.client.conftest import NAMES
from tests.unit.client.fake_worker import FakeWorker, completion, reply

QUICK = Backoff(first=0.001, most=0.01)


def final(request_id: str, partition: int, *, key: bytes | None = b"", body: bytes = b"{}") -> OutRecord:
    headers = [("request-id", request_id.encode()), ("status", b"200"), ("final", b"1")]
    return OutRecord(NAMES.replies, body, request_id.encode() if key == b"" else key, headers, partition)


class BreakingReader(MemoryReader):
    """Breaks at the poll after each `break_next`."""

    breaks = 0
    opened = 0

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        BreakingReader.opened += 1

    async def poll(self, *, max_records: int, timeout: float) -> Sequence[Record]:
        if BreakingReader.breaks:
            BreakingReader.breaks -= 1
            raise Unavailable("no broker answers")
        return await super().poll(max_records=max_records, timeout=timeout)


async def expected(mailbox: Mailbox, request_id: str) -> asyncio.Future[Result]:
    future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    mailbox.expect(Waiting(request_id, future.set_result))
    return future


async def test_a_reply_to_somebody_else_and_a_second_copy_are_dropped(log: MemoryLog) -> None:
    mailbox = Mailbox(lambda: MemoryReader(log), NAMES.replies, QUICK)
    await mailbox.open()
    future = await expected(mailbox, "mine")
    place = mailbox.partition
    records = [final("theirs", place), final("mine", place, body=b"1"), final("mine", place, body=b"2")]
    for record in records:
        log.send(record, 0)
    log.wake()
    result = await future
    last = await expected(mailbox, "last")
    log.send(final("last", place), 0)
    log.wake()
    await last
    await mailbox.close()
    assert isinstance(result, Reply)
    assert result.value == b"1"
    assert mailbox.waiting == 0


async def test_a_reply_without_a_key_is_known_by_its_header(log: MemoryLog) -> None:
    mailbox = Mailbox(lambda: MemoryReader(log), NAMES.replies, QUICK)
    await mailbox.open()
    future = await expected(mailbox, "mine")
    log.send(final("mine", mailbox.partition, key=None), 0)
    log.wake()
    result = await future
    await mailbox.close()
    assert isinstance(result, Reply)


async def test_what_stood_in_the_partition_before_is_not_read(log: MemoryLog) -> None:
    for partition in range(64):
        log.send(final("mine", partition, body=b"old"), 0)
    mailbox = Mailbox(lambda: MemoryReader(log), NAMES.replies, QUICK)
    await mailbox.open()
    future = await expected(mailbox, "mine")
    log.send(final("mine", mailbox.partition, body=b"new"), 0)
    log.wake()
    result = await future
    await mailbox.close()
    assert isinstance(result, Reply)
    assert result.value == b"new"


async def test_a_broken_reader_is_replaced_and_no_reply_is_missed(log: MemoryLog) -> None:
    BreakingReader.opened = BreakingReader.breaks = 0
    mailbox = Mailbox(lambda: BreakingReader(log), NAMES.replies, QUICK)
    await mailbox.open()
    BreakingReader.breaks = 3
    future = await expected(mailbox, "mine")
    log.send(final("mine", mailbox.partition), 0)
    log.wake()
    result = await future
    await mailbox.close()
    assert isinstance(result, Reply)
    assert BreakingReader.opened > 1


async def test_a_log_that_comes_back_empty_is_read_from_its_beginning(log: MemoryLog) -> None:
    BreakingReader.opened = BreakingReader.breaks = 0
    for partition in [*range(64), *range(64)]:
        log.send(final("old", partition), 0)
    current = log
    mailbox = Mailbox(lambda: BreakingReader(current), NAMES.replies, QUICK)
    await mailbox.open()
    future = await expected(mailbox, "mine")
    current = MemoryLog({NAMES.replies: 64})
    current.send(final("mine", mailbox.partition), 0)
    BreakingReader.breaks = 1
    log.wake()
    result = await future
    await mailbox.close()
    assert isinstance(result, Reply)


async def test_a_client_survives_a_reader_that_breaks_under_load(log: MemoryLog, worker: FakeWorker) -> None:
    BreakingReader.opened = BreakingReader.breaks = 0
    ports = LogPorts(producer=MemoryProducer(log), open_reader=lambda: BreakingReader(log))

    async with BrokerClient(ports=ports, backoff=QUICK, timeout=20) as client:

        async def ask(number: int) -> str:
            if number % 10 == 0:
                BreakingReader.breaks += 1
            return (await client.chat("local", f"n{number}")).text

        answers = await asyncio.gather(*map(ask, range(100)))
    assert answers == [f"N{number}" for number in range(100)]
    assert len(worker.jobs) == 100


async def test_a_reply_that_is_there_before_the_send_returns_is_not_lost(ports: LogPorts, log: MemoryLog) -> None:
    """The answer is written the moment the request is, before the producer's acknowledgement."""
    async with FakeWorker(MemoryProducer(log), MemoryReader(log), NAMES) as worker:
        worker.respond = lambda job: [reply(job, completion("at once"))] * 2
        async with BrokerClient(ports=ports) as client:
            answers = [(await client.chat("local", "hi", timeout=5)).text for _ in range(20)]
    assert answers == ["at once"] * 20


async def test_a_client_must_be_open_before_it_waits(log: MemoryLog) -> None:
    with pytest.raises(Unavailable, match="not open"):
        await expected(Mailbox(lambda: MemoryReader(log), NAMES.replies, QUICK), "mine")
