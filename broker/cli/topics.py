"""`broker topics plan` and `broker topics apply`: the topics in Kafka as the configuration needs them."""

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from broker.adapters.kafka_admin import KafkaAdmin
from broker.cli.common import config_option, json_option, load_settings, run_async
from broker.config import Settings
from broker.topic_plan import Change, apply_topics, plan
from broker.topics import TopicNames, TopicSpec, topic_specs


@click.group(name="topics")
def command() -> None:
    """Compare the topics in Kafka with those the configuration needs, or make them so; nothing is shrunk or deleted."""


@command.command(name="plan")
@config_option
@json_option
def plan_command(config: Path | None, *, as_json: bool) -> None:
    """Show what `apply` would change; changes nothing, and exits 0 whatever it finds."""
    settings = load_settings(config)
    specs = _specs(settings)
    changes = run_async(_run(settings, specs, apply=False))
    _print(changes, specs, as_json=as_json, applied=False)


@command.command(name="apply")
@config_option
@json_option
def apply_command(config: Path | None, *, as_json: bool) -> None:
    """Create what is missing, add partitions, correct settings; a second run finds nothing to do."""
    settings = load_settings(config)
    specs = _specs(settings)
    changes = run_async(_run(settings, specs, apply=True))
    _print(changes, specs, as_json=as_json, applied=True)


def _specs(settings: Settings) -> list[TopicSpec]:
    names = TopicNames(settings.kafka.topic_prefix)
    return topic_specs(names, sorted(settings.aliases), max_message_bytes=settings.kafka.max_message_bytes)


async def _run(settings: Settings, specs: list[TopicSpec], *, apply: bool) -> list[Change]:
    admin = KafkaAdmin(settings.kafka)
    await admin.start()
    try:
        if apply:
            return await apply_topics(admin, specs, settings.kafka.replication_factor)
        return await plan(admin, specs)
    finally:
        await admin.stop()


def _print(changes: list[Change], specs: list[TopicSpec], *, as_json: bool, applied: bool) -> None:
    if as_json:
        listed = [asdict(change) for change in changes]
        click.echo(json.dumps({"topics": len(specs), "applied": applied, "changes": listed}))
        return
    if changes:
        Console().print(_table(changes))
    click.echo(_summary(len(changes), len(specs), applied=applied))


def _table(changes: list[Change]) -> Table:
    table = Table("topic", "action", "what", "before", "after")
    for change in changes:
        table.add_row(change.topic, change.action.value, change.what, change.before, change.after)
    return table


def _summary(changes: int, topics: int, *, applied: bool) -> str:
    if not changes:
        return f"{topics} topics are as they should be; nothing to change"
    counted = f"{changes} change{'' if changes == 1 else 's'} to {topics} topics"
    return f"{counted} made" if applied else f"{counted} needed; `broker topics apply` makes them"
