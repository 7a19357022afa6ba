"""Durations on the command line."""

import click
import pytest

from broker.cli.duration import Duration, spelled


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("7d", 604_800), ("250ms", 0.25), (" 3 s ", 3)],
)
def test_a_duration_is_read_as_seconds(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "0", "0h", "-1s", "2 weeks", "h", "1e3", "nan"])
def test_what_is_no_duration_is_wrong_use(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a duration such as"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_seconds_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert spelled(seconds) == text
