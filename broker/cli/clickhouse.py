"""`broker clickhouse migrate`: make or change the ledger's tables."""

from pathlib import Path

import click

from broker.adapters.clickhouse import ClickHouseLedger
from broker.cli.common import config_option, load_settings, run_async
from broker.config import Settings


@click.group()
def command() -> None:
    """Look after the ledger's tables in ClickHouse."""


@command.command()
@config_option
def migrate(config: Path | None) -> None:
    """Apply the migrations that are not applied yet, and the configured time to live.

    Running it again changes nothing.
    """
    applied, address = run_async(_migrate(load_settings(config)))
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo(f"nothing to apply: the tables at {address} are up to date")


async def _migrate(settings: Settings) -> tuple[list[str], str]:
    ledger = ClickHouseLedger(settings.clickhouse)
    await ledger.start()
    try:
        return list(await ledger.migrate()), ledger.address
    finally:
        await ledger.stop()
