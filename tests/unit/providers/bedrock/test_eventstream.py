"""The event stream's parser: what botocore's own makes of the same bytes, however they are cut; garbage is typed."""

import struct
from binascii import crc32
from contextlib import suppress
from typing import Any
from uuid import UUID

import orjson
import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import BadUpstreamResponse
from tests.unit.providers.bedrock.frames import NUMBERS, error, event, exception, frame, header
from workers.providers.eventstream import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, EventStreamParser
from workers.providers.sse import Event

TYPE = header(":message-type", "event")


def cut(whole: bytes, size: int) -> list[Event]:
    parser = EventStreamParser()
    return [found for start in range(0, len(whole), size) for found in parser.feed(whole[start : start + size])]


def as_botocore_reads(whole: bytes) -> list[Event]:
    buffer = EventStreamBuffer()
    buffer.add_data(whole)
    return [Event(message.headers[":event-type"], message.payload) for message in buffer]


VALUES: Any = st.one_of(
    st.tuples(st.booleans(), st.just("boolean")),
    *(
        st.tuples(st.integers(-(1 << (size * 8 - 1)), (1 << (size * 8 - 1)) - 1), st.just(kind))
        for kind, size in {"byte": 1, "short": 2, "integer": 4, "long": 8}.items()
    ),
    st.tuples(st.integers(0, 1 << 40), st.just("timestamp")),
    st.tuples(st.binary(max_size=20), st.just("bytes")),
    st.tuples(st.text(max_size=20), st.just("string")),
    st.tuples(st.uuids(), st.just("uuid")),
)
NAMES = st.text("abcdefgh-", min_size=1, max_size=12)
MESSAGES = st.tuples(st.text(max_size=8), st.dictionaries(NAMES, VALUES, max_size=6), st.binary(max_size=60))


def written(name: str, headers: dict[str, tuple[Any, str]], payload: bytes) -> bytes:
    more = b"".join(header(each, *value) for each, value in headers.items())
    return frame(TYPE + more + header(":event-type", name), payload)


@given(st.lists(MESSAGES, min_size=1, max_size=4), st.integers(1, 200))
@settings(max_examples=50, deadline=None)
def test_any_cut_of_any_messages_gives_what_botocore_reads(messages: list[Any], size: int) -> None:
    whole = b"".join(written(*each) for each in messages)
    assert cut(whole, size) == as_botocore_reads(whole)


@given(st.lists(MESSAGES, min_size=1, max_size=3), st.data())
@settings(max_examples=50, deadline=None)
def test_changed_bytes_give_fewer_events_or_a_typed_error_and_never_another_event(
    messages: list[Any], data: st.DataObject
) -> None:
    whole = bytearray(b"".join(written(*each) for each in messages))
    before = cut(bytes(whole), 1 << 20)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] ^= data.draw(st.integers(1, 255))
    try:
        found = cut(bytes(whole), data.draw(st.integers(1, 100)))
    except BadUpstreamResponse:
        return
    assert found == before[: len(found)]


@given(st.binary(max_size=200), st.integers(1, 50))
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_events_or_a_typed_error(raw: bytes, size: int) -> None:
    with suppress(BadUpstreamResponse):
        assert b"".join(each.data for each in cut(raw, size)) in raw


@given(st.binary(max_size=80))
@settings(max_examples=50, deadline=None)
def test_any_headers_with_good_checksums_are_an_event_or_a_typed_error(headers: bytes) -> None:
    with suppress(BadUpstreamResponse):
        assert [each.data for each in cut(frame(TYPE + headers, b"x"), 1 << 20)] == [b"x"]


def test_exceptions_and_errors_are_events_that_say_so() -> None:
    told = cut(exception("throttlingException", {"message": "slow"}) + error("InternalFailure", "oh"), 7)
    assert [each.name for each in told] == ["exception:throttlingException", "error:InternalFailure"]
    assert [orjson.loads(each.data) for each in told] == [{"message": "slow"}, {"message": "oh"}]


def prelude(total: int, headers: int) -> bytes:
    numbers = struct.pack(">II", total, headers)
    return numbers + struct.pack(">I", crc32(numbers))


@pytest.mark.parametrize(
    ("whole", "says"),
    [
        (prelude(MAX_PAYLOAD_BYTES + 17, 0), "lengths"),
        (prelude(1 << 31, MAX_HEADER_BYTES + 1), "lengths"),
        (prelude(15, 0), "lengths"),
        (prelude(20, 10), "lengths"),
        (b"<html>Bad Gateway</html>", "checksum of a prelude"),
        (event("a", {})[:-1] + b"\x00", "checksum of a message"),
        (frame(b"", b""), "neither an event nor an error"),
        (frame(header(":message-type", "owl"), b""), "neither an event nor an error"),
        (frame(TYPE + TYPE, b""), "twice"),
        (frame(TYPE + b"\x01a\x0a", b""), "headers"),
        (frame(TYPE + b"\x01a\x07\x00\x05ab", b""), "headers"),
        (frame(TYPE + b"\x09a", b""), "headers"),
    ],
)
def test_garbage_is_a_bad_answer_as_soon_as_it_is_known(whole: bytes, says: str) -> None:
    with pytest.raises(BadUpstreamResponse, match=says):
        cut(whole, 1 << 20)


def test_a_message_that_has_not_ended_is_no_event() -> None:
    whole = event("a", {"x": 1})
    assert cut(whole[:-1], 5) == []
    assert [found.name for found in cut(whole, 5)] == ["a"]


def test_a_header_of_every_type_is_skipped_by_its_length() -> None:
    every = b"".join(header(kind, 1, kind) for kind in NUMBERS)
    every += header("u", UUID(int=5), "uuid") + header("b", b"\xff", "bytes") + header("t", 1, "boolean")
    whole = frame(every + header("f", 0, "boolean") + TYPE + header(":event-type", "e"), b"p")
    assert cut(whole, 3) == [Event("e", b"p")]
    assert cut(whole, 3) == as_botocore_reads(whole)
