"""`broker doctor` on real parts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.cli.common import run_async
from broker.cli.prepare import prepare
from broker.config import load
from tests.upstream import Status, Upstream


@pytest.fixture
def config(tmp_path: Path, unique_prefix: str, kafka_bootstrap: str, redis_url: str, clickhouse_dsn: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(
        f"""
        model_list: [{{model_name: a, params: {{model: openai/m, api_base: "http://127.0.0.1:1/v1"}}}}]
        general_settings: {{signing_key: s}}
        kafka: {{bootstrap_servers: "{kafka_bootstrap}", topic_prefix: {unique_prefix}}}
        redis: {{url: "{redis_url}"}}
        clickhouse: {{dsn: "{clickhouse_dsn}"}}
        """,
        encoding="utf-8",
    )
    return path


def doctor(config: Path, *options: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit code, and part to state and what was found."""
    done = subprocess.run(
        [sys.executable, "-m", "broker", "doctor", "--json", "--config", str(config), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.stderr == ""
    return done.returncode, {check["part"]: (check["state"], check["found"]) for check in report["checks"]}


@pytest.mark.embedded
def test_a_prepared_stack_has_nothing_that_failed(config: Path) -> None:
    run_async(prepare(load(config, {})))
    code, found = doctor(config)
    assert {part: state for part, (state, _) in found.items()} == {
        "configuration": "ok",
        "kafka": "ok",
        "topics": "ok",
        "redis": "ok",
        "clock of redis": "ok",
        "clickhouse": "ok",
        "schema": "ok",
        "clock of clickhouse": "ok",
        "deployments": "note",
    }
    assert code == 0


@pytest.mark.embedded
def test_topics_that_were_not_applied_fail_with_exit_code_1(config: Path) -> None:
    code, found = doctor(config)
    assert found["topics"][0] == "failed"
    assert found["topics"][1].startswith("missing: ")
    assert code == 1


def test_each_deployment_is_called_once_when_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with Upstream() as upstream:
        upstream.script("bad", [Status(401)])
        path.write_text(
            f"""
            model_list:
              - {{model_name: good, params: {{model: openai/good, api_base: "{upstream.url}", api_key: k}}}}
              - {{model_name: bad, params: {{model: openai/bad, api_base: "{upstream.url}", api_key: k}}}}
            """,
            encoding="utf-8",
        )
        code, found = doctor(path, "--call")
        asked = sorted(call.model for call in upstream.calls)
    assert (found["call good/0"][0], found["call bad/0"][0], code) == ("ok", "failed", 1)
    assert asked == ["bad", "good"]
