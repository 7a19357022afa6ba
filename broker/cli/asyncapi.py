"""`broker asyncapi`: print the AsyncAPI document of every topic and message."""

from importlib.metadata import version
from pathlib import Path

import click
import orjson
import yaml

from broker.asyncapi import document
from broker.cli.common import config_option, load_settings
from broker.topics import TopicNames


class _Plain(yaml.SafeDumper):
    """Writes a part that occurs twice out twice: readers of AsyncAPI need not know YAML's anchors."""

    def ignore_aliases(self, data: object) -> bool:
        """Return True for everything."""
        del data
        return True


@click.command()
@config_option
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--yaml", "form", flag_value="yaml", default=True, help="Print YAML (the default).")
def command(config: Path | None, form: str) -> None:
    """Print the AsyncAPI 3.0 document of every topic and message.

    With a configuration it names its aliases, topic prefix and servers.
    """
    settings = load_settings(config)
    kafka = settings.kafka
    found = document(
        TopicNames(kafka.topic_prefix),
        version=version("queue-inference-broker"),
        aliases=settings.aliases,
        bootstrap_servers=kafka.bootstrap_servers,
        secure="SSL" in kafka.security_protocol,
        max_message_bytes=kafka.max_message_bytes,
    )
    if form == "json":
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    else:
        click.echo(yaml.dump(found, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120), nl=False)
