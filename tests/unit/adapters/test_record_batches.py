"""The lenient parser: what is sound is read, what is not is told of, nothing raises."""

import struct
from typing import Any

from aiokafka import TopicPartition
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from hypothesis import given
from hypothesis import strategies as st

from broker.adapters.record_batches import UNREADABLE, parse_batches
from tests.contract.log.raw_batches import BAD_NAME, batch, with_bad_names, with_checksum, with_codec

TP = TopicPartition("t", 3)
FIRST_MS = 1_700_000_000_000
THREE = batch([(b"one", [("a", b"1")]), (None, []), (b"three", [("a", None)])], first_ms=FIRST_MS)
HEAD = 61


def at(raw: bytes, base: int) -> bytes:
    """The batch as a log stores it, from offset `base` on; the checksum does not cover that."""
    return struct.pack(">q", base) + raw[8:]


def compressed(raw: bytes, codec: int, encode: Any) -> bytes:
    body = encode(raw[HEAD:])
    length = struct.pack(">i", HEAD - 12 + len(body))
    return with_codec(raw[:8] + length + raw[12:HEAD] + body, codec)


def reasons(raw: bytes, start: int = 0, end: int = 100) -> list[tuple[int, str | None]]:
    parsed = parse_batches(raw, TP, start, end)
    headers = [(record.offset, dict(record.headers).get(UNREADABLE)) for record in parsed.records]
    return [(offset, reason and reason.decode()) for offset, reason in headers]


def test_a_sound_batch_is_read_as_it_was_written() -> None:
    parsed = parse_batches(at(THREE, 7), TP, 0, 100)
    assert [(r.offset, r.value, tuple(r.headers)) for r in parsed.records] == [
        (7, b"one", (("a", b"1"),)),
        (8, None, ()),
        (9, b"three", (("a", b""),)),
    ]
    assert [r.timestamp - FIRST_MS for r in parsed.records] == [0, 1, 2]
    assert {(r.topic, r.partition) for r in parsed.records} == {("t", 3)}
    assert parsed.next_offset == 10


def test_every_codec_is_read() -> None:
    for codec, encode in ((1, gzip_encode), (2, snappy_encode), (3, lz4_encode), (4, zstd_encode)):
        assert reasons(compressed(THREE, codec, encode)) == [(0, None), (1, None), (2, None)]


def test_offsets_below_the_start_are_left_out_and_a_cut_off_batch_is_not_touched() -> None:
    raw = at(THREE, 0) + at(THREE, 3) + at(THREE, 6)[:-1]
    assert reasons(raw, start=2) == [(2, None), (3, None), (4, None), (5, None)]
    assert parse_batches(raw, TP, 2, 100).next_offset == 6
    assert parse_batches(b"", TP, 4, 100) == ([], 4)


def test_a_bad_header_name_costs_the_value_of_its_record_and_no_more() -> None:
    raw = with_bad_names(batch([(b"a", []), (b"b", [("id", b"7"), (BAD_NAME, b"x")]), (b"c", [])]))
    records = parse_batches(raw, TP, 0, 100).records
    assert [record.value for record in records] == [b"a", None, b"c"]
    assert dict(records[1].headers)["id"] == b"7"
    assert "not UTF-8" in str(reasons(raw)[1][1])


def test_a_batch_that_fails_its_checksum_is_told_of_offset_by_offset() -> None:
    raw = THREE[:-1] + bytes([THREE[-1] ^ 1])
    assert reasons(raw + at(THREE, 3)) == [
        *((offset, "the batch fails its checksum") for offset in range(3)),
        *((offset, None) for offset in range(3, 6)),
    ]


def test_a_damaged_batch_claims_no_offset_beyond_the_end_of_the_partition() -> None:
    raw = THREE[:23] + struct.pack(">i", 2_000_000_000) + THREE[27:]
    assert [offset for offset, _ in reasons(raw, end=3)] == [0, 1, 2]
    assert parse_batches(raw, TP, 0, 3).next_offset == 3


def test_an_unknown_codec_and_an_old_format_are_told_of() -> None:
    assert reasons(with_codec(THREE, 7)) == [(offset, "unknown compression codec 7") for offset in range(3)]
    old = THREE[:16] + b"\x01" + THREE[17:]
    assert reasons(old) == [(0, "message format 1 is too old")]


def test_control_batches_are_passed_over() -> None:
    assert parse_batches(with_codec(THREE, 0x20), TP, 0, 100) == ([], 3)


@given(st.binary(max_size=300), st.integers(min_value=HEAD, max_value=len(THREE) - 1))
def test_no_bytes_whatever_make_it_raise_or_stand_still(junk: bytes, place: int) -> None:
    damaged = bytearray(THREE)
    damaged[place : place + len(junk)] = junk[: len(THREE) - place]
    parsed = parse_batches(with_checksum(bytes(damaged)), TP, 0, 100)
    assert parsed.next_offset == 3
    assert [record.offset for record in parsed.records] == sorted({record.offset for record in parsed.records})
    parse_batches(junk, TP, 0, 100)
