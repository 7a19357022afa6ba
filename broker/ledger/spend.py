"""The spend query: what it cost, and how much of it could be priced. Makes SQL from fixed parts; asks nobody."""

from collections.abc import Sequence
from typing import Final

DIMENSIONS: Final = {
    "tenant": "a.tenant",
    "team": "a.team",
    "key": "a.key_id",
    "user": "a.user",
    "alias": "a.alias",
    "provider": "a.provider",
    "deployment": "a.deployment",
    "model": "a.model",
    "lane": "a.lane",
    "outcome": "a.outcome",
    "day": "toDate(a.created_at)",
    "hour": "toStartOfHour(a.created_at)",
}
"""What spend can be broken down by, and its expression; a day and an hour are UTC."""

MEASURES: Final = (
    ("requests", "countIf(a.billable)"),
    ("attempts", "count()"),
    ("input_tokens", "sum(a.input_tokens)"),
    ("output_tokens", "sum(a.output_tokens)"),
    ("cost", "sum(a.cost)"),
    ("wasted", "sumIf(a.cost, NOT a.billable)"),
    ("priced", "count(a.cost)"),
    ("unpriced", "countIf(a.cost IS NULL AND (a.outcome = 'answered' OR a.input_tokens + a.output_tokens > 0))"),
)
"""Columns after the dimensions. `cost` is NULL where no row has a price; `wasted` is the part of it that no caller pays
for (retries, cancelled calls); `unpriced` are rows that used tokens without a known price."""


def spend_sql(by: Sequence[str]) -> str:
    """Return the query; its parameter `since` is unix seconds. `by` are keys of `DIMENSIONS`."""
    groups = [f"{DIMENSIONS[name]} AS {name}" for name in by]
    columns = ",\n    ".join([*groups, *(f"{expression} AS {name}" for name, expression in MEASURES)])
    grouping = f"\nGROUP BY {', '.join(by)}" if by else ""
    order = ", ".join(["cost DESC NULLS LAST", *by]) if not {"day", "hour"} & set(by) else ", ".join(by)
    # A duplicate has its original's month, the table's partition: FINAL need not look across partitions.
    return (
        f"SELECT\n    {columns}\nFROM attempts AS a FINAL\n"
        "WHERE a.created_at >= toDateTime64({since:Float64}, 3, 'UTC')"
        f"{grouping}\nORDER BY {order}\n"
        "SETTINGS do_not_merge_across_partitions_select_final = 1"
    )
