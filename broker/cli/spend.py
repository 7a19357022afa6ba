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
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from broker.adapters.clickhouse import ClickHouseLedger
from broker.cli.common import config_option, json_option, load_settings, run_async
from broker.cli.moment import Moment
from broker.config import Settings
from broker.ledger.spend import DIMENSIONS, spend_sql
from broker.ports import Table

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
    grid = Grid(title=f"Spend since {start}", title_justify="left", show_footer=len(rows) > 1)
    total = {name: _sum(rows, name) for name in rows[0] if name not in by}
    for number, name in enumerate(by):
        grid.add_column(name, footer="" if number else "total", overflow="fold")
    for name in ("requests", "attempts", "input_tokens", "output_tokens"):
        grid.add_column(name.replace("_", " "), footer=f"{total[name]:,}", justify="right")
    grid.add_column("cost $", footer=_money(total["cost"]), justify="right")
    grid.add_column("")
    grid.add_column("wasted $", footer=_money(total["wasted"]), justify="right")
    grid.add_column("unpriced", footer=f"{total['unpriced']:,}", justify="right")
    most = max((row["cost"] or Decimal(0) for row in rows), default=Decimal(0))
    for row in rows:
        grid.add_row(
            *(escape(str(row[name]) or "–") for name in by),
            *(f"{row[name]:,}" for name in ("requests", "attempts", "input_tokens", "output_tokens")),
            _money(row["cost"]),
            f"[cyan]{bar(row['cost'], most)}[/cyan]",
            _money(row["wasted"]),
            f"[yellow]{row['unpriced']:,}[/yellow]" if row["unpriced"] else "0",
        )
    console.print(grid)
    if total["unpriced"]:
        console.print(
            f"{total['unpriced']:,} of {total['attempts']:,} attempts have no known price; they are in no sum of costs."
        )


def _sum(rows: Sequence[Row], name: str) -> Any:  # noqa: ANN401 - a count, or an amount that may be unknown
    known = [row[name] for row in rows if row[name] is not None]
    if not known:
        return None if name in {"cost", "wasted"} else 0
    return sum(known, type(known[0])(0))


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
