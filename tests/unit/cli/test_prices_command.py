"""`broker prices show` and `broker prices diff`: what they print, keep and end with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from broker.cli import prices
from broker.config import Alias, Deployment, Prices, Settings
from broker.ledger.price_list import listed, versions
from broker.ledger.prices import PriceTable
from broker.ledger.published import PACKAGE
from broker.ports import Table

NOW = 1_795_000_000_000


def deployment(model: str = "gpt-4o", name: str = "chat/0", **more: Any) -> Deployment:
    return Deployment(name=name, alias="chat", provider="openai", model=model, **more)


OWN = Prices.model_validate({"input_cost_per_token": "1e-6", "output_cost_per_token": "2e-6"})


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings the command loads: `deployments` of the alias `chat`, and `overrides`."""
    kept: dict[str, Any] = {"deployments": (), "overrides": ()}

    def load(_: Path | None) -> Settings:
        served: tuple[Deployment, ...] = kept["deployments"]
        aliases = {"chat": Alias(name="chat", deployments=served)} if served else {}
        return Settings(aliases=aliases, price_overrides=kept["overrides"])

    monkeypatch.setattr(prices, "load_settings", load)
    return kept


def run(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
    return CliRunner().invoke(prices.command, list(arguments), env={"COLUMNS": "160", **(env or {})})


def shown(*arguments: str) -> list[dict[str, Any]]:
    result = run("show", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["prices"]
    return found


@pytest.mark.usefixtures("configured")
def test_every_rate_of_a_model_is_shown_with_unit_tier_source_and_version() -> None:
    found = {entry["tier"]: entry for entry in shown("openai/gpt-5")}
    assert list(found) == ["standard", "batch", "flex", "priority", "fast"]
    assert found["flex"]["lines"][0] == {"rate": "input", "usd": "0.625", "unit": "1M tokens", "above": 0}
    assert found["standard"]["source"] == f"{PACKAGE}, gpt-5"
    assert found["standard"]["version"].startswith(PACKAGE)


@pytest.mark.usefixtures("configured")
def test_a_step_is_shown_by_the_tokens_it_begins_above() -> None:
    (entry,) = shown("gemini-2.5-pro", "--provider", "gemini", "--tier", "standard")
    inputs = [(line["usd"], line["above"]) for line in entry["lines"] if line["rate"] == "input"]
    assert inputs == [("1.25", 0), ("2.5", 200_000)]


@pytest.mark.usefixtures("configured")
def test_an_override_is_shown_with_its_source() -> None:
    (entry,) = shown("rerank-v3.5")
    assert entry["source"] == "override, https://cohere.com/pricing"
    assert {line["rate"]: line["usd"] for line in entry["lines"]}["search_unit"] == "2"


@pytest.mark.usefixtures("configured")
def test_a_region_is_shown_at_its_own_price() -> None:
    (entry,) = shown("vertex_ai/gemini-3.6-flash", "--region", "europe-west1", "--tier", "standard")
    assert entry["lines"][0]["usd"] == "0.825"


@pytest.mark.usefixtures("configured")
def test_the_prices_of_a_day_are_those_of_that_day() -> None:
    days = [shown("deepseek/deepseek-v4-flash", "--at", day)[0]["lines"] for day in ("2026-08-12", "2026-08-18T10:00")]
    assert days[0] != days[1]


def test_an_alias_of_the_configuration_is_shown_deployment_by_deployment(configured: dict[str, Any]) -> None:
    configured["deployments"] = (deployment(), deployment("ours", "chat/1", prices=OWN))
    found = shown("chat", "--tier", "standard")
    assert [(entry["name"], entry["source"]) for entry in found] == [
        ("chat/0", f"{PACKAGE}, gpt-4o"),
        ("chat/1", "the deployment's own prices"),
    ]
    assert shown("chat/1")[0]["version"].startswith("config+")


def test_a_deployment_without_a_known_price_is_shown_as_such(configured: dict[str, Any]) -> None:
    configured["deployments"] = (deployment(api_base="http://127.0.0.1:1/v1"),)
    result = run("show", "chat")
    assert result.exit_code == 0
    assert "no known price" in result.output
    assert "nobody publishes prices of this address" in result.output


@pytest.mark.usefixtures("configured")
def test_the_table_says_what_a_rate_is_for() -> None:
    result = run("show", "openai/tts-1")
    assert result.exit_code == 0, result.output
    assert "1M characters" in result.output
    assert "15" in result.output


@pytest.mark.usefixtures("configured")
def test_a_model_that_nobody_knows_ends_with_1_and_the_nearest_names() -> None:
    result = run("show", "gpt-4oo")
    assert result.exit_code == 1
    assert "no known price of gpt-4oo" in result.stderr
    assert "gpt-4o" in result.stderr.partition("names like it: ")[2].split(", ")


@pytest.mark.usefixtures("configured")
def test_a_tier_that_a_model_does_not_have_ends_with_1() -> None:
    result = run("show", "openai/gpt-4o", "--tier", "ultrafast")
    assert (result.exit_code, "in tier ultrafast" in result.stderr) == (1, True)


def test_the_first_diff_keeps_the_prices_and_the_next_says_that_nothing_differs(
    configured: dict[str, Any], tmp_path: Path
) -> None:
    configured["deployments"] = (deployment(),)
    kept = tmp_path / "state" / "prices.json"
    first = run("diff", "--snapshot", str(kept))
    assert (first.exit_code, "nothing to compare with yet" in " ".join(first.output.split())) == (0, True)
    assert json.loads(kept.read_text())["prices"]["chat/0"]["standard"]["rates"]["input"] == "2.5 per 1M tokens"
    again = run("diff", "--snapshot", str(kept))
    assert (again.exit_code, "No price of 1 models differs" in again.output) == (0, True)


def test_a_changed_price_is_told_until_it_is_accepted(configured: dict[str, Any], tmp_path: Path) -> None:
    configured["deployments"] = (deployment(),)
    kept = str(tmp_path / "prices.json")
    run("diff", "--snapshot", kept)
    dearer = {"provider": "openai", "models": ["gpt-4o"], "rates": {"input_mtok": "9", "output_mtok": "10"}}
    configured["overrides"] = (dearer,)
    told = run("diff", "--snapshot", kept, "--json")
    assert told.exit_code == 1
    assert {
        "name": "chat/0",
        "tier": "standard",
        "rate": "input",
        "before": "2.5 per 1M tokens",
        "after": "9 per 1M tokens",
    } in json.loads(told.stdout)["changes"]
    shown_again = run("diff", "--snapshot", kept)
    assert (shown_again.exit_code, "9 per 1M tokens" in shown_again.output) == (1, True)
    assert run("diff", "--snapshot", kept, "--accept").exit_code == 0
    assert run("diff", "--snapshot", kept).exit_code == 0


def test_a_rate_that_is_gone_is_unknown_now(configured: dict[str, Any], tmp_path: Path) -> None:
    configured["deployments"] = (deployment(),)
    kept = str(tmp_path / "prices.json")
    run("diff", "--snapshot", kept)
    configured["overrides"] = ({"provider": "openai", "models": ["gpt-4o"], "rates": "unpriced"},)
    changes = json.loads(run("diff", "--snapshot", kept, "--json").stdout)["changes"]
    assert {change["after"] for change in changes if change["tier"] == "standard"} == {""}


NO_SNAPSHOTS = ["", "{", "[]", '{"prices": 1}', '{"prices": {}}']
NO_SNAPSHOTS += [f'{{"package": "p", "prices": {each}}}' for each in ('{"a": 1}', '{"a": {"standard": [1]}}')]
NO_SNAPSHOTS += ['{"package": "p", "prices": {"a": {"standard": {"rates": {"input": 5}}}}}']


@pytest.mark.parametrize("text", NO_SNAPSHOTS)
def test_a_file_that_is_no_snapshot_is_named(text: str, configured: dict[str, Any], tmp_path: Path) -> None:
    configured["deployments"] = (deployment(),)
    kept = tmp_path / "prices.json"
    kept.write_text(text)
    result = run("diff", "--snapshot", str(kept))
    assert (result.exit_code, "prices.json" in result.stderr) == (2, True)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What ClickHouse answers, in `rows`."""
    kept: dict[str, Any] = {"rows": []}

    async def ask(settings: Settings, since: float) -> Table:
        kept.update(settings=settings, since=since)
        return Table(("deployment", "model", "version", "answers"), kept["rows"])

    monkeypatch.setattr(prices, "_recorded", ask)
    return kept


def test_models_whose_recorded_version_is_not_the_current_one_are_listed(
    configured: dict[str, Any], recorded: dict[str, Any]
) -> None:
    served = deployment()
    configured["deployments"] = (served,)
    table = PriceTable.compile([served], (), NOW)
    flex = table.sheet("chat/0", "gpt-4o", "priority", NOW).version
    recorded["rows"] = [("chat/0", "gpt-4o", "genai-prices-0.0.1+abc", 7), ("gone/0", "gpt-4o", "x", 1)]
    told = run("diff", "--ledger", "--json")
    assert told.exit_code == 1
    assert json.loads(told.stdout) == [
        {
            "deployment": "chat/0",
            "model": "gpt-4o",
            "recorded": "genai-prices-0.0.1+abc",
            "current": table.sheet("chat/0", "gpt-4o", "", NOW).version,
            "answers": 7,
        }
    ]
    assert "genai-prices-0.0.1+abc" in run("diff", "--ledger").output
    recorded["rows"] = [("chat/0", "gpt-4o", flex, 7)]
    same = run("diff", "--ledger")
    assert (same.exit_code, "still the current one" in same.output) == (0, True)


def test_the_ledger_has_nothing_to_accept(configured: dict[str, Any], recorded: dict[str, Any]) -> None:
    del configured, recorded
    assert run("diff", "--ledger", "--accept").exit_code == 2


def test_a_model_has_a_version_for_every_tier_and_place() -> None:
    (served,) = listed("anthropic/claude-opus-5", None, None)
    table = PriceTable.compile([served], (), NOW)
    assert table.sheet(served.name, served.model, "", NOW, "us").version in versions(table, served, served.model, NOW)


def test_a_name_alone_finds_every_provider_that_lists_it() -> None:
    assert "openai/gpt-4o" in [each.name for each in listed("gpt-4o", None, None)]
    assert [each.name for each in listed("rerank-2.5", None, None)] == ["voyageai/rerank-2.5"]
