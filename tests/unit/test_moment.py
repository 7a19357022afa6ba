"""Points in time on the command line."""

from datetime import UTC, datetime

import click
import pytest

from broker.cli.moment import Moment


def convert(text: str) -> float:
    return Moment().convert(text, None, None)


def test_a_duration_is_that_long_ago() -> None:
    before = datetime.now(UTC).timestamp()
    assert before - 7200 <= convert("2h") <= datetime.now(UTC).timestamp() - 7200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_a_time_without_a_zone_is_utc(text: str, expected: datetime) -> None:
    assert convert(text) == expected.timestamp()


def test_anything_else_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="'yesterday' is neither a duration"):
        convert("yesterday")
