"""Messages of `application/vnd.amazon.eventstream` from bytes that arrive in any pieces. Pure; imports broker errors.

The format is Smithy's (smithy.io/2.0/aws/amazon-eventstream.html): a prelude of total length, length of the headers and
their CRC32, then headers, payload, and the CRC32 of all that stands before it. Numbers are big-endian.
"""

import struct
from binascii import crc32
from typing import Final

import orjson

from broker.errors import BadUpstreamResponse
from workers.providers.sse import Event

MAX_HEADER_BYTES: Final = 128 << 10
"""Of the headers of one message: the bound of AWS's own SDKs."""
MAX_PAYLOAD_BYTES: Final = 24 << 20
"""Of the payload of one message: the bound of AWS's own SDKs."""

EXCEPTION: Final = "exception:"
"""Stands before the name of an event whose message is an exception of the service's model."""
ERROR: Final = "error:"
"""The same for an error that the model does not have; the data is `{"message": …}`."""

_PRELUDE: Final = struct.Struct(">III")
_CRC: Final = struct.Struct(">I")
_SMALLEST: Final = _PRELUDE.size + _CRC.size

_TRUE, _FALSE, _BYTES, _STRING = 0, 1, 6, 7
_FIXED: Final = {2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a value by its type: byte, short, integer, long, timestamp, UUID."""

Headers = dict[str, str]
"""The headers whose values are texts; the others say nothing of an event, they are checked and left out."""


def _garbage(what: str) -> BadUpstreamResponse:
    return BadUpstreamResponse(f"the upstream's event stream is broken: {what}")


class EventStreamParser:
    """Feed it bytes, take the events that are complete.

    An event's name is its `:event-type`, `EXCEPTION` and the `:exception-type`, or `ERROR` and the `:error-code`.
    """

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._total = 0
        """Length of the message that is arriving; 0 before its prelude is there."""

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that `piece` completes. Raises `BadUpstreamResponse` for bytes that are no such stream."""
        self._waiting += piece
        found, start = [], 0
        while True:
            left = len(self._waiting) - start
            if not self._total and left >= _PRELUDE.size:
                self._total = self._prelude(start)
            if not self._total or left < self._total:
                break
            found.append(self._message(bytes(self._waiting[start : start + self._total])))
            start, self._total = start + self._total, 0
        del self._waiting[:start]
        return found

    def _prelude(self, start: int) -> int:
        total, headers, crc = _PRELUDE.unpack_from(self._waiting, start)
        if crc32(self._waiting[start : start + _PRELUDE.size - _CRC.size]) != crc:
            raise _garbage("the checksum of a prelude does not fit")
        if headers > MAX_HEADER_BYTES or total > MAX_PAYLOAD_BYTES + headers + _SMALLEST or total < headers + _SMALLEST:
            raise _garbage("the lengths of a message cannot be")
        return int(total)

    @staticmethod
    def _message(whole: bytes) -> Event:
        body = len(whole) - _CRC.size
        if crc32(whole[:body]) != _CRC.unpack_from(whole, body)[0]:
            raise _garbage("the checksum of a message does not fit")
        end = _PRELUDE.size + _PRELUDE.unpack_from(whole)[1]
        return _event(headers_of(whole[_PRELUDE.size : end]), whole[end:body])


def headers_of(raw: bytes) -> Headers:
    """Read the headers of a message. Raises `BadUpstreamResponse` where they are cut, doubled, or of no known type."""
    found: Headers = {}
    names: set[str] = set()
    place = 0
    try:
        while place < len(raw):
            length = raw[place]
            name = raw[place + 1 : place + 1 + length].decode()
            place += 1 + length
            kind = raw[place]
            place += 1
            if name in names:
                raise _garbage("a header stands there twice")
            names.add(name)
            if kind in {_BYTES, _STRING}:
                (size,) = struct.unpack_from(">H", raw, place)
                place += 2 + size
                if kind == _STRING:
                    found[name] = raw[place - size : place].decode()
            elif kind not in {_TRUE, _FALSE}:
                place += _FIXED[kind]
    except (IndexError, KeyError, UnicodeDecodeError, struct.error):
        place = len(raw) + 1
    if place != len(raw):
        raise _garbage("the headers of a message cannot be read")
    return found


def _event(headers: Headers, payload: bytes) -> Event:
    kind = headers.get(":message-type")
    if kind == "event":
        return Event(headers.get(":event-type", ""), payload)
    if kind == "exception":
        return Event(EXCEPTION + headers.get(":exception-type", ""), payload)
    if kind == "error":
        told = orjson.dumps({"message": headers.get(":error-message", "")})
        return Event(ERROR + headers.get(":error-code", ""), told)
    raise _garbage("a message is neither an event nor an error")
