"""Server-sent events from bytes that arrive in any pieces. Pure; imports nothing of ours.

Follows the event stream format of the HTML standard (section 9.2.6): lines end in CR, LF or CRLF, a blank line ends an
event, `data` lines are joined by LF, a leading byte order mark and comment lines are dropped.
"""

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
        self._line: list[bytes] = []
        """Pieces of a line that has not ended; joined once, so that a long line costs what it is long."""
        self._waiting = 0
        self._data: list[bytes] = []
        self._name = ""
        self._size = 0
        self._most = max_event_bytes
        self._first = True
        self._after_cr = False

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that `piece` completes. Raises `TooLarge`."""
        if self._first:
            piece = b"".join([*self._line, piece])
            self._line = []
            if len(piece) < len(_BOM) and _BOM.startswith(piece):
                self._line = [piece]
                return []
            self._first = False
            piece = piece.removeprefix(_BOM)
        head, *lines = self._split(piece)
        self._line.append(head)
        self._waiting += len(head)
        if self._size + self._waiting > self._most:
            raise TooLarge(f"an event of the stream is larger than {self._most} bytes")
        if not lines:
            return []
        last = lines.pop()
        lines.insert(0, b"".join(self._line))
        self._line, self._waiting = [last], len(last)
        return [event for line in lines if (event := self._take(line)) is not None]

    def _split(self, piece: bytes) -> list[bytes]:
        if self._after_cr and piece:
            # The LF of a CRLF that was cut in two.
            piece, self._after_cr = piece.removeprefix(b"\n"), False
        if b"\r" in piece:
            self._after_cr = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return piece.split(b"\n")

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
            if self._size > self._most:
                raise TooLarge(f"an event of the stream is larger than {self._most} bytes")
        elif field == b"event":
            self._name = value.decode(errors="replace")
        return None
