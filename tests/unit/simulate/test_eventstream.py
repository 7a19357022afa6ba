"""AWS's framing, read back by AWS's own reader."""

from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from broker.simulate.eventstream import message

NAMES = st.text(st.characters(codec="ascii", min_codepoint=33), min_size=1, max_size=30)


@given(st.dictionaries(NAMES, st.text(max_size=100), max_size=5), st.binary(max_size=2000))
def test_headers_and_payload_come_back_and_both_checksums_hold(headers: dict[str, str], payload: bytes) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(message(headers, payload) * 2)
    assert [(each.headers, each.payload) for each in buffer] == [(headers, payload)] * 2
