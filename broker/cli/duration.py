"""Durations as people write them on a command line: `90`, `90s`, `15m`, `2h`, `7d`."""

import re
from typing import Final

import click

UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
SHAPE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")


class Duration(click.ParamType[float]):
    """A click type: text to seconds, more than none."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds; ends the command with exit code 2 for anything else."""
        if isinstance(value, float):
            return value
        match = SHAPE.fullmatch(str(value).strip())
        seconds = 0.0 if match is None else float(match[1]) * UNITS[match[2]]
        if seconds <= 0:
            self.fail(f"{value!r} is not a duration such as 90s, 15m, 2h or 7d", param, ctx)
        return seconds


def spelled(seconds: float) -> str:
    """Write seconds as people read them: `4 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004 - minutes of an hour
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
