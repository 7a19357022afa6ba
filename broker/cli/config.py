"""`broker config check`, `show`, `models`: whether a configuration can be used, what it and its models amount to."""

import json
import sys
from pathlib import Path
from typing import Any

import click
import yaml

from broker.cli.common import config_option, json_option, load_settings
from broker.config import Alias, Capabilities, Deployment, Settings
from broker.config.problems import ConfigProblems
from broker.config.views import masked
from broker.errors import ConfigError
from broker.ledger import overrides
from broker.routing.capabilities import ABILITIES, capabilities

EXIT_CONFIG = 2


@click.group(name="config")
def command() -> None:
    """Check a configuration file, or show what it amounts to."""


def _file(file: Path | None, config: Path | None) -> Path | None:
    return file if file is not None else config


@command.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@config_option
@json_option
def check(file: Path | None, config: Path | None, *, as_json: bool) -> None:
    """Say what FILE (else --config, else BROKER_CONFIG) defines; exit 2 with every error, one a line."""
    try:
        settings = load_settings(_file(file, config))
        overrides.parse(settings.price_overrides, "prices")
    except ConfigError as error:
        _fail(error, as_json=as_json)
    summary = _summary(settings)
    click.echo(json.dumps({"ok": True, "errors": [], **summary}) if as_json else _text(settings, summary))


def _fail(error: ConfigError, *, as_json: bool) -> None:
    problems = error.problems if isinstance(error, ConfigProblems) else (str(error),)
    if as_json:
        click.echo(json.dumps({"ok": False, "errors": list(problems)}))
    else:
        for problem in problems:
            click.echo(f"error: {problem}", err=True)
    sys.exit(EXIT_CONFIG)


def _uncallable(settings: Settings) -> list[str]:
    from workers.providers.catalog import resolve  # noqa: PLC0415 - a command imports workers when it runs

    reasons = []
    for deployment in (each for alias in settings.aliases.values() for each in alias.deployments):
        try:
            resolve(deployment)
        except ConfigError as error:
            reasons.append(str(error))
    return reasons


def _summary(settings: Settings) -> dict[str, Any]:
    return {
        "config_hash": settings.config_hash,
        "aliases": {name: [each.name for each in alias.deployments] for name, alias in settings.aliases.items()},
        "alias_names": settings.alias_names,
        "deployments": sum(len(alias.deployments) for alias in settings.aliases.values()),
        "pools": {
            name: {"aliases": list(pool.aliases), "processes": pool.processes, "in_flight": pool.in_flight}
            for name, pool in settings.pools.items()
        },
        "keys": len(settings.keys),
        "anonymous_tenant": settings.anonymous_tenant,
        "uncallable": _uncallable(settings),
        "unacted": list(settings.unacted),
    }


def _text(settings: Settings, summary: dict[str, Any]) -> str:
    counts = f"{len(settings.aliases)} aliases, {summary['deployments']} deployments, {len(settings.pools)} pools"
    lines = [
        f"ok: {counts}, {len(settings.keys)} keys (configuration {settings.config_hash})",
        *_section("aliases", [_alias_line(settings, name) for name in settings.aliases]),
        *_section("also called", [f"{name} → {alias}" for name, alias in settings.alias_names.items()]),
        *_section(
            "pools",
            [
                f"{pool.name}: {', '.join(pool.aliases)}; {pool.processes} × {pool.in_flight} in flight"
                for pool in settings.pools.values()
            ],
        ),
        *_section("cannot be called", summary["uncallable"]),
        *_section("LiteLLM keys understood but not acted on yet", list(settings.unacted)),
        "requests without a key: "
        + ("refused" if settings.anonymous_tenant is None else f"served as tenant {settings.anonymous_tenant}"),
    ]
    return "\n".join(lines)


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"{title}:", *(f"  {line}" for line in lines)] if lines else []


def _alias_line(settings: Settings, name: str) -> str:
    alias = settings.aliases[name]
    served = ", ".join(f"{each.provider}/{each.model}" for each in alias.deployments)
    fallbacks = alias.fallbacks or settings.default_fallbacks
    checks = "; checked before a call" if alias.enable_pre_call_checks else ""
    return f"{name}: {served}" + (f"; then {', '.join(fallbacks)}" if fallbacks else "") + checks


@command.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@config_option
@json_option
def show(file: Path | None, config: Path | None, *, as_json: bool) -> None:
    """Print the resolved configuration as YAML, environment included, secrets masked as ***."""
    values = masked(load_settings(_file(file, config)))
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=False).rstrip()
    click.echo(json.dumps(values) if as_json else text)


@command.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@config_option
@json_option
def models(file: Path | None, config: Path | None, *, as_json: bool) -> None:
    """Print what is known of each deployment's model: why `enable_pre_call_checks` passes it over."""
    settings = load_settings(_file(file, config))
    found = [(alias, each) for alias in settings.aliases.values() for each in alias.deployments]
    if as_json:
        click.echo(json.dumps([_known(alias, deployment) for alias, deployment in found]))
    else:
        click.echo("\n".join(_known_text(deployment) for _, deployment in found))


def _known(alias: Alias, deployment: Deployment) -> dict[str, Any]:
    return {
        "deployment": deployment.name,
        "alias": alias.name,
        "provider": deployment.provider,
        "model": deployment.model,
        "base_model": deployment.base_model,
        "enable_pre_call_checks": alias.enable_pre_call_checks,
        **capabilities(deployment).model_dump(),
    }


def _known_text(deployment: Deployment) -> str:
    can = capabilities(deployment)
    head = f"{deployment.name} ({deployment.provider}/{deployment.model})"
    if can == Capabilities():
        return f"{head}: nothing is known; model_info or base_model tells"
    bounds = ((can.max_input_tokens, "tokens in"), (can.max_output_tokens, "tokens out"))
    facts = [can.mode] if can.mode is not None else []
    facts += [f"{most} {words}" for most, words in bounds if most is not None]
    for words, known in (("can", True), ("cannot", False)):
        abilities = [short for name, short in ABILITIES.items() if getattr(can, name) is known]
        facts += [f"{words} {', '.join(abilities)}"] if abilities else []
    return f"{head}: " + "; ".join(facts)
