"""Points in time as people write them on a command line: `2h` ago, `7d` ago, `2026-01-31`, `2026-01-31T12:00`."""

from datetime import UTC, datetime

import click

from broker.cli.duration import SHAPE, Duration


class Moment(click.ParamType[float]):
    """A click type: text to unix seconds. A duration is that long ago; a date or time without a zone is UTC."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return unix seconds; ends the command with exit code 2 for anything else."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        if SHAPE.fullmatch(text):
            return datetime.now(UTC).timestamp() - Duration().convert(text, param, ctx)
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is neither a duration such as 2h nor a time such as 2026-01-31T12:00", param, ctx)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
