"""Two difficult upstreams on this machine: one that allows little and says when to come back, one that only fails."""

import asyncio
import contextlib
import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from typing import Final

import httpx
import orjson

from broker.embedded.part import HOST, PartError

BURST: Final = 3
"""Answers the busy upstream gives …"""

BURST_SECONDS: Final = 6.0
"""… within so many seconds: 30 a minute, and a fourth request at once is told to come back."""

MODEL_SECONDS: Final = 120.0
"""How long the model may take for one answer."""

HEAD_BYTES: Final = 64 << 10


class Answer:
    """One HTTP answer; None for the body closes the connection without a word."""

    def __init__(self, status: int, body: bytes | None, media: str = "application/json", **headers: str) -> None:
        self._status = status
        self._body = body
        self._headers = {"content-type": media, "connection": "close", **headers}

    def encode(self) -> bytes:
        """Return the bytes of the answer."""
        if self._body is None:
            return b""
        headers = {**self._headers, "content-length": str(len(self._body))}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self._status} x\r\n{lines}\r\n".encode() + self._body


def error(status: int, message: str, **headers: str) -> Answer:
    """Return an error as an OpenAI-compatible API sends it."""
    body = {"error": {"message": message, "type": "api_error", "param": None, "code": None}}
    return Answer(status, orjson.dumps(body), **headers)


class Busy:
    """Passes requests on to the model, `BURST` within `BURST_SECONDS`; the others get 429 and Retry-After."""

    def __init__(self, model_url: str, now: Callable[[], float]) -> None:
        """`model_url` ends with `/v1`; `now` gives monotonic seconds."""
        self._model = httpx.AsyncClient(base_url=model_url, timeout=MODEL_SECONDS, trust_env=False)
        self._now = now
        self._started: deque[float] = deque(maxlen=BURST)
        self.turned_away = 0
        """Requests that got a 429."""

    async def answer(self, path: str, body: bytes) -> Answer:
        """Answer one request."""
        now = self._now()
        wait = self._started[0] + BURST_SECONDS - now if len(self._started) == BURST else 0.0
        if wait > 0:
            self.turned_away += 1
            return error(
                429,
                f"at most {BURST} requests within {BURST_SECONDS:g} s",
                retry_after=str(math.ceil(wait)),
            )
        self._started.append(now)
        try:
            reply = await self._model.post(
                path.removeprefix("/v1/"), content=body, headers={"content-type": "application/json"}
            )
        except httpx.HTTPError as caught:
            return error(502, f"the model does not answer: {caught!r}")
        return Answer(reply.status_code, reply.content)

    async def close(self) -> None:
        """Disconnect from the model."""
        await self._model.aclose()


class Flaky:
    """Fails in four ways, in turn: 429, 503, HTML with status 200, and a connection that is closed without a word."""

    def __init__(self) -> None:
        self._next = 0
        self.failures: Counter[str] = Counter()
        """How often it failed in which way."""

    async def answer(self, path: str, body: bytes) -> Answer:
        """Fail in the way whose turn it is."""
        del path, body
        ways = {
            "429": error(429, "slow down"),
            "503": error(503, "try later"),
            "HTML with status 200": Answer(200, b"<html><body>We are back soon.</body></html>", "text/html"),
            "dropped connection": Answer(200, None),
        }
        way = list(ways)[self._next % len(ways)]
        self._next += 1
        self.failures[way] += 1
        return ways[way]

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


async def _read(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Path and body of a request."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("expect") or "chunked" in headers.get("transfer-encoding", ""):
        raise ValueError("only bodies of a stated length are read here")
    return first.split(" ")[1], await reader.readexactly(int(headers.get("content-length", "0")))


@contextlib.asynccontextmanager
async def listening(upstream: Busy | Flaky, port: int) -> AsyncIterator[None]:
    """Serve an upstream on 127.0.0.1 while the block runs; raises `PartError` where the port is in use."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            path, body = await _read(reader)
            writer.write((await upstream.answer(path, body)).encode())
            await writer.drain()
        writer.close()

    name = type(upstream).__name__.lower()
    try:
        server = await asyncio.start_server(handle, HOST, port, limit=HEAD_BYTES)
    except OSError as caught:
        raise PartError(
            f"{name}: port {port} on {HOST} is in use; stop what listens there, or choose other ports with --port-base"
        ) from caught
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()
        await upstream.close()
