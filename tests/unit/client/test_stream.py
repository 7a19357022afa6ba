"""Streams: order, older attempts, gaps, and the end."""

import gc
from collections.abc import Sequence

import pytest

from broker.adapters.memory_log import MemoryLog
from broker.client import BrokerClient, LogPorts, ReplyTimeout, RequestFailed
from broker.client.stream import MAX_HELD, ChunkOrder
from broker.envelope import Job, Reply, read_cancel
from broker.records import OutRecord, Partition
from tests.unit.client.conftest import NAMES
from tests.unit.client.fake_worker import FakeWorker, chunk, completion, failure, reply


def piece(seq: int, attempt: int = 1) -> Reply:
    return Reply(request_id="r", value=b"{}", final=False, seq=seq, attempt=attempt)


def taken(order: ChunkOrder, *pieces: Reply) -> list[tuple[int, int]]:
    return [(ready.attempt, ready.seq or 0) for each in pieces for ready in order.take(each)]


def test_chunks_come_out_in_order_and_once() -> None:
    order = ChunkOrder()
    assert taken(order, piece(0), piece(2), piece(0), piece(1), piece(2), piece(3)) == [(1, 0), (1, 1), (1, 2), (1, 3)]


def test_a_newer_attempt_begins_anew_and_ends_the_older_one() -> None:
    order = ChunkOrder()
    assert taken(order, piece(0), piece(1), piece(0, 2), piece(2, 1), piece(1, 2)) == [(1, 0), (1, 1), (2, 0), (2, 1)]


def test_a_chunk_that_never_comes_holds_up_no_more_than_a_few_hundred() -> None:
    order = ChunkOrder()
    ready = taken(order, *(piece(seq) for seq in range(1, MAX_HELD + 2)))
    assert (len(ready), ready[0], order.missed) == (MAX_HELD + 1, (1, 1), 1)


def test_the_rest_is_given_out_at_the_end_across_gaps() -> None:
    order = ChunkOrder()
    taken(order, piece(0), piece(2), piece(4))
    assert [ready.seq for ready in order.rest()] == [2, 4]
    assert order.missed == 2


async def test_a_stream_is_read_piece_by_piece_and_as_a_whole(ports: LogPorts, worker: FakeWorker) -> None:
    worker.respond = lambda job: [chunk(job, 0, "Hel"), chunk(job, 1, "lo"), reply(job, completion("Hello"))]
    async with BrokerClient(ports=ports) as client:
        stream = client.stream("local", "hi", temperature=1)
        pieces = [(each.seq, each.attempt, each.text) async for each in stream]
        whole = await stream.completion()
    assert pieces == [(0, 1, "Hel"), (1, 1, "lo")]
    assert (whole.text, stream.missed) == ("Hello", 0)
    assert worker.jobs[0].body == {
        "model": "local",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 1,
        "stream": True,
    }


async def test_a_missed_chunk_is_no_loss_for_the_whole(ports: LogPorts, worker: FakeWorker) -> None:
    worker.respond = lambda job: [chunk(job, 0, "Hel"), chunk(job, 2, "!"), reply(job, completion("Hello!"))]
    async with BrokerClient(ports=ports) as client:
        stream = client.stream("local", "hi")
        pieces = [each.text async for each in stream]
        assert (pieces, stream.missed, (await stream.completion()).text) == (["Hel", "!"], 1, "Hello!")


async def test_a_second_attempt_is_told_by_its_number(ports: LogPorts, worker: FakeWorker) -> None:
    def respond(job: Job) -> Sequence[OutRecord]:
        first = [chunk(job, seq, "a") for seq in range(3)]
        second = [chunk(job, seq, "b", attempt=2) for seq in range(2)]
        return [*first[:2], second[0], first[2], second[1], reply(job, completion("bb"))]

    worker.respond = respond
    async with BrokerClient(ports=ports) as client:
        pieces = [(each.attempt, each.text) async for each in client.stream("local", "hi")]
    assert pieces == [(1, "a"), (1, "a"), (2, "b"), (2, "b")]


async def test_a_stream_that_fails_raises_after_its_pieces(ports: LogPorts, worker: FakeWorker) -> None:
    worker.respond = lambda job: [chunk(job, 0, "Hel"), failure(job, 502, "bad_upstream_response")]
    async with BrokerClient(ports=ports) as client:
        stream = client.stream("local", "hi")
        assert (await anext(stream)).text == "Hel"
        with pytest.raises(RequestFailed, match="502"):
            await anext(stream)
        with pytest.raises(RequestFailed, match="502"):
            await stream.completion()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_stream_without_an_end_times_out(ports: LogPorts, worker: FakeWorker) -> None:
    worker.respond = lambda job: [chunk(job, 0, "Hel")]
    async with BrokerClient(ports=ports) as client:
        with pytest.raises(ReplyTimeout):
            [each async for each in client.stream("local", "hi", timeout=0.05)]
        assert client.waiting == 0


async def test_nothing_piles_up_for_a_stream_that_was_dropped(ports: LogPorts, worker: FakeWorker) -> None:
    worker.respond = lambda job: [chunk(job, 0, "Hel")]
    async with BrokerClient(ports=ports) as client:
        async for _ in client.stream("local", "hi"):
            break
        gc.collect()
        assert client.waiting == 0
        async with client.stream("local", "hi") as stream:
            assert client.waiting == 1
        assert client.waiting == 0
        assert [each async for each in stream] == []


async def test_a_stream_can_be_cancelled(ports: LogPorts, log: MemoryLog, worker: FakeWorker) -> None:
    worker.respond = lambda job: [chunk(job, 0, "Hel")]
    async with BrokerClient(ports=ports) as client:
        stream = client.stream("local", "hi")
        await anext(stream)
        await stream.cancel()
    (record,) = log.read(Partition(NAMES.control, 0), 0, 10)
    cancel = read_cancel(record)
    assert cancel is not None
    assert cancel[0] == stream.request_id
