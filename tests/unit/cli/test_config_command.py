"""`broker config check` and `broker config show`."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from broker.cli.config import command

OWN = Path(__file__).parents[1] / "config" / "files" / "own.yaml"
ENVIRON = {
    "KAFKA_PASSWORD": "kp",
    "REDIS_URL": "redis://:rp@redis:6379/1",
    "TEAM_KEY": "sk-team",
    "SIGNING": "sign",
    "BROKER_CONFIG": "",
}


def run(*arguments: str, environ: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(command, [*arguments], env=ENVIRON if environ is None else environ)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text("modle_list: []\nkafka: {replication_factor: 0}\n", encoding="utf-8")
    return str(path)


def test_check_tells_aliases_deployments_and_pools() -> None:
    result = run("check", str(OWN))
    assert result.exit_code == 0
    assert result.output.startswith("ok: 2 aliases, 2 deployments, 2 pools, 2 keys (configuration ")
    assert "  slow: openai/slow; then fast\n" in result.output
    assert "requests without a key: refused\n" in result.output


def test_check_as_json_is_one_object() -> None:
    summary = json.loads(run("check", str(OWN), "--json").output)
    assert (summary["ok"], summary["deployments"], list(summary["pools"])) == (True, 2, ["quick", "batch"])
    assert summary["aliases"] == {"fast": ["fast/0"], "slow": ["slow/0"]}


def test_the_file_may_be_given_as_option_or_variable() -> None:
    for arguments, environ in ((["--config", str(OWN)], ENVIRON), ([], {**ENVIRON, "BROKER_CONFIG": str(OWN)})):
        assert run("check", *arguments, environ=environ).output.startswith("ok: 2 aliases")


def test_check_names_every_error_on_a_line_of_its_own_and_exits_with_2(bad: str) -> None:
    result = run("check", bad)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: modle_list: unknown key; the nearest known one is model_list",
        "error: kafka.replication_factor: Input should be greater than or equal to 1; it is a number",
    ]
    assert result.stdout == ""


def test_check_as_json_lists_every_error(bad: str) -> None:
    result = run("check", bad, "--json")
    assert result.exit_code == 2
    assert [error.split(":")[0] for error in json.loads(result.stdout)["errors"]] == [
        "modle_list",
        "kafka.replication_factor",
    ]


def test_check_tells_a_price_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("prices: [{provider: openai, models: [m], rates: {input_mtok: dear}}]", encoding="utf-8")
    result = run("check", str(path))
    assert (result.exit_code, "prices[0]" in result.stderr) == (2, True)


def test_check_lists_the_keys_that_are_not_acted_on(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("litellm_settings: {callbacks: [otel]}", encoding="utf-8")
    assert "not acted on yet:\n  litellm_settings.callbacks\n" in run("check", str(path)).output


def test_check_tells_a_deployment_whose_provider_is_not_spoken_and_is_content(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("model_list: [{model_name: a, params: {model: sagemaker/m}}]", encoding="utf-8")
    result = run("check", str(path))
    assert (result.exit_code, "cannot be called:\n  deployment a/0: provider sagemaker" in result.output) == (0, True)


def test_show_prints_yaml_with_secrets_masked() -> None:
    result = run("show", str(OWN))
    shown = yaml.safe_load(result.output)
    assert shown["redis"]["url"] == "redis://:***@redis:6379/1"
    assert shown["clickhouse"]["dsn"] == "clickhouse://ledger:***@clickhouse:8123/llm"
    assert shown["kafka"]["sasl_password"] == "***"
    assert shown["keys"][0]["hash"] == "***"
    assert [secret for secret in ("kp", "rp@", "sk-team", "sign\n", "pw@") if secret in result.output] == []


def test_show_as_json_says_the_same() -> None:
    assert json.loads(run("show", str(OWN), "--json").output) == yaml.safe_load(run("show", str(OWN)).output)


def test_show_without_a_file_shows_the_defaults() -> None:
    assert yaml.safe_load(run("show").output)["pools"]["default"]["in_flight"] == 2000
