"""The compose stack, checked without starting it: shape, variables, health, commands, metric names."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from prometheus_client import CollectorRegistry

from broker.cli.root import main
from broker.config import load
from broker.config.sections import ENVIRONMENT
from broker.metrics import PREFIX, Metrics

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose"
RULES = COMPOSE / "prometheus" / "rules.yml"

VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?:(?P<kind>:[-?])(?P<rest>[^}]*))?\}")

SERVICE_SCHEMA = {
    "type": "object",
    "required": ["image", "healthcheck", "restart", "logging"],
    "additionalProperties": False,
    "properties": {
        "image": {
            "type": "string",
            "pattern": r"^[a-z0-9./-]+:[A-Za-z0-9][A-Za-z0-9._-]*$",
            "not": {"pattern": "latest"},
        },
        "build": {
            "type": "object",
            "required": ["context", "dockerfile"],
            "additionalProperties": False,
            "properties": {"context": {"type": "string"}, "dockerfile": {"type": "string"}},
        },
        "command": {"type": "array", "items": {"type": "string"}},
        "entrypoint": {"type": "array", "items": {"type": "string"}},
        "environment": {"type": "object", "additionalProperties": {"type": ["string", "integer"]}},
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}},
        "volumes": {"type": "array", "items": {"type": "string", "pattern": r"^[^:]+:/[^:]+(:ro)?$"}},
        "tmpfs": {"type": "array", "items": {"type": "string"}},
        "profiles": {"type": "array", "items": {"type": "string"}},
        "cap_drop": {"type": "array", "items": {"type": "string"}},
        "security_opt": {"type": "array", "items": {"type": "string"}},
        "read_only": {"type": "boolean"},
        "restart": {"type": "string", "pattern": r"^(no|always|unless-stopped|on-failure(:\d+)?)$"},
        "stop_grace_period": {"type": "string", "pattern": r"^\d+s$"},
        "ulimits": {"type": "object"},
        "logging": {"type": "object", "required": ["driver", "options"]},
        "deploy": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"replicas": {"type": "string", "pattern": r"^\d+$"}},
        },
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["condition"],
                "additionalProperties": False,
                "properties": {
                    "condition": {"enum": ["service_started", "service_healthy", "service_completed_successfully"]}
                },
            },
        },
        "healthcheck": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "test": {
                    "type": "array",
                    "minItems": 2,
                    "prefixItems": [{"enum": ["CMD", "CMD-SHELL"]}],
                    "items": {"type": "string"},
                },
                "interval": {"type": "string", "pattern": r"^\d+s$"},
                "timeout": {"type": "string", "pattern": r"^\d+s$"},
                "start_period": {"type": "string", "pattern": r"^\d+s$"},
                "retries": {"type": "integer", "minimum": 1},
                "disable": {"const": True},
            },
        },
    },
}
"""The part of the compose specification this stack uses; whatever else turns up is a slip until it is added here."""


def example() -> dict[str, str]:
    """The variables of `.env.example`, as compose reads them."""
    lines = (COMPOSE / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled_in(text: str) -> str:
    return VARIABLE.sub(lambda found: example()[found["name"]], text)


def stack() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(filled_in((COMPOSE / "compose.yaml").read_text()))
    return loaded


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = stack()["services"]
    return found


def ours() -> dict[str, dict[str, Any]]:
    return {name: service for name, service in services().items() if "build" in service}


def test_the_parts_of_the_stack_are_there() -> None:
    expected = {"kafka", "redis", "clickhouse", "setup", "worker", "sink", "relay", "prometheus", "grafana"}
    assert set(services()) == expected
    assert services()["worker"]["deploy"] == {"replicas": 2}


@pytest.mark.parametrize("name", services())
def test_a_service_has_the_shape_compose_wants(name: str) -> None:
    service = dict(services()[name])
    if "deploy" in service:
        service["deploy"] = {key: str(value) for key, value in service["deploy"].items()}
    jsonschema.Draft202012Validator.check_schema(SERVICE_SCHEMA)
    jsonschema.Draft202012Validator(SERVICE_SCHEMA).validate(service)


def test_every_variable_is_in_the_example_and_every_example_is_used() -> None:
    used = {found["name"] for found in VARIABLE.finditer((COMPOSE / "compose.yaml").read_text())}
    assert used == set(example())


def test_a_default_in_the_compose_file_is_the_example_s_value() -> None:
    found = list(VARIABLE.finditer((COMPOSE / "compose.yaml").read_text()))
    assert [match["name"] for match in found if match["kind"] is None] == []
    defaults = {(match["name"], match["rest"]) for match in found if match["kind"] == ":-"}
    assert defaults == {(name, example()[name]) for name, _ in defaults}


def test_no_secret_has_a_default() -> None:
    found = VARIABLE.finditer((COMPOSE / "compose.yaml").read_text())
    secrets = ("PASSWORD", "_KEY", "SECRET")
    assert [match["name"] for match in found if match["name"].endswith(secrets) and match["kind"] != ":?"] == []


def test_every_service_that_keeps_running_is_checked() -> None:
    unchecked = [name for name, service in services().items() if "test" not in service["healthcheck"]]
    assert unchecked == ["setup"]


def test_dependencies_exist_and_can_come_true() -> None:
    every = services()
    for name, service in every.items():
        for other, want in service.get("depends_on", {}).items():
            assert other in every, f"{name} waits for {other}, which is not there"
            healthy = want["condition"] == "service_healthy"
            assert not healthy or "test" in every[other]["healthcheck"], f"{name} waits for the health of {other}"
            completed = want["condition"] == "service_completed_successfully"
            assert completed == (other == "setup"), f"{other} never completes"


def test_named_volumes_are_declared_and_mounted_files_exist() -> None:
    mounts = [mount.split(":")[0] for service in services().values() for mount in service.get("volumes", ())]
    assert {mount for mount in mounts if not mount.startswith(".")} == set(stack()["volumes"])
    assert [mount for mount in mounts if mount.startswith(".") and not (COMPOSE / mount).exists()] == []


def test_no_two_services_want_one_port_of_the_host() -> None:
    ports = [port.split(":")[1] for service in services().values() for port in service.get("ports", ())]
    assert len(ports) == len(set(ports))


def commands() -> list[list[str]]:
    """Every `broker` command line of the stack, without the program's name."""
    found = []
    for service in ours().values():
        if service.get("entrypoint", [""])[0] == "sh":
            lines = [part.split() for line in service["command"] for part in line.split("&&")]
            assert [line[0] for line in lines] == ["broker"] * len(lines)
            found += [line[1:] for line in lines]
        else:
            found.append(service["command"])
    return found


@pytest.mark.parametrize("line", commands(), ids=" ".join)
def test_a_command_of_the_stack_is_one_the_program_knows(line: list[str]) -> None:
    command: click.Command = main
    context = click.Context(main)
    rest = line
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command, context = found, click.Context(found, info_name=name, parent=context)
    command.make_context(line[0], list(rest), resilient_parsing=False).close()


def test_our_services_are_pointed_at_the_stack_s_parts() -> None:
    for service in ours().values():
        environment = service["environment"]
        assert set(ENVIRONMENT) <= set(environment)
        settings = load(COMPOSE / "config.yaml", environment)
        assert settings.kafka.bootstrap_servers == "kafka:9092"
        assert settings.redis.url is not None
        assert settings.redis.url.get_secret_value() == "redis://:change-redis@redis:6379/0"
        assert settings.clickhouse.dsn is not None
        assert "@clickhouse:8123/broker" in settings.clickhouse.dsn.get_secret_value()
        assert settings.signing_key is not None


def test_the_configuration_fits_the_stack() -> None:
    settings = load(COMPOSE / "config.yaml", ours()["worker"]["environment"])
    assert settings.unacted == ()
    assert (settings.server.host, settings.server.port_base) == ("0.0.0.0", 4000)  # noqa: S104 - inside a container
    pool = ours()["worker"]["command"][2]
    grace = int(ours()["worker"]["stop_grace_period"].rstrip("s"))
    assert settings.pools[pool].drain_seconds < grace
    limit = int(services()["kafka"]["environment"]["KAFKA_MESSAGE_MAX_BYTES"])
    assert settings.kafka.max_message_bytes <= limit


def dockerfile() -> list[list[str]]:
    text = (COMPOSE / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_runs_as_a_user_that_is_not_root() -> None:
    last = max(number for number, line in enumerate(dockerfile()) if line[0] == "FROM")
    users = [line[1] for line in dockerfile()[last:] if line[0] == "USER"]
    assert users == ["10001:10001"]


def test_the_image_is_built_in_stages_from_pinned_bases() -> None:
    bases = [line for line in dockerfile() if line[0] == "FROM"]
    assert len(bases) == 2
    assert {base[1] for base in bases} == {"python:3.11-slim-bookworm"}


def test_the_image_installs_pinned_versions_and_no_embedded_parts() -> None:
    installs = [" ".join(line) for line in dockerfile() if line[0] == "RUN" and "pip install" in " ".join(line)]
    assert installs
    assert [line for line in installs if "--constraint .constraints.txt" not in line or "embedded" in line] == []


def test_what_the_image_copies_exists_and_is_not_kept_from_the_build() -> None:
    copied = [
        source for line in dockerfile() if line[0] == "COPY" and "--from=build" not in line for source in line[1:-1]
    ]
    assert [source for source in copied if not (ROOT / source).exists()] == []
    let_in = {line[1:] for line in (COMPOSE / "Dockerfile.dockerignore").read_text().split() if line.startswith("!")}
    assert set(copied) == let_in


def test_the_image_has_a_health_check_and_starts_the_program() -> None:
    assert [line[0] for line in dockerfile()].count("HEALTHCHECK") == 1
    assert ["ENTRYPOINT", '["broker"]'] in dockerfile()


def test_prometheus_scrapes_the_services_that_have_metrics() -> None:
    loaded = yaml.safe_load((COMPOSE / "prometheus" / "prometheus.yml").read_text())
    targets = {name for job in loaded["scrape_configs"] for sd in job.get("dns_sd_configs", ()) for name in sd["names"]}
    assert targets == set(ours()) - {"setup"}
    assert [name for name in loaded["rule_files"] if not (COMPOSE / "prometheus" / name).exists()] == []


def exported_samples() -> set[str]:
    """Every sample name and label a process can export, as `name` and `name{label`."""
    known = set()
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
    for family in Metrics(CollectorRegistry()).registry.collect():
        known |= {family.name + suffix for suffix in suffixes[family.type]}
    return known


def rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load(RULES.read_text())
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    loaded: dict[str, Any] = json.loads((COMPOSE / "grafana" / "dashboards" / "broker.json").read_text())
    found: list[dict[str, Any]] = loaded["panels"]
    return found


def expressions() -> list[str]:
    return [rule["expr"] for rule in rules()] + [target["expr"] for panel in panels() for target in panel["targets"]]


def test_rules_and_panels_name_only_metrics_that_exist() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    named = {name for text in expressions() for name in re.findall(r"(?<![A-Za-z0-9_:])[a-z]+:[a-z_0-9:]+", text)}
    assert named <= recorded
    raw = {name for text in expressions() for name in re.findall(rf"(?<![A-Za-z0-9_:]){PREFIX}[a-z_0-9]+", text)}
    assert raw - exported_samples() == set()
    assert len(raw) > 15


def test_every_alert_says_how_bad_and_what_it_is() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) >= 10
    assert {rule["labels"]["severity"] for rule in alerts} <= {"page", "ticket", "info"}
    assert [rule["alert"] for rule in alerts if not rule["annotations"]["summary"]] == []


def test_the_dashboard_s_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels())
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize(
    "arguments",
    [["check", "config", "prometheus.yml"], ["check", "rules", "rules.yml"], ["test", "rules", "rules.test.yml"]],
    ids=" ".join,
)
def test_promtool_agrees(arguments: list[str], tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; shape and names are checked above")
    folder = shutil.copytree(COMPOSE / "prometheus", tmp_path / "prometheus")
    done = subprocess.run([promtool, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
