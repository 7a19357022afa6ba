"""`make bench`: the bare pipeline and the product, interleaved in one run on the same stub; writes `bench.json`.

A bar is a ratio of two medians of the same run, so it holds on a slow machine too; the exit code is 0 even when one is
missed. `KAFKA_BOOTSTRAP` measures on a real cluster instead of the embedded log.
"""

import asyncio
import os
import resource
import sys
import tempfile
from pathlib import Path

import click
import orjson
from rich.console import Console

from broker.embedded.probe import free_port
from broker.embedded.redis_part import RedisPart
from tests.bench.contest import CONTENDERS, RunError, Scenario, Stand, run, upstream
from tests.bench.report import Runs, as_json, show

SCENARIOS = (
    Scenario("instant", "instant upstream, 256 in flight", delay=0.0, in_flight=256, requests=20_000),
    Scenario("slow", "1-second upstream, 2,000 in flight", delay=1.0, in_flight=2_000, requests=10_000),
)
SHORT = {"instant": 5_000, "slow": 4_000}


def make(folder: Path) -> Path:
    """Make a folder and return it."""
    folder.mkdir()
    return folder


async def measure(scenarios: list[Scenario], rounds: int, folder: Path, console: Console) -> dict[str, Runs]:
    """Run every scenario `rounds` times with every contender in turn, who goes first changing each round."""
    results: dict[str, Runs] = {scenario.name: {name: [] for name in CONTENDERS} for scenario in scenarios}
    async with RedisPart() as part:
        redis = await part.start(folder, free_port())
        for scenario in scenarios:
            async with upstream(scenario.delay, folder) as url:
                stand = Stand(url, redis, os.environ.get("KAFKA_BOOTSTRAP"))
                for number in range(rounds):
                    order = list(CONTENDERS) if number % 2 == 0 else list(reversed(CONTENDERS))
                    for contender in order:
                        where = make(folder / f"{scenario.name}-{contender}-{number}")
                        figures = await run(contender, scenario, stand, where)
                        results[scenario.name][contender].append(figures)
                        cpu = "–" if figures.cpu_us is None else f"{figures.cpu_us:.0f} µs"
                        console.print(
                            f"{scenario.name} {number + 1}/{rounds} {contender}: {figures.rate:,.0f}/s, {cpu}",
                            style="dim",
                        )
    return results


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=None, help="Runs of each contender.  [default: 5, short: 2]")
@click.option("--requests", type=click.IntRange(100), default=None, help="Requests a run, in every scenario.")
@click.option("--scenario", "only", type=click.Choice([each.name for each in SCENARIOS]), default=None)
@click.option("--short", is_flag=True, help="Fewer requests and rounds: a look, not a measurement.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("bench.json"))
def main(rounds: int | None, requests: int | None, only: str | None, output: Path, *, short: bool) -> None:
    """Measure the product against the bare pipeline."""
    console = Console()
    rounds = rounds or (2 if short else 5)
    scenarios = [
        Scenario(
            each.name,
            each.title,
            each.delay,
            each.in_flight,
            requests or (SHORT[each.name] if short else each.requests),
        )
        for each in SCENARIOS
        if only in {None, each.name}
    ]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            results = asyncio.run(measure(scenarios, rounds, Path(folder), console))
        except RunError as error:
            console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            sys.exit(1)
    show(console, scenarios, results)
    output.write_bytes(orjson.dumps(as_json(scenarios, results, rounds), option=orjson.OPT_INDENT_2) + b"\n")
    console.print(f"written to {output}")


if __name__ == "__main__":
    main()
