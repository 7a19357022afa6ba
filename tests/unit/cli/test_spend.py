"""`broker spend`: the query it makes and what it prints, over answers a ledger would give."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
from click.testing import CliRunner, Result

from broker.cli import spend
from broker.config import Settings
from broker.ledger.spend import DIMENSIONS, MEASURES, spend_sql
from broker.ports import Table

COLUMNS = ("tenant", *(name for name, _ in MEASURES))


def answer(*rows: Sequence[Any]) -> Table:
    return Table(COLUMNS, rows)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asked; `answer` in it is what it is told."""
    kept: dict[str, Any] = {}

    async def ask(settings: Settings, by: Sequence[str], since: float) -> Table:
        kept.update(settings=settings, by=by, since=since)
        found: Table = kept["answer"]
        return found

    monkeypatch.setattr(spend, "_ask", ask)
    monkeypatch.setattr(spend, "load_settings", lambda _: Settings())
    return kept


def run(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
    return CliRunner().invoke(spend.command, list(arguments), env={"COLUMNS": "160", **(env or {})})


ACME = ("acme", 10, 12, 12_000, 3_000, Decimal("1.234567890123"), Decimal("0.000000000001"), 11, 1)
ZETA = ("zeta", 1, 1, 5, 5, None, None, 0, 1)


def test_the_table_has_costs_bars_waste_and_what_is_unpriced(asked: dict[str, Any]) -> None:
    asked["answer"] = answer(ACME, ZETA)
    result = run("--by", "tenant")
    assert result.exit_code == 0, result.output
    acme, acme_bar = (line for line in result.output.splitlines() if "acme" in line)
    zeta, zeta_bar = (line for line in result.output.splitlines() if "zeta" in line)
    total = next(line for line in result.output.splitlines() if "total" in line)
    assert "12,000" in acme
    assert "1.23" in acme
    assert "█" * spend.BAR in acme_bar
    assert "0.000000000001" in acme
    assert "–" in zeta
    assert "█" not in zeta_bar
    assert "11" in total
    assert "2 of 13 attempts have no known price; they are in no sum of costs." in result.output


def test_json_keeps_every_digit_and_an_unknown_cost_is_null(asked: dict[str, Any]) -> None:
    asked["answer"] = answer(ACME, ZETA)
    rows = json.loads(run("--by", "tenant", "--json").stdout)
    assert [row["cost"] for row in rows] == ["1.234567890123", None]
    assert rows[0]["wasted"] == "0.000000000001"


def test_csv_has_a_header_and_an_unknown_cost_is_empty(asked: dict[str, Any]) -> None:
    asked["answer"] = answer(ACME, ZETA)
    lines = run("--by", "tenant", "--csv").stdout.splitlines()
    assert lines[0] == "tenant,requests,attempts,input_tokens,output_tokens,cost,wasted,priced,unpriced"
    assert lines[2] == "zeta,1,1,5,5,,,0,1"


def test_nothing_to_show_is_said(asked: dict[str, Any]) -> None:
    asked["answer"] = answer()
    assert "No attempts since" in run("--since", "2h").output


def test_dimensions_are_taken_in_order_and_once(asked: dict[str, Any]) -> None:
    asked["answer"] = answer()
    run("--by", "day, tenant,day")
    assert asked["by"] == ("day", "tenant")


def test_an_unknown_dimension_names_the_known_ones() -> None:
    result = run("--by", "tenant,colour")
    assert result.exit_code == 2
    assert "'colour' is none of tenant" in result.output


def test_two_forms_at_once_are_refused() -> None:
    assert run("--json", "--csv").exit_code == 2


def test_every_sum_stands_beside_the_count_it_could_price() -> None:
    sql = spend_sql(["tenant"])
    assert "sum(a.cost) AS cost" in sql
    assert "count(a.cost) AS priced" in sql
    assert "FINAL" in sql


@pytest.mark.parametrize(("by", "order"), [(["tenant"], "cost DESC"), (["day", "model"], "ORDER BY day, model")])
def test_days_are_in_order_and_everything_else_by_cost(by: list[str], order: str) -> None:
    assert order in spend_sql(by)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "–"),
        (Decimal(0), "0.00"),
        (Decimal("1234.567"), "1,234.57"),
        (Decimal("0.0123456"), "0.012346"),
        (Decimal("0.000000000250"), "0.00000000025"),
    ],
)
def test_money_is_shown_with_the_places_that_tell_something(amount: Decimal | None, text: str) -> None:
    assert spend._money(amount) == text  # noqa: SLF001 - what the table's cells hold


@pytest.mark.parametrize(
    ("amount", "length"), [(None, 0), (Decimal(0), 0), (Decimal("0.0001"), 1), (Decimal(50), 12), (Decimal(100), 24)]
)
def test_a_bar_is_as_long_as_the_amount_and_never_vanishes(amount: Decimal | None, length: int) -> None:
    assert len(spend.bar(amount, Decimal(100))) == length


def test_names_of_dimensions_are_columns() -> None:
    assert {"tenant", "alias", "model", "day"} <= set(DIMENSIONS)
