"""`broker providers`: the table for a reader, one provider in full, the configuration's own among them."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from broker.cli import providers
from workers.providers.table import PROVIDERS


def run(*arguments: str) -> Result:
    return CliRunner().invoke(providers.command, [*arguments], env={"COLUMNS": "120"})


def test_every_provider_is_listed_with_its_address() -> None:
    printed = run().output
    assert "https://api.groq.com/openai/v1" in printed
    assert [name for name in PROVIDERS if name not in printed] == []


def test_one_provider_is_told_in_full() -> None:
    lines = [line.strip() for line in run("cerebras").output.splitlines()]
    assert "base url     https://api.cerebras.ai/v1" in lines
    assert "key from     CEREBRAS_API_KEY" in lines
    assert "refuses      frequency_penalty, logit_bias, parallel_tool_calls, presence_penalty, service_tier" in lines


def test_json_tells_what_some_models_refuse() -> None:
    told = json.loads(run("xai", "--json").output)
    assert list(told) == ["xai"]
    assert "stop" in next(iter(told["xai"]["some_models"].values()))


def test_rows_of_the_configuration_stand_beside_the_tables(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("providers: {acme: {base_url: 'https://api.acme.test/v1', lacks: [seed]}}")
    told = json.loads(run("acme", "--config", str(file), "--json").output)
    assert (told["acme"]["base_url"], told["acme"]["refuses"]) == ("https://api.acme.test/v1", ["seed"])


def test_a_wrong_name_is_told_with_the_nearest_one() -> None:
    result = run("anthropc")
    assert result.exit_code == 2
    assert "no provider is named 'anthropc'; the nearest one is anthropic" in result.output
