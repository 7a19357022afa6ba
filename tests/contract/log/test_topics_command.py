"""`broker topics` against a real log."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from broker.cli.root import main

pytestmark = pytest.mark.embedded


def write_config(folder: Path, prefix: str, bootstrap: str) -> str:
    model = {"model_name": "local", "litellm_params": {"model": "openai/x", "api_base": "http://127.0.0.1:1/v1"}}
    kafka = {"bootstrap_servers": bootstrap, "topic_prefix": prefix}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"model_list": [model], "kafka": kafka}))
    return str(path)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["topics", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


async def test_plan_tells_apply_makes_and_a_second_run_finds_nothing(
    tmp_path: Path, unique_prefix: str, kafka_bootstrap: str
) -> None:
    config = write_config(tmp_path, unique_prefix, kafka_bootstrap)
    planned = json.loads(await asyncio.to_thread(run, "plan", "--config", config, "--json"))
    assert {change["action"] for change in planned["changes"]} == {"create"}
    assert f"{unique_prefix}requests.local" in {change["topic"] for change in planned["changes"]}
    applied = json.loads(await asyncio.to_thread(run, "apply", "--config", config, "--json"))
    assert applied["changes"] == planned["changes"]
    assert "nothing to change" in await asyncio.to_thread(run, "apply", "--config", config)
    again = json.loads(await asyncio.to_thread(run, "plan", "--config", config, "--json"))
    assert again["changes"] == []
