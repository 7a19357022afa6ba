"""`broker providers`: which providers there are, where they are called, and what they do differently."""

import difflib
from pathlib import Path
from typing import Any

import click
import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.cli.common import config_option, json_option, load_settings
from broker.config import ProviderRow
from broker.config.known import PROVIDER_VARIABLES
from broker.ledger.regions import PACKAGE_NAMES


@click.command()
@click.argument("names", nargs=-1)
@config_option
@json_option
def command(names: tuple[str, ...], config: Path | None, *, as_json: bool) -> None:
    """List the providers that `provider/model` may name, or tell all that is known of NAMES.

    Those of the configuration's own `providers` stand beside those of the table.
    """
    rows = _rows(load_settings(config).providers)
    unknown = [name for name in names if name not in rows]
    if unknown:
        near = difflib.get_close_matches(unknown[0], rows, n=1)
        hint = f"; the nearest one is {near[0]}" if near else ""
        raise click.BadParameter(f"no provider is named {unknown[0]!r}{hint}", param_hint="NAMES")
    chosen = {name: rows[name] for name in names} if names else rows
    if as_json:
        click.echo(orjson.dumps(chosen, option=orjson.OPT_INDENT_2))
    elif names:
        for name, row in chosen.items():
            click.echo(name)
            for field, value in row.items():
                if value not in (None, "", [], {}):
                    click.echo(f"  {field.replace('_', ' '):<12} {_told(value)}")
    else:
        _print(chosen)


def _told(value: Any) -> str:  # noqa: ANN401 - any value of a row
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} as {other}" for name, other in value.items())
    return str(value)


def _rows(own: dict[str, ProviderRow]) -> dict[str, dict[str, Any]]:
    from workers.providers.catalog import of_configuration  # noqa: PLC0415 - the broker imports workers in commands
    from workers.providers.table import PROVIDERS  # noqa: PLC0415 - likewise

    found = {}
    for name, row in sorted({**PROVIDERS, **{name: of_configuration(each) for name, each in own.items()}}.items()):
        variables = PROVIDER_VARIABLES.get(name) if name not in own else None
        found[name] = {
            "base_url": row.base_url,
            "dialect": row.dialect,
            "key_in": row.auth,
            "key_from": list(variables.key) if variables else [],
            "refuses": sorted(row.lacks),
            "calls": dict(row.renames),
            "some_models": {each.models: ", ".join(sorted(each.lacks)) for each in row.quirks if each.lacks},
            "prices_as": own[name].prices_as if name in own else PACKAGE_NAMES.get(name, name),
            "source": row.source,
        }
    return found


def _print(rows: dict[str, dict[str, Any]]) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("provider", "dialect", "address"):
        table.add_column(heading, overflow="fold")
    for name, row in rows.items():
        table.add_row(name, row["dialect"], Text(row["base_url"] or "yours: api_base"))
    Console().print(table)
