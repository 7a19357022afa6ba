"""The settings for other eyes: masked, and hashed without secrets."""

import json
from pathlib import Path

import pytest

from broker.config import load
from broker.config.views import masked, masked_address

FILE = Path(__file__).parent / "files" / "own.yaml"
ENVIRON = {"KAFKA_PASSWORD": "kp-1", "REDIS_URL": "redis://:rp-1@redis:6379/1", "TEAM_KEY": "sk-1", "SIGNING": "sign-1"}
OTHERS = {name: value.replace("1", "2", 1) for name, value in ENVIRON.items()}


def test_no_secret_is_shown() -> None:
    shown = json.dumps(masked(load(FILE, ENVIRON)))
    assert [secret for secret in ("kp-1", "rp-1", "sk-1", "sign-1", ":pw@") if secret in shown] == []


def test_no_secret_is_in_the_repr() -> None:
    text = repr(load(FILE, ENVIRON))
    assert [secret for secret in ("kp-1", "rp-1", "sk-1", "sign-1", ":pw@") if secret in text] == []


def test_the_hash_does_not_depend_on_secrets() -> None:
    assert load(FILE, ENVIRON).config_hash == load(FILE, OTHERS).config_hash


def test_the_hash_depends_on_everything_else(tmp_path: Path) -> None:
    other = tmp_path / "a.yaml"
    other.write_text(FILE.read_text(encoding="utf-8").replace("rpm_limit: 60", "rpm_limit: 61"), encoding="utf-8")
    assert load(FILE, ENVIRON).config_hash != load(other, ENVIRON).config_hash


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:pw@host:6379", "redis://:***@host:6379"),
        ("clickhouse://me:pw@[::1]:8123/db", "clickhouse://me:***@[::1]:8123/db"),
        ("redis://token@host", "redis://***@host"),
        ("redis://host?password=pw", "redis://host?***"),
        ("sk-1234", "***"),
        ("redis://host:notaport", "***"),
        ("", "***"),
    ],
)
def test_of_an_address_only_what_is_secret_is_masked(address: str, expected: str) -> None:
    assert masked_address(address) == expected


def test_what_somebody_wrote_into_an_upstream_s_address_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    bases = ("https://me:pw-1@a.example/v1", "https://b.example/v1?code=pw-1", "https://c.example/v1")
    entries = [
        {"model_name": "m", "litellm_params": {"model": "openai/m", "api_key": "k", "api_base": base}} for base in bases
    ]
    file.write_text(json.dumps({"model_list": entries}), encoding="utf-8")
    shown = [each["api_base"] for each in masked(load(file, {}))["aliases"]["m"]["deployments"]]
    assert shown == ["https://me:***@a.example/v1", "https://b.example/v1?***", "https://c.example/v1"]
