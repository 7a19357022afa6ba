"""Writes messages of `application/vnd.amazon.eventstream`, as the server does; header values of every type."""

import struct
from binascii import crc32
from typing import Any
from uuid import UUID

import orjson

NUMBERS = {"byte": (2, ">b"), "short": (3, ">h"), "integer": (4, ">i"), "long": (5, ">q"), "timestamp": (8, ">q")}


def header(name: str, value: object, kind: str = "string") -> bytes:
    head = bytes([len(name.encode())]) + name.encode()
    if kind == "boolean":
        return head + bytes([0 if value else 1])
    if kind in NUMBERS:
        number, form = NUMBERS[kind]
        return head + bytes([number]) + struct.pack(form, value)
    if kind == "uuid":
        assert isinstance(value, UUID)
        return head + bytes([9]) + value.bytes
    raw = value if isinstance(value, bytes) else str(value).encode()
    return head + bytes([6 if kind == "bytes" else 7]) + struct.pack(">H", len(raw)) + raw


def frame(headers: bytes, payload: bytes) -> bytes:
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    whole = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return whole + struct.pack(">I", crc32(whole))


def message(kind: str, name: str, payload: Any) -> bytes:
    """An event or an exception with a JSON payload, its headers in the order Bedrock has them."""
    headers = [(f":{kind}-type", name), (":content-type", "application/json"), (":message-type", kind)]
    return frame(b"".join(header(*pair) for pair in headers), orjson.dumps(payload))


def event(name: str, payload: Any) -> bytes:
    return message("event", name, payload)


def exception(name: str, payload: Any) -> bytes:
    return message("exception", name, payload)


def error(code: str, words: str) -> bytes:
    headers = [(":error-code", code), (":error-message", words), (":message-type", "error")]
    return frame(b"".join(header(*pair) for pair in headers), b"")
