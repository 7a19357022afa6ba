"""What the demo shows at its end: answers, detours, waits, spend, and whether all counts agree."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Self

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Column
from rich.table import Table as Grid

from broker.client.batch_files import default_errors_path
from broker.ports import Ledger

LEDGER_SECONDS: Final = 30.0
"""How long the sink may take for the last rows."""

POLL_SECONDS: Final = 0.25

BILLABLE: Final = "SELECT countIf(billable) FROM attempts FINAL"

REROUTED: Final = """
SELECT alias, error_code, status, countIf(outcome = 'rerouted') AS rerouted, count() AS failed
FROM attempts FINAL WHERE outcome IN ('failed', 'rerouted') AND alias = 'flaky'
GROUP BY alias, error_code, status ORDER BY failed DESC, status
"""

WAITS: Final = """
SELECT if(requested_model = '', alias, requested_model) AS asked, median(queue_ms) / 1000, max(queue_ms) / 1000
FROM attempts FINAL WHERE billable GROUP BY asked ORDER BY asked
"""

SPEND: Final = """
SELECT tenant, alias, model, countIf(billable), count(), sum(input_tokens), sum(output_tokens), sum(cost),
    countIf(cost IS NULL)
FROM attempts FINAL GROUP BY tenant, alias, model ORDER BY tenant, alias, model
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the ledger says about the demo's requests."""

    billable: int
    failures: Sequence[Sequence[Any]]
    """Of the alias `flaky`: alias, error code, status, tries that ended in a reroute, all failed tries."""
    waits: Sequence[Sequence[Any]]
    """Per alias asked for: name, median and longest wait in seconds, from publishing to the try that answered."""
    spend: Sequence[Sequence[Any]]
    """Tenant, alias, model, requests, tries, input tokens, output tokens, USD or None, tries without a price."""

    @classmethod
    async def gather(cls, ledger: Ledger, *, expected: int) -> Self:
        """Ask the ledger once it holds `expected` billable rows, or after `LEDGER_SECONDS` whatever it holds."""
        deadline = asyncio.get_running_loop().time() + LEDGER_SECONDS
        while (billable := await _billable(ledger)) < expected:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(POLL_SECONDS)
        answers = [(await ledger.query(sql)).rows for sql in (REROUTED, WAITS, SPEND)]
        return cls(billable, *answers)


async def _billable(ledger: Ledger) -> int:
    return int((await ledger.query(BILLABLE)).rows[0][0])


def reconciled(facts: Facts, *, requests: int, replies: int) -> bool:
    """Whether every request has one final reply and one billable row."""
    return requests == replies == facts.billable


def report(
    console: Console,
    facts: Facts,
    *,
    requests: int,
    answered: int,
    replies: int,
    results: Path,
    turned_away: int,
    failures: Mapping[str, int],
) -> None:
    """Print everything."""
    console.print(
        f"\n[bold]Results[/bold]  {results} ({answered} of {requests} answered, OpenAI batch output)", soft_wrap=True
    )
    errors = default_errors_path(results)
    if errors.exists():
        console.print(f"[red]Errors[/red]   {errors}", soft_wrap=True)
    _samples(console, results)
    _detours(console, facts, failures)
    _waits(console, facts, turned_away)
    _spend(console, facts)
    good = reconciled(facts, requests=requests, replies=replies)
    sign, word = (" =", "[green]they agree[/green]") if good else (",", "[red]they do not agree[/red]")
    counts = f"{requests} requests{sign} {replies} final replies{sign} {facts.billable} billable rows"
    console.print(f"\n[bold]Counts[/bold]  {counts}: {word}", soft_wrap=True)


def _samples(console: Console, results: Path) -> None:
    """One answer of each alias, beside the question it answers."""
    console.print("\n[bold]An answer of each alias[/bold]  of busy it is the simulator's made-up text", soft_wrap=True)
    questions = _questions()
    for alias, lines in _by_alias(results.read_bytes().splitlines()).items():
        line = max(lines, key=lambda line: (_is_whole(line), len(_content(line))))
        text = " ".join(_content(line).split())
        console.print(f"  [cyan]{alias}[/cyan]  {escape(questions[line['custom_id']])}", soft_wrap=True)
        console.print(f"         → {escape(text)}", soft_wrap=True)


def _questions() -> dict[str, str]:
    from importlib.resources import files  # noqa: PLC0415 - beside its only use

    lines = files("broker.embedded.demo").joinpath("requests.jsonl").read_bytes().splitlines()
    parsed = [orjson.loads(line) for line in lines]
    return {line["custom_id"]: line["body"]["messages"][-1]["content"] for line in parsed}


def _by_alias(lines: Iterable[bytes]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"local": [], "busy": [], "flaky": []}
    for line in lines:
        parsed = orjson.loads(line)
        found[parsed["custom_id"].rpartition("-")[0]].append(parsed)
    return {alias: answers for alias, answers in found.items() if answers}


def _is_whole(line: dict[str, Any]) -> bool:
    """Whether the model came to its end before its tokens did."""
    return bool(line["response"]["body"]["choices"][0]["finish_reason"] == "stop")


def _content(line: dict[str, Any]) -> str:
    return str(line["response"]["body"]["choices"][0]["message"]["content"])


def _detours(console: Console, facts: Facts, failures: Mapping[str, int]) -> None:
    rerouted = sum(row[3] for row in facts.failures)
    ways = ", ".join(f"{count} × {way}" for way, count in failures.items())
    console.print(
        f"\n[bold]Rerouted[/bold]  {rerouted} requests from flaky to local; flaky failed: {ways}", soft_wrap=True
    )
    grid = Grid("why", "status", "failed tries", "of them led to local", box=None, pad_edge=False)
    for _, code, status, led, failed in facts.failures:
        grid.add_row(str(code), str(status), str(failed), str(led))
    console.print(grid)


def _waits(console: Console, facts: Facts, turned_away: int) -> None:
    console.print(
        f"\n[bold]Waits[/bold]  busy answered 429 with Retry-After {turned_away} times; no caller saw one",
        soft_wrap=True,
    )
    grid = Grid("alias asked for", "median wait", "longest wait", box=None, pad_edge=False)
    for alias, median, longest in facts.waits:
        grid.add_row(str(alias), f"{median:.1f} s", f"{longest:.1f} s")
    console.print(grid)


def _spend(console: Console, facts: Facts) -> None:
    console.print("\n[bold]Spend[/bold]  from ClickHouse, tokens in and out, at made-up prices")
    labels = (Column(name, no_wrap=True) for name in ("tenant", "alias", "model"))
    counts = (Column(name, justify="right", no_wrap=True) for name in ("reqs", "tries", "in", "out", "USD", "unpriced"))
    grid = Grid(*labels, *counts, box=None, padding=(0, 1, 0, 0))
    for tenant, alias, model, requests, tries, tokens_in, tokens_out, cost, unpriced in facts.spend:
        usd = "–" if cost is None else f"{Decimal(cost):.6f}"
        numbers = (str(count) for count in (requests, tries, tokens_in, tokens_out))
        grid.add_row(tenant, alias, model or "–", *numbers, usd, str(unpriced))
    console.print(grid)
    console.print("unpriced: tries that broke off; nobody knows whether their provider charged them", style="dim")
