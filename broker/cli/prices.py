"""`broker prices`: what a model costs and who says so, and what changed since the last version used."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
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
from broker.clock import SystemClock
from broker.config import Deployment, Settings
from broker.ledger.price_list import (
    RECORDED_SQL,
    STANDARD_NAME,
    Change,
    Entry,
    as_plain,
    compare,
    entries,
    everything,
    listed,
    nearest,
    versions,
)
from broker.ledger.prices import PriceTable
from broker.ledger.published import PACKAGE, STANDARD
from broker.ports import Table

SNAPSHOT: Final = Path(".broker") / "prices.json"
EXIT_DIFFERENT = 1


@click.group()
def command() -> None:
    """Show what models cost and who says so, or what changed in it."""


@command.command()
@click.argument("model")
@click.option("--provider", default=None, metavar="NAME", help="Whose model: openai, bedrock, vertex_ai, …")
@click.option("--tier", default=None, metavar="NAME", help="One service tier only: batch, flex, priority, …")
@click.option("--region", default=None, metavar="NAME", help="Where it is served, where the price depends on it.")
@click.option("--at", type=Moment(), default=None, metavar="DATE", help="The prices of that day: 2026-01-31.")
@config_option
@json_option
def show(
    model: str,
    provider: str | None,
    tier: str | None,
    region: str | None,
    at: float | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Show every rate of MODEL: its unit, tier and step, where it comes from, and its price version.

    MODEL is an alias or a deployment of the configuration, else a model's name, with or without `provider/`. Exit code
    1: nobody's list knows it.
    """
    settings = load_settings(config)
    now_ms = SystemClock().now_ms() if at is None else int(at * 1000)
    asked = [STANDARD if tier == STANDARD_NAME else tier] if tier is not None else []
    configured = _configured(settings, model) if provider is None and region is None else []
    deployments = configured or listed(model, provider, region)
    table = PriceTable.compile(deployments, settings.price_overrides, now_ms)
    priced = [entry for each in deployments for entry in entries(table, each, now_ms, asked)]
    found = [entry for entry in priced if configured or entry.lines]
    if as_json:
        print(json.dumps({"model": model, "prices": [_plain(entry) for entry in found]}, ensure_ascii=False, indent=2))
    else:
        _show(found)
    if not found:
        _unknown(model, tier, provider)


def _configured(settings: Settings, name: str) -> list[Deployment]:
    alias = settings.aliases.get(settings.alias_names.get(name, name))
    if alias is not None:
        return list(alias.deployments)
    return [each for each in _deployments(settings) if each.name == name]


def _deployments(settings: Settings) -> list[Deployment]:
    return [each for alias in settings.aliases.values() for each in alias.deployments]


def _unknown(model: str, tier: str | None, provider: str | None) -> None:
    where = f" of {provider}" if provider else ""
    what = f"no known price of {model}{where}" + (f" in tier {tier}" if tier else "")
    like = [name for name in nearest(model) if name != model]
    hint = f"; names like it: {', '.join(like)}" if like else ""
    click.echo(f"{what}{hint}", err=True)
    sys.exit(1)


def _plain(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "lines": [line._asdict() for line in entry.lines]}


def _show(found: Sequence[Entry]) -> None:
    console = Console()
    for entry in found:
        grid = Grid(
            title=f"{escape(entry.name)} ({escape(entry.model)}), {entry.tier}\n"
            f"[dim]{escape(entry.source)}\nprice version {entry.version}[/dim]",
            title_justify="left",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        grid.add_column("rate")
        grid.add_column("USD", justify="right", no_wrap=True)
        grid.add_column("per")
        grid.add_column("above", justify="right")
        for line in entry.lines:
            grid.add_row(line.rate, line.usd, line.unit, f"{line.above:,} tokens" if line.above else "")
        if entry.lines:
            console.print(grid)
        else:
            console.print(f"{escape(entry.name)} ({escape(entry.model)}), {entry.tier}: no known price")
            console.print(f"[dim]{escape(entry.source)}[/dim]")


@command.command()
@click.option(
    "--snapshot",
    type=click.Path(dir_okay=False, path_type=Path),
    default=SNAPSHOT,
    show_default=True,
    metavar="FILE",
    help="Where the prices of the last version used are kept.",
)
@click.option("--all", "everyone", is_flag=True, help="Every known model, not only those of the configuration.")
@click.option("--accept", is_flag=True, help="Keep today's prices as the ones to compare with next time.")
@click.option("--ledger", is_flag=True, help="Compare with the price versions that ClickHouse has recorded instead.")
@click.option("--since", type=Moment(), default="30d", show_default=True, help="How far back --ledger looks.")
@config_option
@json_option
def diff(
    snapshot: Path,
    everyone: bool,
    accept: bool,
    ledger: bool,
    since: float,
    config: Path | None,
    as_json: bool,
) -> None:
    """Show which prices differ from those of the last version used.

    The first time today's prices are kept and nothing differs; from then on --accept keeps them. Without aliases in
    the configuration every known model is compared. Exit code 1: something differs.
    """
    settings = load_settings(config)
    now_ms = SystemClock().now_ms()
    if ledger:
        if accept or everyone:
            raise click.UsageError("--ledger takes neither --accept nor --all")
        _diff_ledger(settings, run_async(_recorded(settings, since)), now_ms, as_json=as_json)
        return
    deployments = _deployments(settings)
    deployments = everything() if everyone or not deployments else deployments
    table = PriceTable.compile(deployments, settings.price_overrides, now_ms)
    today = as_plain([entry for each in deployments for entry in entries(table, each, now_ms)])
    kept = _read(snapshot)
    if kept is None or accept:
        _write(snapshot, today)
    changes = [] if kept is None else compare(kept["prices"], today)
    before = None if kept is None else str(kept["package"])
    if as_json:
        told = [change._asdict() for change in changes]
        print(json.dumps({"before": before, "after": PACKAGE, "changes": told}, ensure_ascii=False, indent=2))
    else:
        _show_changes(before, changes, len(today), snapshot)
    if changes and not accept:
        sys.exit(EXIT_DIFFERENT)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        kept: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{path} cannot be read as a snapshot of prices: {error}") from error
    if not _is_snapshot(kept):
        raise click.UsageError(f"{path} is no snapshot of prices; name another file with --snapshot")
    found: dict[str, Any] = kept
    return found


def _is_snapshot(kept: Any) -> bool:  # noqa: ANN401 - any JSON
    if (
        not isinstance(kept, dict)
        or not isinstance(kept.get("package"), str)
        or not isinstance(kept.get("prices"), dict)
    ):
        return False
    tiers = [tier for model in kept["prices"].values() for tier in (model.values() if isinstance(model, dict) else [0])]
    rates = [tier.get("rates") if isinstance(tier, dict) else None for tier in tiers]
    return all(isinstance(each, dict) and all(isinstance(rate, str) for rate in each.values()) for each in rates)


def _write(path: Path, prices: dict[str, dict[str, Any]]) -> None:
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    text = json.dumps({"package": PACKAGE, "day": day, "prices": prices}, ensure_ascii=False, indent=1, sort_keys=True)
    beside = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error}") from error


def _show_changes(before: str | None, changes: Sequence[Change], number: int, snapshot: Path) -> None:
    console = Console()
    if before is None:
        console.print(f"Prices of {number:,} models by {PACKAGE} are kept in {snapshot}; nothing to compare with yet.")
        return
    if not changes:
        console.print(f"No price of {number:,} models differs between {before} and {PACKAGE}.")
        return
    grid = Grid(title=f"{before} → {PACKAGE}", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("model", "tier", "rate"):
        grid.add_column(name, overflow="fold")
    for name in ("before", "now"):
        grid.add_column(name, justify="right")
    for change in changes:
        grid.add_row(
            escape(change.name), change.tier, change.rate, change.before or "unknown", change.after or "unknown"
        )
    console.print(grid)


async def _recorded(settings: Settings, since: float) -> Table:
    ledger = ClickHouseLedger(settings.clickhouse)
    await ledger.start()
    try:
        return await ledger.query(RECORDED_SQL, {"since": since})
    finally:
        await ledger.stop()


def _diff_ledger(settings: Settings, recorded: Table, now_ms: int, *, as_json: bool) -> None:
    known = {each.name: each for each in _deployments(settings)}
    table = PriceTable.compile(list(known.values()), settings.price_overrides, now_ms)
    rows: list[dict[str, str | int]] = []
    for name, model, version, answers in recorded.rows:
        deployment = known.get(name)
        if deployment is None or version in versions(table, deployment, model, now_ms):
            continue
        current = table.sheet(name, model, STANDARD, now_ms).version
        rows.append(
            {"deployment": name, "model": model, "recorded": version, "current": current, "answers": int(answers)}
        )
    if as_json:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    elif not rows:
        Console().print("Every price version that the ledger recorded last is still the current one.")
    else:
        grid = Grid(title="Recorded last → current", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for column in ("deployment", "model", "recorded", "current", "answers"):
            grid.add_column(column, overflow="fold")
        for row in rows:
            grid.add_row(*(escape(str(value)) for value in row.values()))
        Console().print(grid)
    if rows:
        sys.exit(EXIT_DIFFERENT)
