"""The `broker` command: finds a sub-command's module only when it is called, so that `--help` stays quick."""

import difflib
import importlib
from typing import Final

import click

COMMANDS: Final = {
    "asyncapi": "print the AsyncAPI document of every topic and message",
    "cancel": "cancel a request, queued or running",
    "clickhouse": "the ledger's tables: migrate",
    "config": "check a configuration file, or show what it amounts to",
    "dead": "dead letters: list, show, replay",
    "demo": "the main job on this machine: 40 requests, answers, spend",
    "doctor": "check every configured part and say what to do",
    "prices": "show prices and their sources, or what changed in them",
    "providers": "the providers that provider/model may name, and what they do differently",
    "relay": "republish parked requests when they are due",
    "result": "read the stored answer of a request",
    "simulate": "serve the OpenAI, Anthropic and Gemini APIs with faults and limits on demand",
    "sink": "write usage events to ClickHouse",
    "spend": "what it cost, by tenant, alias, model or day",
    "status": "what waits, what it will cost and take, limits, workers",
    "submit": "send an OpenAI batch file and collect the answers",
    "topics": "plan or apply the topics in Kafka",
    "up": "start everything on this machine and keep it running",
    "worker": "serve requests of a pool",
}
"""Command to its line of help; `broker/cli/<command>.py` holds a click command named `command`."""


class LazyGroup(click.Group):
    """Imports `broker.cli.<name>` when that command is asked for, and suggests the nearest one for a wrong name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in order."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"broker.cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"broker.cli.{cmd_name}.command is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names; a wrong name ends in an error with the nearest one."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            nearest = difflib.get_close_matches(name, COMMANDS, n=1)
            ctx.fail(f"no such command: {name}" + (f"; the nearest one is {nearest[0]}" if nearest else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="queue-inference-broker", prog_name="broker")
def main() -> None:
    """Queue-native LLM inference broker: requests in Kafka topics, answers in reply topics, costs in ClickHouse."""
