"""What the bench prints and writes: medians, ratios, bars."""

import os
import platform
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.contest import Figures, Scenario

Runs = dict[str, list[Figures]]
"""By contender."""


@dataclass(frozen=True)
class Bar:
    """A figure of the product and what it has to reach: at least `bar`, or at most where `at_most`."""

    name: str
    meaning: str
    value: float | None
    bar: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        if self.value is None:
            return False
        return self.value <= self.bar if self.at_most else self.value >= self.bar


def middle(values: list[float | None]) -> float | None:
    """The median, None where a value is missing."""
    known = [value for value in values if value is not None]
    return median(known) if known and len(known) == len(values) else None


def ratio(runs: Runs) -> float:
    """The product's rate over the bare pipeline's: median of the ratios of each round, so that drift cancels out."""
    pairs = zip(runs["product"], runs["bare"], strict=True)
    return median(product.rate / bare.rate for product, bare in pairs)


def bars(results: dict[str, Runs]) -> list[Bar]:
    """The bars of the design that this form of the bench measures; scenarios that were not run have none."""
    found = []
    if "instant" in results:
        found.append(
            Bar("instant_rate", "rate against bare, instant upstream, 256 in flight", ratio(results["instant"]), 0.50)
        )
    if "slow" in results:
        slow = results["slow"]
        found.append(Bar("slow_rate", "rate against bare, 1-second upstream, 2,000 in flight", ratio(slow), 0.85))
        memory = middle([figures.rss_mb for figures in slow["product"]])
        found.append(Bar("slow_memory_mb", "peak memory with 2,000 calls in flight, MB", memory, 250, at_most=True))
    return found


def as_json(scenarios: list[Scenario], results: dict[str, Runs], rounds: int) -> dict[str, Any]:
    """What `bench.json` holds: every run, the medians, and the bars."""
    return {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "rounds": rounds,
        "scenarios": {
            scenario.name: {
                "in_flight": scenario.in_flight,
                "upstream_seconds": scenario.delay,
                "requests": scenario.requests,
                "ratio": round(ratio(results[scenario.name]), 3),
                **{name: _summary(runs) for name, runs in results[scenario.name].items()},
            }
            for scenario in scenarios
        },
        "bars": {
            each.name: {"value": None if each.value is None else round(each.value, 3), "bar": each.bar, "met": each.met}
            for each in bars(results)
        },
    }


def _summary(runs: list[Figures]) -> dict[str, Any]:
    cpu, rss = middle([each.cpu_us for each in runs]), middle([each.rss_mb for each in runs])
    return {
        "rate": round(median(each.rate for each in runs)),
        "cpu_us": None if cpu is None else round(cpu),
        "rss_mb": None if rss is None else round(rss),
        "rates": [round(each.rate) for each in runs],
    }


def show(console: Console, scenarios: list[Scenario], results: dict[str, Runs]) -> None:
    """Print one table a scenario, then the bars."""
    for scenario in scenarios:
        runs = results[scenario.name]
        table = Table(title=scenario.title, title_justify="left", box=None, pad_edge=False)
        table.add_column("")
        for name in ("requests/s", "lowest–highest", "CPU µs/request", "peak MB", "ratio"):
            table.add_column(name, justify="right")
        for contender, figures in runs.items():
            summary = _summary(figures)
            table.add_row(
                contender,
                f"{summary['rate']:,}",
                f"{min(summary['rates']):,}–{max(summary['rates']):,}",
                "–" if summary["cpu_us"] is None else str(summary["cpu_us"]),
                "–" if summary["rss_mb"] is None else str(summary["rss_mb"]),
                f"{ratio(runs):.2f}" if contender == "product" else "",
            )
        console.print(table)
        console.print()
    table = Table(title="bars", title_justify="left", box=None, pad_edge=False)
    for name in ("bar", "value", "wanted", ""):
        table.add_column(name)
    for each in bars(results):
        value = "–" if each.value is None else f"{each.value:.2f}"
        wanted = f"{'≤' if each.at_most else '≥'} {each.bar:g}"
        table.add_row(each.meaning, value, wanted, "[green]met[/green]" if each.met else "[red]missed[/red]")
    console.print(table)
