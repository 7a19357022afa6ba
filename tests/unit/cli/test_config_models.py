"""`broker config models`: why a deployment is passed over."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.cli.config import command

FILE = """
model_list:
  - model_name: mini
    litellm_params: {model: openai/o3-mini, api_key: secret-key}
  - model_name: local
    litellm_params: {model: openai/llama, api_base: "http://gpu:8000/v1", api_key: secret-key}
    model_info: {max_input_tokens: 8192, supports_vision: false}
  - model_name: other
    litellm_params: {model: openai/gpt-4o, api_base: "http://gpu:8000/v1", api_key: secret-key}
aliases: {mini: {enable_pre_call_checks: true}}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(FILE, encoding="utf-8")
    return str(path)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(command, [*arguments], env={"BROKER_CONFIG": ""})
    assert result.exit_code == 0, result.output
    return result.output


def test_a_line_a_deployment_tells_what_its_model_can_and_cannot_do(file: str) -> None:
    assert run("models", file).splitlines() == [
        (
            "mini/0 (openai/o3-mini): chat; 200000 tokens in; 100000 tokens out; can tools, json_schema, reasoning; "
            "cannot parallel_tools, vision"
        ),
        "local/0 (openai/llama): 8192 tokens in; cannot vision",
        "other/0 (openai/gpt-4o): nothing is known; model_info or base_model tells",
    ]


def test_as_json_each_fact_is_named_as_in_model_info_and_null_is_not_known(file: str) -> None:
    mini, local, other = json.loads(run("models", file, "--json"))
    assert (mini["deployment"], mini["enable_pre_call_checks"], local["enable_pre_call_checks"]) == (
        "mini/0",
        True,
        False,
    )
    assert (mini["supports_vision"], mini["supports_reasoning"], mini["supports_audio_input"]) == (False, True, None)
    assert (local["max_input_tokens"], other["max_input_tokens"]) == (8192, None)


def test_check_says_which_aliases_are_checked_before_a_call(file: str) -> None:
    lines = run("check", file).splitlines()
    assert "  mini: openai/o3-mini; checked before a call" in lines
    assert "  other: openai/gpt-4o" in lines


def test_no_secret_is_printed(file: str) -> None:
    assert "secret-key" not in run("models", file) + run("models", file, "--json")
