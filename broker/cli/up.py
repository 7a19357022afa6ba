"""`broker up`: everything on this machine, kept running until Ctrl-C."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from broker.cli.common import config_option, json_option, run_async
from broker.cli.prepare import prepare
from broker.config import Settings, load
from broker.embedded.model_part import MODEL_NAME
from broker.embedded.part import HOST
from broker.embedded.runfile import FOLDER, Lock
from broker.embedded.stack import PORTS, Plan, Stack

DEFAULT_CONFIG: Final = """\
# Written by `broker up` because no configuration was given. Copy it, change it, and start with --config FILE.
model_list:
  - model_name: local
    litellm_params:
      model: openai/{model}
      api_base: http://{host}:{port}/v1
      api_key: none
"""

INTERRUPTED: Final = 130


@click.command()
@config_option
@json_option
@click.option(
    "--port-base",
    type=click.IntRange(1, 65_000),
    default=None,
    help="First port (default: server.port_base, 4000): health and metrics; then Kafka, Redis, model, ClickHouse.",
)
@click.option("--no-model", is_flag=True, help="Start no local model.")
def command(config: Path | None, as_json: bool, port_base: int | None, no_model: bool) -> None:
    """Start everything on this machine and keep it running until Ctrl-C.

    Servers that the configuration names are used; the others are started here and keep their data in .broker/.
    """
    folder = Path.cwd() / FOLDER
    settings = load(config)
    base = port_base or settings.server.port_base
    if config is None and not no_model:
        config = write_default_config(folder, base)
        settings = load(config)
    plan = Plan(settings=settings, config=config, folder=folder, port_base=base, with_model=not no_model)
    sys.exit(run_async(_run(plan, JsonReport() if as_json else TextReport())))


def write_default_config(folder: Path, port_base: int) -> Path:
    """Write a configuration with the alias `local` on the embedded model, and return its path."""
    path = folder / "config.yaml"
    text = DEFAULT_CONFIG.format(model=MODEL_NAME, host=HOST, port=port_base + PORTS["model"])
    with Lock(folder):  # the file of a stack that runs stays as it is
        path.write_text(text, encoding="utf-8")
    return path


class JsonReport:
    """One JSON object a line on stdout, its `event` first."""

    def tell(self, event: str, fields: dict[str, Any]) -> None:
        """Print one event."""
        print(json.dumps({"event": event, **fields}), flush=True)

    def ready(self, stack: Stack) -> None:
        """Name every address and process."""
        self.tell("ready", {"addresses": stack.addresses, "pids": stack.pids()})


class TextReport:
    """Lines and a page for people."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)

    def tell(self, event: str, fields: dict[str, Any]) -> None:
        """Print one line."""
        name = fields.get("name", "")
        rest = {key: value for key, value in fields.items() if key not in ("name", "pid")}
        details = ", ".join(f"{key} {value}" for key, value in rest.items())
        self._console.print(escape(f"{event:<8} {name:<18} {details}".rstrip()), soft_wrap=True)

    def ready(self, stack: Stack) -> None:
        """Print what listens where, and how to use it."""
        console, addresses = self._console, stack.addresses
        table = Table("what", "where", title="ready", title_justify="left", box=None, pad_edge=False)
        for name, address in listening(stack).items():
            table.add_row(name, address)
        console.print()
        console.print(table)
        for title, text in examples(stack.settings, addresses).items():
            console.print(f"\n[bold]{title}[/bold]")
            console.print(escape(text), soft_wrap=True)
        console.print("\nCtrl-C stops everything; the data stays in .broker/", soft_wrap=True)


def listening(stack: Stack) -> dict[str, str]:
    """Return everything that is in use and where it is, real servers included, credentials left out."""
    settings = stack.settings
    real: dict[str, str] = {}
    if "kafka" not in stack.addresses:
        real["kafka"] = f"{settings.kafka.bootstrap_servers} (configured)"
    for name, secret in (("redis", settings.redis.url), ("clickhouse", settings.clickhouse.dsn)):
        if name not in stack.addresses and secret is not None:
            real[name] = f"{secret.get_secret_value().rsplit('@', 1)[-1]} (configured)"
    return {**stack.addresses, **real}


def examples(settings: Settings, addresses: dict[str, str]) -> dict[str, str]:
    """Return three things to paste into a terminal: a Python program, `kcat`, and questions about spend."""
    alias = next(iter(settings.aliases), None)
    if alias is None:
        return {"No alias": "The configuration has no model_list, so no worker runs: start with --config FILE."}
    kafka = settings.kafka.bootstrap_servers or ""
    topics = settings.kafka.topic_prefix
    python = f"""python - <<'END'
import asyncio
from broker.client import BrokerClient

async def main():
    async with BrokerClient("{kafka}") as client:
        answer = await client.chat("{alias}", "Name three colours.", max_tokens=32)
        print(answer.text)

asyncio.run(main())
END"""
    body = (
        f'{{"model": "{alias}", "messages": [{{"role": "user", "content": "Name three colours."}}], "max_tokens": 32}}'
    )
    kcat = f"""echo '{body}' | \\
  kcat -P -b {kafka} -t {topics}requests.{alias} -H request-id=hello-1 -H reply-to={topics}replies
kcat -C -b {kafka} -t {topics}replies -o beginning -e -f '%k %s\\n'"""
    spend = "broker spend --by tenant,alias"
    if "clickhouse" in addresses:
        base, database = addresses["clickhouse"].replace("clickhouse://", "http://").rsplit("/", 1)
        query = "SELECT alias, count(), sum(cost) FROM attempts FINAL GROUP BY alias FORMAT PrettyCompact"
        spend += f"\ncurl -s '{base}/?database={database}' --data-binary '{query}'"
    return {"Python": python, "kcat": kcat, "Spend": spend}


@contextlib.contextmanager
def signals(stack: Stack, stop: Callable[[], object], main: "asyncio.Task[Any]") -> Iterator[None]:
    """First SIGINT or SIGTERM: cancel a start that is under way, call `stop` later on. Second: end programs at once."""
    loop = asyncio.get_running_loop()
    count = 0

    def heard() -> None:
        nonlocal count
        count += 1
        if count > 1:
            stack.kill()
        elif stack.started:
            stop()
        else:
            main.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, heard)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _run(plan: Plan, report: JsonReport | TextReport) -> int:
    stack = Stack(plan, prepare=prepare, tell=report.tell)
    stop = asyncio.Event()
    main = asyncio.current_task()
    if main is None:
        raise RuntimeError("not inside a task")
    with signals(stack, stop.set, main):
        try:
            async with stack:
                for key in plan.settings.unacted:
                    report.tell("unacted", {"name": key, "why": "understood, but not acted on yet"})
                report.ready(stack)
                await stop.wait()
                report.tell("stopping", {})
        except asyncio.CancelledError:
            report.tell("stopped", {"why": "interrupted while starting"})
            return INTERRUPTED
    report.tell("stopped", {})
    return 0
