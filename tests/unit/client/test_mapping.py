"""Many requests through `map`: bounded, as completed, and nothing left behind."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import orjson
import pytest

from broker.adapters.memory_log import MemoryLog
from broker.client import BrokerClient, LogPorts, Options, Request
from broker.ports import SendFailure
from tests.unit.client.fake_worker import FakeWorker, failure


def request(number: int, alias: str = "local", **options: object) -> Request:
    body = {"messages": [{"role": "user", "content": f"n{number}"}]}
    return Request(alias=alias, body=body, options=Options(metadata=number, **options))  # type: ignore[arg-type]


async def test_every_request_yields_one_reply(ports: LogPorts, worker: FakeWorker) -> None:
    async with BrokerClient(ports=ports) as client:
        replies = [reply async for reply in client.map(map(request, range(1000)), in_flight=50)]
    assert sorted(orjson.loads(reply.metadata or b"") for reply in replies) == list(range(1000))
    assert {reply.status for reply in replies} == {200}
    assert len(worker.jobs) == 1000


async def test_an_async_iterable_is_taken_as_well(ports: LogPorts, worker: FakeWorker) -> None:
    async def source() -> AsyncIterator[Request]:
        for number in range(10):
            yield request(number)

    async with BrokerClient(ports=ports) as client:
        assert len([reply async for reply in client.map(source())]) == len(worker.jobs) == 10


async def test_no_more_than_in_flight_are_taken_from_the_source(ports: LogPorts, worker: FakeWorker) -> None:
    taken = read = most = 0

    def source() -> Iterator[Request]:
        nonlocal taken
        for number in range(200):
            taken += 1
            yield request(number)

    async with BrokerClient(ports=ports) as client:
        async for _ in client.map(source(), in_flight=7):
            read += 1
            most = max(most, taken - read)
    assert (read, len(worker.jobs)) == (200, 200)
    assert most <= 7


async def test_error_replies_are_yielded_and_do_not_end_the_job(ports: LogPorts, worker: FakeWorker) -> None:
    worker.respond = lambda job: [failure(job, 400, "invalid_request")]
    async with BrokerClient(ports=ports) as client:
        assert [reply.status async for reply in client.map(map(request, range(3)))] == [400] * 3


async def test_what_never_got_a_reply_is_told_as_one(ports: LogPorts, log: MemoryLog, worker: FakeWorker) -> None:
    worker.respond = lambda _: []
    log.fail_sends = lambda record: (
        SendFailure("too large", permanent=True) if b'"n1"' in (record.value or b"") else None
    )
    requests = [request(1), request(2, alias="nobody"), request(3, deadline=-59.95)]
    async with BrokerClient(ports=ports) as client:
        replies = {orjson.loads(reply.metadata or b""): reply async for reply in client.map(requests)}
    assert {number: (reply.status, reply.body()["error"]["code"]) for number, reply in replies.items()} == {
        1: (400, "invalid_request"),
        2: (404, "model_not_found"),
        3: (408, "reply_timeout"),
    }
    assert {reply.attempts for reply in replies.values()} == {0}


async def test_an_error_of_the_source_is_raised_and_nothing_stays(ports: LogPorts, worker: FakeWorker) -> None:
    def source() -> Iterator[Request]:
        yield request(0)
        raise KeyError("source")

    worker.respond = lambda _: []
    async with BrokerClient(ports=ports) as client:
        with pytest.raises(KeyError, match="source"):
            [reply async for reply in client.map(source())]
        assert client.waiting == 0


async def test_leaving_early_forgets_what_is_in_flight(ports: LogPorts, worker: FakeWorker) -> None:
    worker.respond = lambda job: [failure(job, 400, "x")] if job.metadata == b"0" else []
    async with BrokerClient(ports=ports) as client:
        async with aclosing(client.map(map(request, range(100)), in_flight=10)) as replies:
            async for _ in replies:
                break
        assert client.waiting == 0


async def test_a_bound_below_one_is_wrong_use(ports: LogPorts) -> None:
    async with BrokerClient(ports=ports) as client:
        with pytest.raises(ValueError, match="at least 1"):
            [reply async for reply in client.map([], in_flight=0)]
