"""How `broker status` looks in a terminal of 80 columns. Imports rich."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from broker.cli.status_data import DeploymentStatus, LaneStatus, Status, WorkerStatus

UNKNOWN: Final = "–"
STATES: Final = {"ready": "green", "not ready": "yellow", "silent": "red"}


def show(console: Console, status: Status) -> None:
    """Print everything that is known, and what is not."""
    console.print(_grid(["alias", "lane"], _LANE, (_lane(lane) for lane in status.lanes)))
    if status.deployments:
        rows = (_deployment(each) for each in status.deployments)
        console.print(_grid(["deployment"], ["calls", "used / limit", "state"], rows))
    if status.workers:
        rows = (_worker(each) for each in status.workers)
        console.print(_grid(["worker", "pool"], ["runs", "up", "state"], rows))
    for pool in status.idle_pools:
        console.print(f"[red]no worker of pool {escape(pool)} is alive[/red]")
    if status.parked is not None:
        parked = ", ".join(f"{count:,} for {delay}" for delay, count in status.parked.items() if count) or "none"
        console.print(f"parked {parked} · dead letters {status.dead_letters:,} · sink {status.sink_lag:,} behind")
    for part, why in status.missing.items():
        console.print(f"[yellow]{escape(part)} did not tell:[/yellow] {escape(why)}", soft_wrap=True)


_LANE: Final = ["backlog", "tokens", "$", "done/s", "drain", "oldest", "runs"]


def _grid(texts: list[str], numbers: list[str], rows: Iterable[list[str]]) -> Table:
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in texts:
        # A lane is one of two words; names that do not fit are folded, and never cut.
        grid.add_column(name, overflow="fold", no_wrap=name == "lane")
    for name in numbers:
        text = name in {"state", "used / limit"}
        grid.add_column(name, justify="left" if text else "right", no_wrap=not text)
    for row in rows:
        grid.add_row(*row)
    return grid


def _lane(lane: LaneStatus) -> list[str]:
    return [
        escape(lane.alias),
        lane.lane,
        count(lane.backlog),
        count(lane.estimated_tokens),
        money(lane.estimated_dollars),
        _rate(lane.finished_per_second),
        _time(lane.drain_seconds),
        _time(lane.oldest_seconds),
        count(lane.in_flight),
    ]


def _deployment(each: DeploymentStatus) -> list[str]:
    calls = f"{each.running:,}" + ("" if each.slots is None else f" / {each.slots:,}")
    if each.concurrency is not None and each.slots == each.concurrency:
        calls += " adaptive"
    used = [
        f"{name} {count(each.used.get(name))} / {count(limit)}" + (" learned" if name in each.learned else "")
        for name, limit in each.limits.items()
    ]
    states = []
    if each.cooling_seconds:
        states.append(f"[yellow]cooling for {_time(each.cooling_seconds)}[/yellow]")
    if each.blocked_seconds:
        states.append(f"[yellow]blocked for {_time(each.blocked_seconds)}[/yellow]")
    if each.half_open:
        states.append("[yellow]half open[/yellow]")
    if each.failed:
        states.append(f"{each.failed:,} of {each.failed + each.good:,} failed")
    return [escape(each.deployment), calls, "\n".join(used) or UNKNOWN, "\n".join(states) or "[green]serving[/green]"]


def _worker(each: WorkerStatus) -> list[str]:
    colour = STATES[each.state]
    why = "; ".join(f"{part}: {text}" for part, text in each.problems.items() if part != "silent")
    state = f"[{colour}]{each.state}[/{colour}]" + (f" {each.problems['silent']}" if each.state == "silent" else "")
    return [
        escape(each.worker),
        escape(each.pool),
        count(each.in_flight),
        duration(each.uptime_seconds),
        state + (f" {escape(why)}" if why else ""),
    ]


def count(number: int | None) -> str:
    """Write a count in at most six characters; `–` for an unknown one."""
    if number is None:
        return UNKNOWN
    for step, letter in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if number >= step:
            size = number / (1e3 if letter == "k" else step)
            return f"{size:.2f}{letter}" if size < 100 and letter != "k" else f"{size:,.0f}{letter}"  # noqa: PLR2004
    return f"{number:,}"


def money(usd: str | None) -> str:
    """Write USD with two places from a dollar on and four below; `–` for an unknown amount."""
    if usd is None:
        return UNKNOWN
    amount = Decimal(usd)
    if amount and amount < Decimal("0.0001"):
        return "<0.0001"
    if amount >= 1:
        return f"{amount:,.2f}" if amount < 1_000 else f"{amount:,.0f}"  # noqa: PLR2004 - cents that still tell something
    return f"{amount:.4f}" if amount else "0.00"


def duration(seconds: float) -> str:
    """Write seconds in two units at most: `4s`, `3m20s`, `2h05m`, `1d03h`."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole}s"
    if whole < 3600:  # noqa: PLR2004 - seconds of an hour
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:  # noqa: PLR2004 - seconds of a day
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def _rate(each_second: float | None) -> str:
    if each_second is None:
        return UNKNOWN
    return f"{each_second:.1f}" if each_second < 100 else count(round(each_second))  # noqa: PLR2004 - three digits


def _time(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    return "ever" if seconds == float("inf") else duration(seconds)
