"""The README's examples are true: its configuration loads and is acted on, the commands it names exist."""

import re
from pathlib import Path

import yaml

from broker.cli.root import COMMANDS
from broker.config.loader import settings_of

TEXT = (Path(__file__).parents[2] / "README.md").read_text()


def test_its_configuration_loads_and_everything_in_it_is_acted_on() -> None:
    (example,) = re.findall(r"```yaml\n(model_list:.*?)```", TEXT, re.DOTALL)
    environ = dict.fromkeys(re.findall(r"os\.environ/(\w+)", example), "redis://h:1")
    environ["CLICKHOUSE_DSN"] = "clickhouse://u:p@h:8123/d"
    settings = settings_of(yaml.safe_load(example), environ)
    assert settings.unacted == ()
    assert list(settings.aliases) == ["chat", "local"]


def test_every_command_it_names_exists() -> None:
    named = set(re.findall(r"`(?:\.venv/bin/)?broker ([a-z]+)", TEXT))
    assert named - COMMANDS.keys() == set()
    assert named >= {"up", "worker", "submit", "status", "prices", "providers", "simulate"}
