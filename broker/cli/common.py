"""What every command shares: `--config`, `--json`, loading the settings, running a coroutine."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from broker.config import Settings, load
from broker.embedded.runfile import discover, with_run

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")


def config_option(command: Command) -> Command:
    """Give a command `--config FILE` (or `BROKER_CONFIG`); the parameter is `config: Path | None`."""
    option = click.option(
        "--config",
        envvar="BROKER_CONFIG",
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        metavar="FILE",
        help="Configuration file; BROKER_CONFIG names it too.",
    )
    return option(command)


def process_options(port: int) -> Callable[[Command], Command]:
    """Give a command that keeps running `--config`, `--instance`, `--host`, `--port` and `--log-level`.

    The parameters are `config: Path | None`, `instance: str | None`, `host: str | None`, `port: int`, `log_level: str`.
    """
    options = (
        config_option,
        click.option(
            "--instance",
            default=None,
            metavar="NAME",
            help="Name in the consumer group, unique among live members: after a restart its partitions come at once.",
        ),
        click.option("--host", default=None, help="Address of /health, /ready and /metrics; server.host if absent."),
        click.option(
            "--port",
            type=click.IntRange(0, 65_535),
            default=port,
            show_default=True,
            help="Port of /health, /ready and /metrics; of several processes each takes the next.",
        ),
        click.option(
            "--log-level",
            default="info",
            show_default=True,
            type=click.Choice(["debug", "info", "warning", "error"]),
            help="What is logged.",
        ),
    )

    def give(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return give


def json_option(command: Command) -> Command:
    """Give a command `--json`; the parameter is `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def load_settings(path: Path | None) -> Settings:
    """Load the configuration a command was given; raises `ConfigError`, which ends the command with exit code 2.

    Servers it does not name, and the signing key, are those of the stack that `broker up` keeps running in this
    folder; so is the configuration when none was given.
    """
    run = discover(Path.cwd()) or {}
    if path is None and run.get("config"):
        path = Path(run["config"])
    return with_run(load(path), run)


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on uvloop where it is installed, else on asyncio's own loop, and return its result."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - absent on Windows
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
