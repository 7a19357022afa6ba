"""Asks a part, in its own protocol, whether it serves: a few bytes over a socket, no client library."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

Probe = Callable[[str, int], Awaitable[bool]]
"""Given host and port, whether the part answered as it should; raises OSError or EOFError while nobody listens."""

API_VERSIONS: Final = 18
"""Kafka's request key that every broker answers before anything else."""


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port nobody listens on; the kernel will not hand it out again soon."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def _dialogue(host: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def kafka_serves(host: str, port: int) -> bool:
    """Whether a Kafka broker answers ApiVersions without an error."""
    client = b"probe"
    request = struct.pack(">hhih", API_VERSIONS, 0, 1, len(client)) + client
    async with _dialogue(host, port) as (reader, writer):
        writer.write(struct.pack(">i", len(request)) + request)
        correlation_and_error = struct.unpack(">4xih", await reader.readexactly(10))
        return correlation_and_error == (1, 0)


async def redis_serves(host: str, port: int) -> bool:
    """Whether a Redis server answers PING; one that still loads its data does not."""
    async with _dialogue(host, port) as (reader, writer):
        writer.write(b"PING\r\n")
        return await reader.readline() == b"+PONG\r\n"


async def http_status(host: str, port: int, path: str) -> int:
    """Return the status that `GET path` answers."""
    async with _dialogue(host, port) as (reader, writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        line = (await reader.readline()).split(maxsplit=2)
        return int(line[1]) if len(line) > 1 and line[1].isdigit() else 0


def http_serves(path: str) -> Probe:
    """Return a probe that is content with `200` at `path`."""

    async def probe(host: str, port: int) -> bool:
        return await http_status(host, port, path) == 200  # noqa: PLR2004 - HTTP status

    return probe
