"""`make chaos`: faults on a real three-broker Apache Kafka with 2,000 requests in flight, then four counts compared.

Exit code 0: every promise kept; 1: one broken, the table says which; 2: the run could not be made (no Java, no Maven).
"""

import json
import logging
import random
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.chaos.faults import FAULTS
from tests.chaos.maven import Interrupted, MavenMissing, fetch_jars, run_to_end
from tests.chaos.reconcile import Result
from tests.chaos.run import Run, folder_of
from tests.chaos.stand import Stand

CANNOT_RUN = 2
INTERRUPTED = 130
JARS = Path(".broker/chaos").resolve()
"""Kafka's own jars are fetched once and kept here."""


@dataclass(frozen=True)
class Plan:
    """What a run is to do."""

    names: list[str]
    minutes: float
    in_flight: int
    seed: int


def table(results: list[Result], title: str) -> Table:
    """One line a fault."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("fault", no_wrap=True)
    for column in ("requests", "lost", "duplicate calls", "at most", "duplicate bills", "recovery s", "kept"):
        shown.add_column(column, justify="left" if column == "kept" else "right")
    for each in results:
        shown.add_row(
            each.fault,
            f"{each.requests:,}",
            str(each.lost),
            str(each.again),
            str(each.at_most),
            str(each.bills),
            f"{each.recovery:.1f}" if each.recovery else "",
            "yes" if each.good else "NO",
        )
    return shown


async def chaos(plan: Plan, folder: Path, console: Console) -> Run:
    """Start the stand, run, stop the stand."""
    jars = await fetch_jars(JARS)
    began = time.monotonic()
    async with Stand(folder, jars, in_flight=plan.in_flight, seed=plan.seed) as stand:
        console.print(f"three brokers, 4 workers, sink, relay, provider: up in {time.monotonic() - began:.0f} s")
        run = Run(stand, in_flight=plan.in_flight, seed=plan.seed, say=partial(console.print, highlight=False))
        await run.go(plan.names, plan.minutes)
        return run


@click.command()
@click.option(
    "--minutes",
    type=click.FloatRange(0),
    default=8.0,
    envvar="CHAOS_MINUTES",
    show_default=True,
    show_envvar=True,
    help="Each fault once, whatever it takes; then mixed ones until so much time has passed.",
)
@click.option("--seed", type=int, default=None, help="Of a run to be repeated.  [default: drawn, and printed]")
@click.option("--in-flight", type=click.IntRange(1), default=2_000, show_default=True, help="Requests open at once.")
@click.option("--only", multiple=True, type=click.Choice(list(FAULTS)), help="Only this fault; may be repeated.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the results as JSON.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where data and logs go.")
def main(  # noqa: PLR0913, PLR0917 - one parameter an option
    minutes: float, seed: int | None, in_flight: int, only: tuple[str, ...], output: Path | None, folder: Path | None
) -> None:
    """Inject faults under load and reconcile accepted requests, final replies, billable rows and paid calls."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    console = Console(width=None if sys.stdout.isatty() else 120)
    seed = random.SystemRandom().randrange(10_000) if seed is None else seed
    where = folder_of(folder)
    console.print(f"seed {seed}, {in_flight:,} requests in flight, data and logs in {where}", soft_wrap=True)
    try:
        run = run_to_end(chaos(Plan(list(only) or list(FAULTS), minutes, in_flight, seed), where, console))
    except MavenMissing as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(CANNOT_RUN)
    except Interrupted:
        console.print("interrupted; everything is stopped")
        sys.exit(INTERRUPTED)
    console.print(table(run.results, f"seed {seed}, at most {run.peak:,} calls at once"))
    for result in run.results:
        for line in [] if result.good else result.wrong():
            console.print(f"{result.fault}: {line}", style="red", markup=False, highlight=False)
    if output is not None:
        told = {"seed": seed, "in_flight": in_flight, "results": [asdict(result) for result in run.results]}
        output.write_text(json.dumps(told, indent=2) + "\n")
    good = all(result.good for result in run.results)
    if good:
        shutil.rmtree(where)
    accepted, lost = sum(result.requests for result in run.results), sum(result.lost for result in run.results)
    click.echo(f"{accepted:,} requests accepted, {lost} lost; {'every promise kept' if good else 'BROKEN'}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
