"""Commands whose servers are not there, or are something else: one line, in time, and the right exit code."""

import importlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from broker.adapters import kafka_options, redis_client
from broker.cli.root import main
from broker.embedded.probe import free_port
from broker.errors import ConfigError, Unavailable

ASK = '{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "fast", "messages": []}}'


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield server.getsockname()[1]


def configuration(folder: Path, port: int) -> Path:
    file = folder / "broker.yaml"
    file.write_text(
        f"""
        model_list: [{{model_name: fast, params: {{model: openai/x, api_base: "http://127.0.0.1:{port}/v1"}}}}]
        general_settings: {{signing_key: s}}
        kafka: {{bootstrap_servers: "127.0.0.1:{port}"}}
        redis: {{url: "redis://:redis-password@127.0.0.1:{port}/0"}}
        clickhouse: {{dsn: "clickhouse://me:clickhouse-password@127.0.0.1:{port}/x"}}
        """
    )
    return file


@pytest.mark.parametrize(
    "arguments",
    [
        ["cancel", "a"],
        ["dead", "list"],
        ["dead", "replay", "a", "--yes"],
        ["relay", "--port", "0"],
        ["result", "a"],
        ["submit", "in.jsonl", "-o", "out.jsonl"],
        ["topics", "plan"],
        ["topics", "apply"],
        ["worker", "--port", "0"],
    ],
    ids=" ".join,
)
def test_a_server_that_never_answers_is_told_in_time(
    tmp_path: Path, mute_port: int, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kafka_options, "CONNECT_LIMIT_S", 0.3)
    monkeypatch.setattr(redis_client, "START_LIMIT_S", 0.3)
    (tmp_path / "in.jsonl").write_text(ASK)
    command: click.Command = importlib.import_module(f"broker.cli.{arguments[0]}").command
    arguments = [*arguments[1:], "--config", str(configuration(tmp_path, mute_port))]
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, Unavailable)
    assert f"127.0.0.1:{mute_port}" in str(result.exception)
    assert "redis-password" not in str(result.exception) + result.output


def test_a_refused_connection_is_one_line_without_what_the_client_library_logs(tmp_path: Path) -> None:
    config = configuration(tmp_path, free_port())
    run = subprocess.run(
        [sys.executable, "-m", "broker", "topics", "plan", "--config", str(config)],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (1, "")
    assert [line.partition(" at ")[0] for line in run.stderr.splitlines()] == ["error: Kafka"]


@pytest.mark.parametrize("arguments", [["sink", "--port", "0"], ["spend"]], ids=" ".join)
def test_clickhouse_that_is_away_is_one_line(tmp_path: Path, arguments: list[str]) -> None:
    port = free_port()
    config = configuration(tmp_path, port)
    run = subprocess.run(
        [sys.executable, "-m", "broker", *arguments, "--config", str(config)],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == f"error: ClickHouse at http://127.0.0.1:{port}: connection refused\n"


def test_a_replay_that_can_ask_nobody_says_what_to_add(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "broker", "dead", "replay", "--all", "--config", str(configuration(tmp_path, 1))],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "error: nothing is sent without a confirmation; add --yes (or --dry-run to look)\n"


@pytest.mark.parametrize(("wrong", "nearest"), [("submitt", "the nearest one is submit"), ("zzz", "no such command")])
def test_a_wrong_command_is_told_the_nearest_one(wrong: str, nearest: str) -> None:
    result = CliRunner().invoke(main, [wrong])
    assert result.exit_code == 2
    assert nearest in result.output


def test_output_that_a_full_disk_does_not_take_is_one_line() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("only Linux has a disk that is always full")
    with full.open("w") as out:
        run = subprocess.run(
            [sys.executable, "-m", "broker", "asyncapi"],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (run.returncode, run.stderr) == (1, "error: the output cannot be written: No space left on device\n")


def test_ctrl_c_is_one_line_and_130(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        config = configuration(tmp_path, server.getsockname()[1])
        run = subprocess.Popen(
            [sys.executable, "-m", "broker", "result", "a", "--config", str(config)],
            stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            # A shell's background jobs ignore SIGINT, and their children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads
        )  # fmt: skip
        connection, _ = server.accept()
        with connection:
            run.send_signal(signal.SIGINT)
            _, errors = run.communicate(timeout=30)
    assert (run.returncode, errors.strip()) == (130, "interrupted")


@pytest.mark.parametrize(
    ("command", "part"),
    [("worker", "Kafka"), ("relay", "Kafka"), ("result a", "Redis"), ("spend", "ClickHouse"), ("topics plan", "Kafka")],
)
def test_a_part_that_is_named_nowhere_is_told_with_what_starts_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare.yaml").write_text("model_list: [{model_name: fast, params: {model: openai/x}}]")
    result = CliRunner().invoke(main, [*command.split(), "--config", "bare.yaml"])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(f"no {part}: start `broker up` in this folder, or name ")
