import json
import os
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from broker.config import Redis, Settings
from broker.embedded import runfile
from broker.embedded.part import PartError


def test_a_second_stack_in_one_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    with runfile.Lock(tmp_path), pytest.raises(PartError, match=rf"^a stack already runs .*\(process {os.getpid()}, "):
        runfile.Lock(tmp_path).acquire()


def test_a_lock_can_be_taken_again_after_its_release(tmp_path: Path) -> None:
    with runfile.Lock(tmp_path):
        pass

    with runfile.Lock(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_running_stack_is_found_from_its_folder_and_below(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    folder = tmp_path / ".broker"
    with runfile.Lock(folder):
        runfile.write(folder, {"kafka": "127.0.0.1:4001"})

        assert runfile.discover(below) == {"kafka": "127.0.0.1:4001"}

        runfile.remove(folder)
        assert runfile.discover(below) is None


@pytest.mark.parametrize("text", ['{"kafka": "127.0.0.1:4001"}', "{", "[]"])
def test_the_file_of_a_stack_that_was_killed_is_not_believed(tmp_path: Path, text: str) -> None:
    folder = tmp_path / ".broker"
    folder.mkdir()
    (folder / "lock").write_text("1")
    (folder / "run.json").write_text(text)

    assert runfile.discover(tmp_path) is None


def test_the_signing_key_is_drawn_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    key = runfile.signing_key(tmp_path)

    assert runfile.signing_key(tmp_path) == key
    assert len(key) == 64
    assert stat.S_IMODE((tmp_path / "signing-key").stat().st_mode) == 0o600


def test_addresses_fill_in_only_what_the_configuration_leaves_open() -> None:
    settings = Settings(redis=Redis(url=SecretStr("redis://real:6379/0")))
    run = {
        "kafka": "127.0.0.1:4001",
        "redis": "redis://127.0.0.1:4002/0",
        "clickhouse": "clickhouse://127.0.0.1:4004/b",
    }

    filled = runfile.with_addresses(settings, run)

    assert filled.kafka.bootstrap_servers == "127.0.0.1:4001"
    assert filled.redis.url == SecretStr("redis://real:6379/0")
    assert filled.clickhouse.dsn == SecretStr("clickhouse://127.0.0.1:4004/b")


def test_commands_beside_a_stack_sign_with_its_key(tmp_path: Path) -> None:
    key = runfile.signing_key(tmp_path)
    run = {"signing_key_file": str(tmp_path / "signing-key")}

    assert runfile.with_run(Settings(), run).signing_key == SecretStr(key)
    assert runfile.with_run(Settings(signing_key=SecretStr("own")), run).signing_key == SecretStr("own")
    assert runfile.with_run(Settings(), {"signing_key_file": str(tmp_path / "absent")}).signing_key is None


def test_the_run_file_is_plain_json(tmp_path: Path) -> None:
    runfile.write(tmp_path, {"config": None})

    assert json.loads((tmp_path / "run.json").read_text()) == {"config": None}
