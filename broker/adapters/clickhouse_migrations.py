"""The numbered SQL files beside this one, and what a table's time to live should be changed to."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

_NAME: Final = re.compile(r"^\d{4}_[a-z_]+\.sql$")
_TTL: Final = "toDateTime(created_at) + toIntervalDay({})"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file; its statements can be run again without harm."""

    name: str
    sql: str


def migrations() -> Sequence[Migration]:
    """Return every migration in order."""
    folder = files("broker.adapters").joinpath("migrations")
    found = [Migration(each.name, each.read_text("utf-8")) for each in folder.iterdir() if _NAME.match(each.name)]
    return sorted(found, key=lambda each: each.name)


def statements(sql: str) -> Sequence[str]:
    """Split a file into statements: each ends with a semicolon at the end of a line."""
    return [text.strip() for text in re.split(r";[ \t]*(?:\n|$)", sql) if text.strip()]


def ttl(engine_full: str, days: int) -> str | None:
    """Return the statement that makes the table of `engine_full` forget rows after `days`; None when it does already.

    `engine_full` is ClickHouse's own rendering in `system.tables`.
    """
    wanted = _TTL.format(days)
    if f"TTL {wanted}" in engine_full:
        return None
    return f"ALTER TABLE attempts MODIFY TTL {wanted}"
