"""Dead letters: what is added to the original record, and what a replay takes away again."""

from dataclasses import dataclass, replace

import pytest

from broker.envelope import headers as h
from broker.envelope.dead import MAX_REASON, dead_letter, read_dead
from broker.records import Headers, OutRecord

TOPIC = "llm.requests.my-alias"


@dataclass(frozen=True)
class Read:
    """A record as a log would return it."""

    topic: str = TOPIC
    partition: int = 3
    offset: int = 41
    timestamp: int = 1_700_000_000_000
    key: bytes | None = b"\xff\xfe"
    value: bytes | None = b"not json"
    headers: Headers = ()


def as_read(out: OutRecord) -> Read:
    return Read(out.topic, 0, 7, 1_700_000_000_999, out.key, out.value, out.headers)


def test_a_dead_letter_is_the_original_record_with_the_reason_beside_it() -> None:
    record = Read(headers=[("request-id", b"r1"), ("tags", b"\xff")])
    letter = dead_letter(record, "the body is not JSON", "invalid_request", 1_700_000_000_500, "llm.dead")
    assert (letter.topic, letter.key, letter.value) == ("llm.dead", b"\xff\xfe", b"not json")
    assert list(letter.headers) == [
        ("request-id", b"r1"),
        ("tags", b"\xff"),
        ("dead-reason", b"the body is not JSON"),
        ("dead-code", b"invalid_request"),
        ("dead-origin", b"llm.requests.my-alias-3-41"),
        ("dead-at", b"1700000000500"),
    ]


def test_a_value_that_does_not_fit_is_left_out_on_demand() -> None:
    assert dead_letter(Read(), "too large", "invalid_request", 1, "llm.dead", keep_value=False).value is None


def test_a_long_reason_is_cut() -> None:
    letter = dead_letter(Read(), "x" * 5000, "invalid_request", 1, "llm.dead")
    assert dict(letter.headers)[h.DEAD_REASON] == b"x" * MAX_REASON


def test_a_replay_is_the_original_record_under_the_same_request_id() -> None:
    record = Read(headers=[("request-id", b"r1"), ("endpoint", b"/v1/embeddings")])
    letter = read_dead(as_read(dead_letter(record, "no", "invalid_request", 1, "llm.dead")))
    assert letter is not None
    assert letter.replayed(letter.origin_topic) == OutRecord(
        TOPIC, b"not json", b"\xff\xfe", [("endpoint", b"/v1/embeddings"), ("request-id", b"r1")]
    )


def test_a_record_without_an_id_keeps_the_id_of_its_first_place() -> None:
    letter = read_dead(as_read(dead_letter(Read(), "no", "invalid_request", 1, "llm.dead")))
    assert letter is not None
    assert letter.request_id == "llm.requests.my-alias-3-41"
    assert ("request-id", b"llm.requests.my-alias-3-41") in letter.replayed(TOPIC).headers


@pytest.mark.parametrize("unusable", [b"\xff", b"a\nb", b"x" * 257, b""])
def test_a_header_that_could_not_be_the_id_is_not_taken_for_it(unusable: bytes) -> None:
    letter = read_dead(as_read(dead_letter(Read(headers=[("request-id", unusable)]), "no", "c", 1, "llm.dead")))
    assert letter is not None
    assert letter.request_id == "llm.requests.my-alias-3-41"


def test_a_replay_starts_afresh_where_its_worker_signed_the_next_hop_and_else_goes_on() -> None:
    signed = [(name, b"x") for name in (*h.SIGNED, h.SIGNATURE, h.TARGET, h.UNREADABLE)]
    letter = read_dead(as_read(dead_letter(Read(headers=signed), "no", "c", 1, "llm.dead")))
    assert letter is not None
    assert [name for name, _ in letter.replayed(TOPIC).headers] == [*h.SIGNED, h.SIGNATURE, h.REQUEST_ID]
    letter = read_dead(as_read(dead_letter(Read(headers=signed), "no", "c", 1, "llm.dead", hop=(3, "good"))))
    assert letter is not None
    fresh = dict(letter.replayed(TOPIC).headers)
    assert fresh.keys() == {h.REQUEST_ID, h.HOP, h.SIGNATURE}
    assert (fresh[h.HOP], fresh[h.SIGNATURE]) == (b"3", b"good")


def test_a_replay_can_be_given_a_new_deadline() -> None:
    letter = read_dead(as_read(dead_letter(Read(headers=[("deadline", b"5")]), "no", "c", 1, "llm.dead")))
    assert letter is not None
    assert letter.deadline == 5
    assert ("deadline", b"5") in letter.replayed(TOPIC).headers
    assert [value for name, value in letter.replayed(TOPIC, 99).headers if name == "deadline"] == [b"99"]


def test_a_record_that_dies_again_tells_only_its_last_reason() -> None:
    first = as_read(dead_letter(Read(), "first", "c", 1, "llm.dead"))
    again = replace(as_read(dead_letter(first, "second", "c", 2, "llm.dead")))
    letter = read_dead(again)
    assert letter is not None
    assert (letter.reason, letter.at, letter.origin) == ("second", 2, "llm.dead-0-7")


def test_a_record_that_tells_no_origin_is_no_dead_letter() -> None:
    assert read_dead(Read(topic="llm.dead")) is None
    assert read_dead(Read(topic="llm.dead", headers=[("dead-origin", b"llm.requests.a")])) is None
