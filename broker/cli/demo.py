"""`broker demo`: the main job on this machine, from an empty folder to answers and what they cost."""

import asyncio
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final

import click
import orjson
from rich.console import Console

from broker.cli.common import run_async
from broker.cli.demo_report import Facts, reconciled, report
from broker.cli.demo_upstreams import BURST, BURST_SECONDS, busy_provider, failures, flaky_provider, serving
from broker.cli.prepare import open_ledger, prepare
from broker.cli.progress import shown
from broker.cli.up import INTERRUPTED, signals
from broker.client import BrokerClient, Lane
from broker.client.batch import BatchSummary, Progress, run_batch
from broker.client.batch_files import default_errors_path
from broker.config import load
from broker.embedded.part import HOST, make_folder
from broker.embedded.runfile import FOLDER, LOCK_FILE, Lock
from broker.embedded.stack import PORTS, Plan, Stack
from broker.simulate.server import Simulator

PORT_BASE: Final = 4100
"""Not `broker up`'s, so that both run side by side."""

BUSY_PORT: Final = 5
FLAKY_PORT: Final = 6
"""Distance of the two upstreams' ports from the first one."""

RESULTS: Final = "demo-results.jsonl"

TENANTS: Final = {"search": Lane.BATCH, "support": Lane.INTERACTIVE}
"""Who sends, by which lane; a line's `user` tells whose it is."""

INK: Final = "Everything runs on this machine; nothing leaves it."


@click.command()
@click.option(
    "--port-base",
    type=click.IntRange(1, 65_000),
    default=PORT_BASE,
    show_default=True,
    help="First of the ports it uses, 16 at most.",
)
def command(port_base: int) -> None:
    """Run 40 requests over three aliases on a stack of its own, and show answers, detours and spend.

    Exit code 0 when requests, final replies and billable rows agree, else 1.
    """
    sys.exit(run_async(_demo(Path.cwd(), port_base, Console(highlight=False))))


@dataclass(frozen=True, slots=True)
class _Place:
    """Folders and addresses of one demo."""

    folder: Path
    results: Path
    port_base: int

    def url(self, distance: int) -> str:
        return f"http://{HOST}:{self.port_base + distance}/v1"


async def _demo(cwd: Path, port_base: int, console: Console) -> int:
    place = _Place(cwd / FOLDER / "demo", cwd / RESULTS, port_base)
    began = time.monotonic()
    console.print(f"[bold]broker demo[/bold]: 40 requests, three aliases, two tenants. {INK}", soft_wrap=True)
    console.print(
        f"Ports from {port_base} on, data in {place.folder.relative_to(cwd)}/ (emptied at each start).\n",
        soft_wrap=True,
    )
    plan = _fresh_plan(place)
    busy, flaky = busy_provider(), flaky_provider()
    main = asyncio.current_task()
    if main is None:
        raise RuntimeError("not inside a task")
    with console.status("starting") as status:
        stack = Stack(plan, prepare=prepare, tell=_teller(console, status.update))
        with signals(stack, main.cancel, main):
            try:
                async with AsyncExitStack() as resources:
                    await resources.enter_async_context(serving("busy", busy, port_base + BUSY_PORT))
                    await resources.enter_async_context(serving("flaky", flaky, port_base + FLAKY_PORT))
                    await resources.enter_async_context(stack)
                    status.stop()
                    console.print(f"The stack is ready after {time.monotonic() - began:.1f} s.\n")
                    good = await _work(place, stack, busy, flaky, console)
                    console.print("\nstopping everything …")
            except asyncio.CancelledError:
                console.print("interrupted; everything is stopped")
                return INTERRUPTED
    console.print(f"Done in {time.monotonic() - began:.0f} s; everything it started is stopped.")
    return 0 if good else 1


def _fresh_plan(place: _Place) -> Plan:
    """Empty the demo's folder, unless another demo uses it, and lay the configuration into it."""
    make_folder(place.folder, part="data folder")
    with Lock(place.folder):
        for entry in place.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != LOCK_FILE:
                entry.unlink()
        config = place.folder / "config.yaml"
        template = files("broker.embedded.demo").joinpath("config.yaml").read_text(encoding="utf-8")
        addresses = {
            "model": place.url(PORTS["model"]),
            "busy": place.url(BUSY_PORT),
            "flaky": place.url(FLAKY_PORT),
        }
        config.write_text(Template(template).substitute(addresses), encoding="utf-8")
    for path in (place.results, default_errors_path(place.results)):
        path.unlink(missing_ok=True)
    # An empty environment: the demo uses its own parts, whatever servers the shell points at.
    settings = load(config, environ={})
    return Plan(settings=settings, config=config, folder=place.folder, port_base=place.port_base)


def _teller(console: Console, update: Callable[[str], None]) -> Callable[[str, dict[str, Any]], None]:
    def tell(event: str, told: dict[str, Any]) -> None:
        if event == "started" and console.is_terminal:
            update(f"started {told['name']}")
        elif event == "started":
            console.print(f"started {told['name']}")
        elif event in ("ended", "failed"):
            console.print(f"{told['name']} {event}: {told['why']}", markup=False, soft_wrap=True)

    return tell


async def _work(place: _Place, stack: Stack, busy: Simulator, flaky: Simulator, console: Console) -> bool:
    """Send the requests, wait for the ledger, report; whether all counts agree."""
    requests = files("broker.embedded.demo").joinpath("requests.jsonl").read_bytes().splitlines()
    console.print(
        f"local  the model itself, eight answers at a time\n"
        f"busy   Anthropic's API, simulated: the same OpenAI bodies go to it as Messages; it allows {BURST} requests "
        f"within {BURST_SECONDS:g} s (30 a minute) and answers 429 with Anthropic's headers beyond: these requests "
        "wait their turn\n"
        f"flaky  OpenAI's API, simulated, that answers 429, 503, HTML and a dropped connection in turn: these requests "
        "are rerouted to local\n",
        soft_wrap=True,
    )
    summaries = await _send(place, stack, requests, console)
    async with open_ledger(stack.settings) as ledger:
        facts = await Facts.gather(ledger, expected=len(requests))
    answered = sum(summary.ok for summary in summaries)
    replies = sum(summary.total - summary.unanswered for summary in summaries)
    report(
        console,
        facts,
        requests=len(requests),
        answered=answered,
        replies=replies,
        results=place.results,
        turned_away=busy.desk.outcomes["429"],
        failures=failures(flaky),
    )
    return answered == len(requests) and reconciled(facts, requests=len(requests), replies=replies)


async def _send(place: _Place, stack: Stack, requests: list[bytes], console: Console) -> list[BatchSummary]:
    """Let each tenant send its lines with its own key, and put all results into one file."""
    latest: dict[str, Progress] = {}
    jobs = {tenant: place.folder / f"{tenant}.jsonl" for tenant in TENANTS}
    for tenant, path in jobs.items():
        lines = [line for line in requests if orjson.loads(line)["body"]["user"] == tenant]
        path.write_bytes(b"\n".join(lines) + b"\n")
    with shown(console) as show:

        async def send(tenant: str, path: Path) -> BatchSummary:
            def on_progress(progress: Progress) -> None:
                latest[tenant] = progress
                if len(latest) == len(jobs):
                    show(_sum(list(latest.values())))

            async with BrokerClient(kafka=stack.settings.kafka, key=f"sk-demo-{tenant}") as client:
                return await run_batch(
                    client,
                    path,
                    path.with_suffix(".results.jsonl"),
                    lane=TENANTS[tenant],
                    tags={"job": "demo"},
                    on_progress=on_progress,
                )

        summaries = await asyncio.gather(*(send(tenant, path) for tenant, path in jobs.items()))
    _join([path.with_suffix(".results.jsonl") for path in jobs.values()], place.results)
    return list(summaries)


def _sum(parts: list[Progress]) -> Progress:
    """Counts of both jobs together; the time is the longer one's."""
    totals = {field.name: sum(getattr(part, field.name) for part in parts) for field in fields(Progress)}
    return Progress(**{**totals, "seconds": max(part.seconds for part in parts)})


def _join(parts: list[Path], results: Path) -> None:
    results.write_bytes(b"".join(part.read_bytes() for part in parts))
    errors = b"".join(default_errors_path(part).read_bytes() for part in parts)
    if errors:
        default_errors_path(results).write_bytes(errors)
