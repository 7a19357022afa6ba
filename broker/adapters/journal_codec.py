"""The stored form of an outcome: a JSON head, a zero byte, then the body, compressed where that pays."""

import zlib
from typing import Final

import orjson

from broker.ports import Answer

COMPRESS_FROM: Final = 16 << 10
"""Bytes of a body from which compressing it is worth the time; most chat answers are far smaller."""
LEVEL: Final = 1

_PLAIN: Final = b"\x00"
_DEFLATED: Final = b"\x01"


def pack(answer: Answer) -> bytes:
    """Write an outcome as one value."""
    head = orjson.dumps({"status": answer.status, "headers": dict(answer.headers)})
    if len(answer.body) < COMPRESS_FROM:
        return _PLAIN.join((head, answer.body))
    return _DEFLATED.join((head, zlib.compress(answer.body, LEVEL)))


def unpack(request_id: str, value: bytes) -> Answer:
    """Read what `pack` wrote. Raises `ValueError` for anything else."""
    # JSON holds no byte below 0x20 but white space, so the first of the two marks ends the head.
    marks = [place for place in (value.find(_PLAIN), value.find(_DEFLATED)) if place >= 0]
    if not marks:
        raise ValueError(f"the stored outcome of {request_id} cannot be read")
    end = min(marks)
    head = orjson.loads(value[:end])
    body = value[end + 1 :]
    if value[end : end + 1] == _DEFLATED:
        body = zlib.decompress(body)
    return Answer(request_id, head["status"], body, head["headers"])
