"""`broker spend`: what it cost, by tenant, alias, model or day."""

import csv
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from broker.adapters.clickhouse import ClickHouseLedger
from broker.cli.common import config_option, json_option, load_settings, run_async
from broker.cli.moment import Moment
from broker.config import Settings
from broker.ledger.spend import DIMENSIONS, spend_sql
from broker.ports import Table

COUNTS: Final = {"requests": "reqs", "attempts": "tries", "input_tokens": "in", "output_tokens": "out"}
"""Column to its heading; tokens go in and out."""
MOST_LABEL: Final = 8
"""Characters a label is given before it is folded, where the terminal is narrow."""
BAR: Final = 24
"""Characters of the longest bar."""
EIGHTHS: Final = " ▏▎▍▌▋▊▉"

Row = dict[str, Any]


class Dimensions(click.ParamType[tuple[str, ...]]):
    """A click type: `tenant,alias` to its names; ends the command with exit code 2 for an unknown one."""

    name = "dimensions"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the names, each once, in the order given."""
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(part.strip() for part in str(value).split(",") if part.strip()))
        unknown = [name for name in names if name not in DIMENSIONS]
        if unknown:
            self.fail(f"{unknown[0]!r} is none of {', '.join(DIMENSIONS)}", param, ctx)
        return names


@click.command()
@config_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header line.")
@click.option(
    "--by",
    type=Dimensions(),
    default="tenant,alias,model",
    show_default=True,
    metavar="LIST",
    help=f"Break down by: {', '.join(DIMENSIONS)}.",
)
@click.option("--since", type=Moment(), default="7d", show_default=True, help="How far back: 2h, 7d, 2026-01-31.")
def command(config: Path | None, as_json: bool, as_csv: bool, by: tuple[str, ...], since: float) -> None:
    """Show what it cost and for how many attempts no price is known.

    Costs are USD. A sum leaves out what has no price: `unpriced` counts those attempts, and `broker spend --by
    provider,model` shows whose price to add (`price_overrides`, or prices of the deployment).
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    table = run_async(_ask(load_settings(config), by, since))
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    if as_json:
        print(json.dumps([_plain(row) for row in rows], ensure_ascii=False, indent=2))
    elif as_csv:
        _print_csv(table.columns, rows)
    else:
        _show(Console(), by, rows, since)


async def _ask(settings: Settings, by: Sequence[str], since: float) -> Table:
    ledger = ClickHouseLedger(settings.clickhouse)
    await ledger.start()
    try:
        return await ledger.query(spend_sql(by), {"since": since})
    finally:
        await ledger.stop()


def _plain(row: Row) -> Row:
    """Decimals and times as text; None stays None, as an unknown cost is not zero."""
    return {name: _text(value) for name, value in row.items()}


def _text(value: object) -> object:
    if isinstance(value, Decimal):
        return format(value, "f")
    return value if value is None or isinstance(value, int | str) else str(value)


def _print_csv(columns: Sequence[str], rows: Sequence[Row]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_plain(row)[name] for name in columns] for row in rows)


def _show(console: Console, by: Sequence[str], rows: Sequence[Row], since: float) -> None:
    start = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if not sum(row["attempts"] for row in rows):
        console.print(f"No attempts since {start}.")
        return
    grid = Grid(
        title=f"Spend since {start}",
        title_justify="left",
        show_footer=len(rows) > 1,
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    total = {name: _sum(rows, name) for name in rows[0] if name not in by}
    for number, name in enumerate(by):
        grid.add_column(
            name,
            footer="" if number else "total",
            overflow="fold",
            min_width=min(MOST_LABEL, max(len(str(row[name])) for row in rows)),
        )
    for name, heading in COUNTS.items():
        grid.add_column(heading, footer=_short(total[name]), justify="right", no_wrap=True)
    for name in ("cost", "wasted"):
        grid.add_column(f"{name} $", footer=_money(total[name]), justify="right", no_wrap=True)
    grid.add_column("unpriced", footer=f"{total['unpriced']:,}", justify="right")
    for row in rows:
        grid.add_row(
            *(escape(str(row[name]) or "–") for name in by),
            *(_short(row[name]) for name in COUNTS),
            *(_money(row[name]) for name in ("cost", "wasted")),
            f"[yellow]{row['unpriced']:,}[/yellow]" if row["unpriced"] else "0",
        )
    console.print(grid)
    _show_bars(console, by, rows)
    if total["unpriced"]:
        console.print(
            f"{total['unpriced']:,} of {total['attempts']:,} attempts have no known price; they are in no sum of costs."
        )


def _show_bars(console: Console, by: Sequence[str], rows: Sequence[Row]) -> None:
    most = max((row["cost"] or Decimal(0) for row in rows), default=Decimal(0))
    if not most:
        return
    chart = Grid(box=None, show_header=False, pad_edge=False)
    for row in rows:
        label = " · ".join(str(row[name]) or "–" for name in by)
        chart.add_row(escape(label), f"[cyan]{bar(row['cost'], most)}[/cyan]", _money(row["cost"]))
    console.print(chart)
    console.print()


def _sum(rows: Sequence[Row], name: str) -> Any:  # noqa: ANN401 - a count, or an amount that may be unknown
    known = [row[name] for row in rows if row[name] is not None]
    if not known:
        return None if name in {"cost", "wasted"} else 0
    return sum(known, type(known[0])(0))


def _short(count: int) -> str:
    """Write a count in at most six characters; `--json` and `--csv` have it in full."""
    for step, letter in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if count >= step:
            return f"{count / 1e3:,.0f}k" if letter == "k" else f"{count / step:,.2f}{letter}"
    return f"{count:,}"


def _money(amount: Decimal | None) -> str:
    """USD with as many places as tell something: two from a dollar on, six below; `–` when nothing is known."""
    if amount is None:
        return "–"
    if amount == 0 or amount >= 1:
        return f"{amount:,.2f}"
    return f"{amount:.6f}" if amount >= Decimal("0.000001") else format(amount.normalize(), "f")


def bar(amount: Decimal | None, most: Decimal) -> str:
    """Return a bar of at most `BAR` characters, in eighths; something for any amount above zero."""
    if not amount or not most:
        return ""
    eighths = max(1, int(amount * BAR * 8 / most))
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
