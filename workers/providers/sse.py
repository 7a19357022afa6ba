"""Server-sent events from bytes that arrive in any pieces. Pure; imports nothing of ours.

Follows the event stream format of the HTML standard (section 9.2.6): lines end in CR, LF or CRLF, a blank line ends an
event, `data` lines are joined by LF, a leading byte order mark and comment lines are dropped.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_EVENT_BYTES: Final = 16 << 20
"""An event larger than this is not a stream of completions but a fault; it ends the stream."""

_BOM: Final = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event; `name` is empty where the stream gave none."""

    name: str
    data: bytes


class TooLarge(ValueError):
    """An event exceeded `MAX_EVENT_BYTES`."""


class SseParser:
    """Feed it bytes, take the events that are complete. What has not ended with a blank line is never an event."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._buffer = bytearray()
        self._data: list[bytes] = []
        self._name = ""
        self._size = 0
        self._most = max_event_bytes
        self._first = True
        self._after_cr = False

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Yield the events that `piece` completes. Raises `TooLarge`."""
        self._buffer += piece
        if self._first:
            if len(self._buffer) < len(_BOM) and _BOM.startswith(bytes(self._buffer)):
                return
            self._first = False
            if self._buffer.startswith(_BOM):
                del self._buffer[: len(_BOM)]
        for line in self._lines():
            event = self._take(line)
            if event is not None:
                yield event
        if self._size + len(self._buffer) > self._most:
            raise TooLarge(f"an event of the stream is larger than {self._most} bytes")

    def _lines(self) -> Iterator[bytes]:
        buffer = self._buffer
        start = 0
        if self._after_cr and buffer:
            # The LF of a CRLF that was cut in two.
            self._after_cr = False
            if buffer[0] == 0x0A:  # noqa: PLR2004 - LF
                start = 1
        while True:
            cr, lf = buffer.find(b"\r", start), buffer.find(b"\n", start)
            end = min((place for place in (cr, lf) if place >= 0), default=-1)
            if end < 0:
                break
            line = bytes(buffer[start:end])
            start = end + 1
            if end == cr:
                if start == len(buffer):
                    self._after_cr = True
                elif buffer[start] == 0x0A:  # noqa: PLR2004 - LF
                    start += 1
            yield line
        del buffer[:start]

    def _take(self, line: bytes) -> Event | None:
        if not line:
            event = Event(self._name, b"\n".join(self._data)) if self._data else None
            self._data, self._name, self._size = [], "", 0
            return event
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value)
        elif field == b"event":
            self._name = value.decode(errors="replace")
        return None
