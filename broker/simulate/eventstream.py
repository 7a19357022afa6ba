"""AWS's binary stream of messages: `application/vnd.amazon.eventstream`. Pure.

Source: smithy.io/2.0/aws/amazon-eventstream.html: lengths, a checksum of them, headers, payload, a checksum of all.
"""

import struct
import zlib
from collections.abc import Mapping
from typing import Final

MEDIA: Final = "application/vnd.amazon.eventstream"
TEXT_TYPE: Final = 7
"""Of a header's value: a string of two bytes of length."""
CHECKSUM_BYTES: Final = 4
PRELUDE_BYTES: Final = 8


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Frame one message."""
    told = b"".join(_header(name, value) for name, value in headers.items())
    total = PRELUDE_BYTES + CHECKSUM_BYTES + len(told) + len(payload) + CHECKSUM_BYTES
    prelude = struct.pack(">II", total, len(told))
    checked = prelude + struct.pack(">I", zlib.crc32(prelude)) + told + payload
    return checked + struct.pack(">I", zlib.crc32(checked))


def _header(name: str, value: str) -> bytes:
    raw, written = name.encode(), value.encode()
    return struct.pack(">B", len(raw)) + raw + struct.pack(">BH", TEXT_TYPE, len(written)) + written
