"""An ending as one string of bytes: a line of JSON, then the body, compressed when that pays. No I/O in here."""

import base64
import zlib
from typing import Any, Final

import orjson

from broker.ports import Answer, Copy, Ending, Lease

COMPRESS_FROM: Final = 16 << 10
"""Bytes of a body from which it is compressed: below, a millisecond of CPU saves nothing that Redis would notice."""

OFF_LOOP_FROM: Final = 256 << 10
"""Bytes from which coding belongs in a thread: zlib takes about 3 ms for them."""

_LEVEL: Final = 1
_PLAIN: Final = "plain"
_ZLIB: Final = "zlib"


def size(ending: Ending) -> int:
    """Return about how many bytes have to be coded."""
    return len(ending.answer.body) if ending.answer is not None else 0


def encode(ending: Ending) -> bytes:
    """Return what is stored of an ending."""
    answer, lease = ending.answer, ending.lease
    head: dict[str, Any] = {"place": ending.place, "usage": [event.decode() for event in ending.usage]}
    body = b""
    if lease is not None:
        head["lease"] = [lease.key, lease.token, lease.hop, lease.fence]
    if ending.copies:
        head["copies"] = [_copy(copy) for copy in ending.copies]
    if answer is not None:
        body, coding = answer.body, _PLAIN
        if len(body) >= COMPRESS_FROM:
            body, coding = zlib.compress(body, _LEVEL), _ZLIB
        head["request_id"], head["status"], head["body"] = answer.request_id, answer.status, coding
        head["headers"] = dict(answer.headers)
    return b"%b\n%b" % (orjson.dumps(head), body)


def decode(stored: bytes) -> Ending:
    """Return the ending that `encode` was given."""
    head, _, body = stored.partition(b"\n")  # JSON holds no raw line feed
    fields = orjson.loads(head)
    lease = fields.get("lease")
    answer = None
    if "status" in fields:
        if fields["body"] == _ZLIB:
            body = zlib.decompress(body)
        answer = Answer(fields["request_id"], fields["status"], body, fields["headers"])
    return Ending(
        lease=None if lease is None else Lease(*lease),
        place=fields["place"],
        answer=answer,
        usage=tuple(event.encode() for event in fields["usage"]),
        copies=tuple(_copied(*copy) for copy in fields.get("copies", ())),
    )


def _copy(copy: Copy) -> list[Any]:
    # A producer's own header may hold any bytes.
    pairs = [[name, base64.b64encode(value).decode()] for name, value in copy.headers]
    return [copy.topic, pairs, copy.keep_value]


def _copied(topic: str, pairs: list[list[str]], keep_value: bool) -> Copy:  # noqa: FBT001 - as it is stored
    return Copy(topic, [(name, base64.b64decode(value)) for name, value in pairs], keep_value)
