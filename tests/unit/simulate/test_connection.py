"""The simulator's HTTP: whole and chunked requests, one after the other, answers that wait or break off."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from broker.simulate.api import Sent
from broker.simulate.connection import Connection, Play, chunk, head

POST = b"POST /x HTTP/1.1\r\nhost: a\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def served(answer: Callable[[Sent], Play]) -> AsyncIterator[Streams]:
    """Serve, and yield a connection."""
    open_ones: set[Connection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(answer, open_ones), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()
        for connection in list(open_ones):
            connection.abort()
        await server.wait_closed()


def echo(sent: Sent) -> Play:
    return Play(iter([(0.0, head(200, {}, len(sent.raw)) + sent.raw)]))


async def body_of(reader: asyncio.StreamReader) -> bytes:
    told = await reader.readuntil(b"\r\n\r\n")
    length = told.split(b"content-length: ")[1].split(b"\r\n")[0]
    return await reader.readexactly(int(length))


async def test_bodies_of_a_stated_length_come_one_after_the_other_however_they_arrive() -> None:
    async with served(echo) as (reader, writer):
        writer.write(POST + b"content-length: 3\r\n\r\none" + POST + b"content-length: 3\r\n\r\ntw")
        assert await body_of(reader) == b"one"
        writer.write(b"o")
        assert await body_of(reader) == b"two"


async def test_a_chunked_body_is_put_together() -> None:
    async with served(echo) as (reader, writer):
        chunks = chunk(b"one") + chunk(b"two") + chunk(b"")
        request = POST + b"transfer-encoding: chunked\r\n\r\n" + chunks
        writer.write(request[:-8])
        await writer.drain()
        writer.write(request[-8:] + request)
        assert [await body_of(reader), await body_of(reader)] == [b"onetwo", b"onetwo"]


async def test_who_expects_it_is_told_to_go_on() -> None:
    async with served(echo) as (reader, writer):
        writer.write(POST + b"content-length: 3\r\nexpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"one")
        assert await body_of(reader) == b"one"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (POST + b"content-length: many\r\n\r\n", b"400"),
        (POST + b"content-length: 99999999999\r\n\r\n", b"413"),
        (POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (POST + b"transfer-encoding: chunked\r\n\r\nffffffffff\r\n", b"413"),
        (b"x" * 70_000, b"431"),
    ],
)
async def test_what_is_no_http_gets_a_status_and_an_end(raw: bytes, status: bytes) -> None:
    async with served(echo) as (reader, writer):
        writer.write(raw)
        told = await reader.read()
    assert told.split(b" ")[1] == status


async def test_a_connection_closes_where_the_caller_asked_for_it() -> None:
    async with served(echo) as (reader, writer):
        writer.write(POST + b"connection: close\r\ncontent-length: 3\r\n\r\none")
        assert (await reader.read()).endswith(b"\r\n\r\none")


async def test_an_answer_that_breaks_off_closes_the_connection() -> None:
    async with served(lambda _: Play(iter([(0.01, b"HTTP/1.1 200 OK\r\n")]), close=True)) as (reader, writer):
        writer.write(POST + b"content-length: 0\r\n\r\n")
        assert await reader.read() == b"HTTP/1.1 200 OK\r\n"


async def test_a_caller_that_goes_away_ends_its_call_once_and_one_that_stays_does_too() -> None:
    ends: list[bool] = []
    gone = asyncio.Event()

    def ended(cut: bool) -> None:  # noqa: FBT001 - the connection's own call
        ends.append(cut)
        gone.set()

    async with served(lambda _: Play(iter(()), ended, hangs=True)) as (_, writer):
        writer.write(POST + b"content-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        await asyncio.wait_for(gone.wait(), 5)
    async with served(lambda sent: Play(echo(sent).pieces, ended)) as (reader, writer):
        writer.write(POST + b"content-length: 3\r\n\r\none")
        await body_of(reader)
    assert ends == [True, False]


async def test_a_long_answer_waits_for_a_slow_reader_and_arrives_whole() -> None:
    size, count = 1 << 20, 40
    pieces = iter([(0.0, head(200, {}, size * count)), *[(0.0, bytes(size))] * count])
    async with served(lambda _: Play(pieces)) as (reader, writer):
        writer.write(POST + b"content-length: 0\r\n\r\n")
        assert len(await body_of(reader)) == size * count
