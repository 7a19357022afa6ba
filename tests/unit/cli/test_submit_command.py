"""`broker submit` and wrong use of it; the right use is proven on a real log."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli.submit import command
from broker.errors import ConfigError, Unavailable


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text("{}\n")
    (tmp_path / "broker.yaml").write_text("kafka: {bootstrap_servers: '127.0.0.1:1', request_timeout: 0.2}\n")
    return tmp_path


def submit(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["in.jsonl", "-o", "out.jsonl", "--config", "broker.yaml", *arguments])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--resume", "--force"], "give one of them"),
        (["--tag", "team"], "'team' is not of the form NAME=VALUE"),
        (["--deadline", "soon"], "not a duration"),
        (["--lane", "fast"], "'fast' is not one of"),
        (["--in-flight", "0"], "0 is not in the range"),
    ],
)
def test_wrong_use_exits_with_2(folder: Path, arguments: list[str], said: str) -> None:
    result = submit(*arguments)
    assert result.exit_code == 2, folder
    assert said in result.output


def test_a_file_that_is_not_there_exits_with_2(folder: Path) -> None:
    result = CliRunner().invoke(command, ["nowhere.jsonl", "-o", "out.jsonl"])
    assert (result.exit_code, list(folder.glob("out*"))) == (2, [])
    assert "'nowhere.jsonl' does not exist" in result.output


@pytest.mark.parametrize("name", ["out.jsonl", "out.errors.jsonl", "out.jsonl.run"])
def test_results_that_exist_are_refused_before_anything_is_asked(folder: Path, name: str) -> None:
    (folder / name).write_text("kept")
    result = submit()
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(f"{name} exists")
    assert "--resume, --force" in str(result.exception)
    assert (folder / name).read_text() == "kept"


def test_without_a_log_to_send_to_it_says_what_to_start(folder: Path) -> None:
    (folder / "broker.yaml").write_text("kafka: {}\n")
    result = submit()
    assert isinstance(result.exception, ConfigError)
    assert "broker up" in str(result.exception)


def test_a_log_that_does_not_answer_leaves_no_files(folder: Path) -> None:
    result = submit()
    assert isinstance(result.exception, Unavailable)
    assert sorted(path.name for path in folder.iterdir()) == ["broker.yaml", "in.jsonl"]
