"""HTTP/1.1 on asyncio's own protocol: one request after the other on a connection, answers that may break off.

Made for two things a general server cannot do: to hold thousands of calls open at little cost (no task a call), and to
drop, cut or garble an answer wherever a fault wants it.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast

from broker.simulate.api import Sent

MOST_HEAD: Final = 64 << 10
MOST_BODY: Final = 64 << 20
PHRASES: Final = {int(status): status.phrase for status in HTTPStatus}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass
class Play:
    """How a request is answered: seconds to wait and bytes to send, again and again."""

    pieces: Iterator[tuple[float, bytes]]
    ended: Callable[[bool], None] = field(default=lambda _: None)
    """Called once; True where the caller went away before the end."""
    close: bool = False
    """Whether the connection closes after the last piece."""
    hangs: bool = False
    """Whether it stays open after the last piece as if more were to come."""


def head(status: int, headers: Mapping[str, str], length: int | None) -> bytes:
    """Write status line and headers; without a length the body comes in chunks."""
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {PHRASES.get(status, 'Unnamed')}\r\n{lines}{framing}\r\n\r\n".encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Write one chunk; an empty one ends the body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class BadRequest(Exception):
    """What arrived is not HTTP as it is spoken here; `status` answers it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, answer: Callable[[Sent], Play], open_ones: "set[Connection]") -> None:
        self._answer = answer
        self._open = open_ones
        self._buffer = bytearray()
        self._play: Play | None = None
        self._last = False
        self._continued = False
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._waiting = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is being answered."""
        del exc
        self._open.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._finish(cut=True)

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._buffer += data
        if self._play is None:
            self._next()

    def pause_writing(self) -> None:
        """Wait: the caller reads more slowly than we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._paused = False
        if self._waiting:
            self._waiting = False
            self._go_on()

    def _next(self) -> None:
        while self._play is None and not self._transport.is_closing():
            try:
                sent = self._parse()
            except BadRequest as bad:
                self._transport.write(head(bad.status, {"connection": "close"}, 0))
                self._transport.close()
                return
            if sent is None:
                return
            self._continued = False
            self._play = self._answer(sent)
            self._go_on()

    def _go_on(self) -> None:
        """Send what need not wait; set a timer for what has to."""
        self._timer = None
        play = self._play
        while play is not None and not self._transport.is_closing():
            if self._paused:
                self._waiting = True
                return
            step = next(play.pieces, None)
            if step is None:
                self._over(play)
                return
            delay, data = step
            if delay > 0:
                self._timer = asyncio.get_running_loop().call_later(delay, self._late, data)
                return
            self._transport.write(data)

    def _late(self, data: bytes) -> None:
        self._timer = None
        if data:
            self._transport.write(data)
        self._go_on()
        if self._play is None and self._buffer:
            self._next()

    def _over(self, play: Play) -> None:
        if play.hangs:
            return
        self._finish(cut=False)
        if play.close or self._last:
            self._transport.close()

    def _finish(self, *, cut: bool) -> None:
        if self._play is not None:
            play, self._play = self._play, None
            play.ended(cut)

    def _parse(self) -> Sent | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MOST_HEAD:
                raise BadRequest(431)
            return None
        first, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        words = first.split(" ")
        if len(words) != 3:  # noqa: PLR2004 - method, target, version
            raise BadRequest(400)
        start = end + 4
        if "chunked" in headers.get("transfer-encoding", ""):
            found = self._chunks(start)
        else:
            found = self._stated(start, headers.get("content-length", "0"))
        if found is None:
            if not self._continued and headers.get("expect", "").lower() == "100-continue":
                self._continued = True
                self._transport.write(CONTINUE)
            return None
        body, total = found
        del self._buffer[:total]
        self._last = headers.get("connection", "").lower() == "close" or words[2] == "HTTP/1.0"
        return Sent(words[0], words[1], headers, body)

    def _stated(self, start: int, length: str) -> tuple[bytes, int] | None:
        if not length.isdigit():
            raise BadRequest(400)
        total = start + int(length)
        if int(length) > MOST_BODY:
            raise BadRequest(413)
        return None if len(self._buffer) < total else (bytes(self._buffer[start:total]), total)

    def _chunks(self, at: int) -> tuple[bytes, int] | None:
        """Return body and end of a chunked request; trailers are not read, as no client here sends them."""
        body = bytearray()
        while (line := self._buffer.find(b"\r\n", at)) >= 0:
            try:
                size = int(bytes(self._buffer[at:line]).partition(b";")[0], 16)
            except ValueError:
                raise BadRequest(400) from None
            if size < 0 or len(body) + size > MOST_BODY:
                raise BadRequest(413)
            at = line + 2 + size + 2
            if len(self._buffer) < at:
                return None
            if size == 0:
                return bytes(body), at
            body += self._buffer[line + 2 : line + 2 + size]
        return None
