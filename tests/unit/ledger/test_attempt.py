"""The usage event as a worker writes it and as `UsageEvent` reads it."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from broker.ledger.attempt import Attempt, encode, iso
from broker.ledger.money import to_decimal, to_pico, to_text
from schemas.usage import Outcome, UsageEvent

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = st.integers(min_value=0, max_value=4_000_000_000_000)
COUNTS = st.integers(min_value=0, max_value=(1 << 53))
TEXTS = st.text(max_size=12)
RENAMED = {"created_ms": "created_at", "started_ms": "started_at", "finished_ms": "finished_at", "cost_pico": "cost"}

ATTEMPTS = st.builds(
    Attempt,
    request_id=TEXTS,
    attempt=st.integers(1, 50),
    alias=TEXTS,
    endpoint=TEXTS,
    lane=TEXTS,
    outcome=st.sampled_from(Outcome),
    billable=st.booleans(),
    status=st.integers(100, 599),
    created_ms=TIMES,
    started_ms=TIMES,
    finished_ms=TIMES,
    tags=st.dictionaries(TEXTS, TEXTS, max_size=3),
    tenant=TEXTS,
    user=TEXTS,
    error_code=TEXTS,
    raw_usage=TEXTS,
    input_tokens=COUNTS,
    output_tokens=COUNTS,
    estimated=st.booleans(),
    cost_pico=st.none() | st.integers(0, 10**17),
    ttft_ms=st.none() | COUNTS,
    offset=COUNTS,
)


def attempt_of(**changes: object) -> Attempt:
    plain: dict[str, object] = {
        "request_id": "r1",
        "attempt": 2,
        "alias": "local",
        "endpoint": "/v1/chat/completions",
        "lane": "interactive",
        "outcome": Outcome.ANSWERED,
        "billable": True,
        "status": 200,
        "created_ms": 1_700_000_000_001,
        "started_ms": 1_700_000_000_020,
        "finished_ms": 1_700_000_001_999,
    }
    return Attempt(**(plain | changes))  # type: ignore[arg-type] # fields by name


@given(ATTEMPTS)
def test_every_field_of_an_attempt_is_read_back_from_its_event(attempt: Attempt) -> None:
    event = UsageEvent.model_validate_json(encode(attempt))
    for each in fields(Attempt):
        written = getattr(attempt, each.name)
        read = getattr(event, RENAMED.get(each.name, each.name))
        if each.name.endswith("_ms") and each.name in RENAMED:
            written = EPOCH + timedelta(milliseconds=written)
        if each.name == "cost_pico" and written is not None:
            written = to_decimal(written)
        if each.name == "usage_id":
            written = f"{attempt.request_id}:{attempt.attempt}"
        assert read == written, each.name


def test_an_attempt_has_exactly_the_fields_of_the_usage_event() -> None:
    assert {RENAMED.get(each.name, each.name) for each in fields(Attempt)} == set(UsageEvent.model_fields)


def test_the_cost_travels_as_a_decimal_text_and_no_price_as_null() -> None:
    assert b'"cost":"0.000000000001"' in encode(attempt_of(cost_pico=1))
    assert b'"cost":null' in encode(attempt_of(cost_pico=None))
    assert b'"cost":"0.000000000000"' in encode(attempt_of(cost_pico=0))


def test_text_that_is_not_unicode_does_not_lose_the_event() -> None:
    event = UsageEvent.model_validate_json(encode(attempt_of(error_code="bad\ud800", tags={"a\ud800": "b"})))
    assert (event.error_code, event.tags) == ("bad?", {"a?": "b"})


def test_a_number_beyond_64_bits_is_cut_to_the_largest() -> None:
    event = UsageEvent.model_validate_json(encode(attempt_of(input_tokens=10**30)))
    assert event.input_tokens == (1 << 63) - 1


def test_times_are_utc_with_milliseconds() -> None:
    assert iso(1_700_000_000_001) == "2023-11-14T22:13:20.001Z"


def test_more_seconds_than_are_kept_are_still_right() -> None:
    for second in range(0, 5_000_000, 1_000):
        assert iso(second * 1000) == datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


@given(st.integers(min_value=-(10**18), max_value=10**18))
def test_pico_dollars_survive_the_way_to_decimal_and_back(pico: int) -> None:
    assert (to_pico(to_decimal(pico)), to_pico(Decimal(to_text(pico)))) == (pico, pico)


def test_an_amount_finer_than_a_pico_dollar_is_rounded_to_the_nearest() -> None:
    assert to_pico(Decimal("0.0000000000016")) == 2
