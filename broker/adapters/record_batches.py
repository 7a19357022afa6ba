"""Reads Kafka's stored record batches leniently: what cannot be read becomes a record that says so. No I/O in here.

aiokafka's parser gives up on a whole fetch at the first bad byte, for ever. This one is slower and only sees such
fetches. Format: https://kafka.apache.org/documentation/#recordbatch
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import ConsumerRecord, TopicPartition

UNREADABLE: Final = "broker-unreadable"
"""Header of a record that could not be parsed; its value says why."""

_PREFIX: Final = struct.Struct(">qi")  # base offset, length of what follows
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")  # the whole head of a batch of magic 2
_MAGIC_AT: Final = 16
_CRC_FROM: Final = 21
_MAGIC: Final = 2
_CONTROL: Final = 0x20
_LOG_APPEND_TIME: Final = 0x08
_VARINT_LIMIT: Final = 70  # bits; a varlong has at most ten bytes of seven

_CODECS: Final[dict[int, Callable[[bytes], bytes]]] = {
    0: bytes,
    1: gzip_decode,
    2: snappy_decode,
    3: lz4_decode,
    4: zstd_decode,
}

StoredRecord: TypeAlias = ConsumerRecord[bytes, bytes]


class _Head(NamedTuple):
    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int


class Parsed(NamedTuple):
    """Records in order of their offsets, and the offset after everything that was looked at."""

    records: list[StoredRecord]
    next_offset: int


class _Broken(Exception):
    """Says what is wrong with the bytes at hand."""


def parse_batches(raw: bytes, tp: TopicPartition, start: int, end: int) -> Parsed:
    """Parse complete batches of `raw`, leaving out offsets below `start`; a cut-off last batch is left out.

    `end` is the partition's end offset: no record exists at or beyond it, whatever a damaged batch claims.
    """
    records: list[StoredRecord] = []
    position, next_offset = 0, start
    while position + _PREFIX.size <= len(raw):
        base, length = _PREFIX.unpack_from(raw, position)
        size = _PREFIX.size + length
        if length < _HEADER.size - _PREFIX.size or position + size > len(raw):
            break
        batch = raw[position : position + size]
        position += size
        found, after = _parse_batch(batch, tp, max(start, next_offset), max(end, base + 1))
        records += found
        next_offset = max(next_offset, after)
    return Parsed(records, next_offset)


def unreadable(tp: TopicPartition, offset: int, reason: str, timestamp: int = -1) -> StoredRecord:
    """Return the record that stands for one that cannot be read."""
    headers = ((UNREADABLE, reason.encode()),)
    return _record(tp, offset, timestamp, key=None, value=None, headers=headers)


def _parse_batch(batch: bytes, tp: TopicPartition, start: int, end: int) -> tuple[list[StoredRecord], int]:
    base = _PREFIX.unpack_from(batch)[0]
    if batch[_MAGIC_AT] != _MAGIC:
        return _lost(tp, max(base, start), base + 1, f"message format {batch[_MAGIC_AT]} is too old"), base + 1
    head = _Head(*_HEADER.unpack_from(batch))
    after = min(max(base + head.last_offset_delta + 1, base + 1), end)
    if calc_crc32c(batch[_CRC_FROM:]) != head.crc:
        return _lost(tp, max(base, start), after, "the batch fails its checksum"), after
    if head.attributes & _CONTROL:
        return [], after
    try:
        payload = _decompress(head.attributes & 7, batch[_HEADER.size :])
    except _Broken as exc:
        return _lost(tp, max(base, start), after, str(exc)), after
    return [record for record in _parse_records(payload, head, tp, after) if record.offset >= start], after


def _decompress(codec: int, payload: bytes) -> bytes:
    decode = _CODECS.get(codec)
    if decode is None:
        raise _Broken(f"unknown compression codec {codec}")
    try:
        return decode(payload)
    except Exception as exc:
        raise _Broken(f"the batch cannot be decompressed: {exc}") from exc


def _lost(tp: TopicPartition, first: int, after: int, reason: str) -> list[StoredRecord]:
    return [unreadable(tp, offset, reason) for offset in range(first, after)]


def _parse_records(payload: bytes, head: _Head, tp: TopicPartition, after: int) -> Iterator[StoredRecord]:
    position, expected = 0, head.base_offset
    for _ in range(head.record_count):
        try:
            body, position = _bytes(payload, position)
        except _Broken as exc:
            # Where the next record would begin is unknown from here on.
            yield from _lost(tp, expected, after, str(exc))
            return
        record = _parse_record(body or b"", head, tp, expected)
        expected = record.offset + 1
        yield record


def _parse_record(body: bytes, head: _Head, tp: TopicPartition, expected: int) -> StoredRecord:
    offset, timestamp = expected, head.max_timestamp
    try:
        delta, position = _varint(body, 1)
        if not head.attributes & _LOG_APPEND_TIME:
            timestamp = head.first_timestamp + delta
        delta, position = _varint(body, position)
        offset = max(expected, head.base_offset + delta)
        key, position = _bytes(body, position)
        value, position = _bytes(body, position)
        headers, reason = _headers(body, position)
    except _Broken as exc:
        return unreadable(tp, offset, str(exc), timestamp)
    if reason:
        value, headers = None, [*headers, (UNREADABLE, reason.encode())]
    return _record(tp, offset, timestamp, key=key, value=value, headers=tuple(headers))


def _headers(body: bytes, position: int) -> tuple[list[tuple[str, bytes]], str]:
    """Return the headers that can be read, and why the others cannot (empty when all can)."""
    count, position = _varint(body, position)
    if count < 0:
        raise _Broken(f"{count} headers")
    headers: list[tuple[str, bytes]] = []
    reason = ""
    for _ in range(count):
        name, position = _bytes(body, position)
        value, position = _bytes(body, position)
        if name is None:
            raise _Broken("a header without a name")
        try:
            headers.append((name.decode(), value or b""))
        except UnicodeDecodeError:
            reason = f"header name {name[:40]!r} is not UTF-8"
    if position != len(body):
        raise _Broken("bytes after the last header")
    return headers, reason


def _bytes(buffer: bytes, position: int) -> tuple[bytes | None, int]:
    length, position = _varint(buffer, position)
    if length < 0:
        return None, position
    if position + length > len(buffer):
        raise _Broken("a field is longer than its record")
    return buffer[position : position + length], position + length


def _varint(buffer: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < _VARINT_LIMIT and position < len(buffer):
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return (value >> 1) ^ -(value & 1), position
        shift += 7
    raise _Broken("a number is cut off")


def _record(  # noqa: PLR0913 - the fields of a record
    tp: TopicPartition,
    offset: int,
    timestamp: int,
    *,
    key: bytes | None,
    value: bytes | None,
    headers: tuple[tuple[str, bytes], ...],
) -> StoredRecord:
    sizes = (-1 if part is None else len(part) for part in (key, value))
    return ConsumerRecord(tp.topic, tp.partition, offset, timestamp, 0, key, value, None, *sizes, headers)
