"""An outcome as one string of bytes: a line of JSON, then the body, compressed when that pays. No I/O in here."""

import zlib
from typing import Final

import orjson

from broker.ports import Answer

COMPRESS_FROM: Final = 16 << 10
"""Bytes of a body from which it is compressed: below, a millisecond of CPU saves nothing that Redis would notice."""

OFF_LOOP_FROM: Final = 256 << 10
"""Bytes from which coding belongs in a thread: zlib takes about 3 ms for them."""

_LEVEL: Final = 1
_PLAIN: Final = "plain"
_ZLIB: Final = "zlib"


def encode(answer: Answer) -> bytes:
    """Return what is stored under the answer's key."""
    body, coding = answer.body, _PLAIN
    if len(body) >= COMPRESS_FROM:
        body, coding = zlib.compress(body, _LEVEL), _ZLIB
    head = orjson.dumps({"status": answer.status, "headers": dict(answer.headers), "body": coding})
    return b"%b\n%b" % (head, body)


def decode(request_id: str, stored: bytes) -> Answer:
    """Return the answer that `encode` was given."""
    head, _, body = stored.partition(b"\n")  # JSON holds no raw line feed
    fields = orjson.loads(head)
    if fields["body"] == _ZLIB:
        body = zlib.decompress(body)
    return Answer(request_id=request_id, status=fields["status"], body=body, headers=fields["headers"])
