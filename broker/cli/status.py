"""`broker status`: what waits, what it will cost, how long it takes, and what holds it up."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click
import orjson
from rich.console import Console

from broker.adapters.kafka import KafkaReader
from broker.adapters.kafka_admin import KafkaAdmin
from broker.adapters.redis_limits import RedisLimitStore
from broker.cli.common import config_option, json_option, load_settings, run_async
from broker.cli.duration import Duration
from broker.cli.status_data import LogState, SharedState, Status, ask_log, ask_shared, assemble
from broker.cli.status_view import show
from broker.clock import Clock, SystemClock
from broker.config import Settings
from broker.errors import BrokerError, ConfigError, Unavailable
from broker.ports import LogAdmin, LogReader
from broker.ports.limits import LimitStore
from broker.topics import TopicNames


class Sources:
    """Where the command asks; tests hand in twins."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._settings = settings
        self.clock = clock or SystemClock()

    def log(self) -> tuple[LogAdmin, LogReader]:
        """Return clients of the log that have not started. Raises `ConfigError`."""
        return KafkaAdmin(self._settings.kafka), KafkaReader(self._settings.kafka)

    def shared(self) -> LimitStore:
        """Return a store of what workers share that has not started. Raises `ConfigError`."""
        return RedisLimitStore(self._settings.redis, TopicNames(self._settings.kafka.topic_prefix))


@click.command()
@config_option
@json_option
@click.option("--alias", default=None, help="Only this alias and its deployments.")
@click.option(
    "--watch", type=Duration(), default=None, metavar="SECONDS", help="Ask and print again every so often: 2, 10s, 1m."
)
def command(config: Path | None, as_json: bool, alias: str | None, watch: float | None) -> None:
    """Show what waits per alias and lane, and the state of deployments, workers and topics.

    Tokens, dollars and time are estimates: the backlog times what requests of that alias and lane took and cost of
    late, at the rate of the last 30 s; – is unknown. With --json, --watch prints one object a line. Exit 1 where a part
    could not be asked; the rest is shown all the same.
    """
    settings = load_settings(config)
    if alias is not None:
        alias = settings.alias_names.get(alias, alias)
        if alias not in settings.aliases:
            raise ConfigError(f"no alias is named {alias}; there are: {', '.join(sorted(settings.aliases)) or 'none'}")
    aliases = [alias] if alias is not None else sorted(settings.aliases)
    run_async(_run(settings, Sources(settings), aliases, as_json=as_json, watch=watch))


async def _run(
    settings: Settings, sources: Sources, aliases: Sequence[str], *, as_json: bool, watch: float | None
) -> None:
    console = Console()
    while True:
        status = await ask(settings, sources, aliases)
        if as_json:
            option = None if watch is not None else orjson.OPT_INDENT_2
            click.echo(orjson.dumps(status.as_json(), option=option))
        else:
            if watch is not None:
                console.clear()
            show(console, status)
        if watch is None:
            break
        await _pause(watch)
    if status.missing:
        raise BrokerError(f"not everything could be asked: {', '.join(status.missing)}")


async def _pause(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def ask(settings: Settings, sources: Sources, aliases: Sequence[str]) -> Status:
    """Ask every source; one that is away is named in `missing`."""
    missing: dict[str, str] = {}
    log, shared = await asyncio.gather(
        _ask_log(settings, sources, aliases, missing), _ask_shared(settings, sources, aliases, missing)
    )
    return assemble(settings, aliases, log=log, shared=shared, missing=missing, now_ms=sources.clock.now_ms())


async def _ask_log(
    settings: Settings, sources: Sources, aliases: Sequence[str], missing: dict[str, str]
) -> LogState | None:
    try:
        admin, reader = sources.log()
        try:
            await admin.start()
            await reader.start()
            return await ask_log(settings, admin, reader, aliases)
        finally:
            await admin.stop()
            await reader.stop()
    except (Unavailable, ConfigError) as error:
        missing["kafka"] = str(error)
        return None


async def _ask_shared(
    settings: Settings, sources: Sources, aliases: Sequence[str], missing: dict[str, str]
) -> SharedState | None:
    try:
        store = sources.shared()
        try:
            await store.start()
            return await ask_shared(settings, store, aliases)
        finally:
            await store.stop()
    except (Unavailable, ConfigError) as error:
        missing["redis"] = str(error)
        return None
