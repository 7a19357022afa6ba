"""What every command shares."""

import asyncio
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from broker.cli.common import config_option, json_option, load_settings, run_async
from broker.errors import ConfigError


@click.command()
@config_option
@json_option
def probe(config: Path | None, *, as_json: bool) -> None:
    click.echo(f"{config} {as_json}")


def test_the_file_is_an_option_or_a_variable_and_the_option_goes_first() -> None:
    runner = CliRunner()
    outputs = [
        runner.invoke(probe, arguments, env={"BROKER_CONFIG": variable}).output.strip()
        for arguments, variable in ((["--config", "a.yaml"], "b.yaml"), (["--json"], "b.yaml"), ([], ""))
    ]
    assert outputs == ["a.yaml False", "b.yaml True", "None False"]


def test_a_file_that_does_not_exist_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load_settings(tmp_path / "absent.yaml")


def test_a_coroutine_runs_on_uvloop_to_its_result() -> None:
    async def loop_module() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert run_async(loop_module()) == "uvloop"
