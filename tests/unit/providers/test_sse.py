"""The parser of server-sent events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.providers.sse import Event, SseParser, TooLarge


def parse(*pieces: bytes) -> list[Event]:
    parser = SseParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
def test_lines_may_end_in_any_of_three_ways(end: bytes) -> None:
    stream = end.join(
        [b"event: one", b"data: a", b"data:b", b"", b": comment", b"id: 7", b"data", b"", b"", b"data: x"]
    )
    assert parse(stream + end) == [Event("one", b"a\nb"), Event("", b"")]


def test_a_byte_order_mark_is_dropped_even_when_it_arrives_in_pieces() -> None:
    assert parse(b"\xef", b"\xbb", b"\xbfdata: a\n", b"\n") == [Event("", b"a")]


def test_what_the_end_of_the_stream_cuts_off_is_no_event() -> None:
    assert parse(b"data: a\n\ndata: b\n") == [Event("", b"a")]


def test_one_space_after_the_colon_is_dropped_and_no_more() -> None:
    assert parse(b"data:  a \n\n") == [Event("", b" a ")]


@pytest.mark.parametrize("piece", [b"data: xxxx\n", b"x" * 11])
def test_an_event_that_never_ends_is_refused(piece: bytes) -> None:
    parser = SseParser(max_event_bytes=100)
    with pytest.raises(TooLarge):
        list(map(parser.feed, [piece] * 100))


def test_an_event_just_within_the_limit_is_read_in_one_piece_or_many() -> None:
    stream = b"data: " + b"x" * 90 + b"\n\n"
    for size in (1, len(stream)):
        parser = SseParser(max_event_bytes=100)
        pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
        assert [event for piece in pieces for event in parser.feed(piece)] == [Event("", b"x" * 90)]


LINES = st.lists(
    st.sampled_from(
        [b"data: a", b"data: {}", b"data", b"event: e", b"", b"", b": c", b"id: 1", b"\xef\xbb\xbf", b"data:\xc3\xa9"]
    ),
    max_size=30,
)


@given(LINES, st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"]), min_size=31, max_size=31), st.data())
def test_any_split_of_the_bytes_gives_the_same_events(
    lines: list[bytes], ends: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parse(*pieces) == parse(stream)
    assert parse(*(bytes([byte]) for byte in stream)) == parse(stream)
