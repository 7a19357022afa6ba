"""Capabilities in `model_info`, and `enable_pre_call_checks`, in LiteLLM's words."""

from broker.config import Capabilities
from tests.unit.config.yaml_text import problems_of, settings_from

MODEL = """
model_list:
  - model_name: local
    litellm_params: {model: openai/llama, api_base: "http://gpu:8000/v1", api_key: k}
    model_info:
      mode: chat
      max_input_tokens: 8192
      max_output_tokens: 1024
      max_tokens: 99
      supports_vision: false
      supports_function_calling: true
      supports_system_messages: true
  - model_name: plain
    litellm_params: {model: openai/gpt-4o, api_key: k}
    model_info: {id: plain-1}
"""


def test_what_model_info_says_of_a_model_is_read_and_the_rest_listed() -> None:
    settings = settings_from(MODEL)
    assert settings.aliases["local"].deployments[0].model_info == Capabilities(
        mode="chat",
        max_input_tokens=8192,
        max_output_tokens=1024,
        supports_vision=False,
        supports_function_calling=True,
    )
    assert settings.unacted == ("model_list[].model_info.supports_system_messages",)


def test_without_a_word_of_capabilities_there_are_none() -> None:
    assert settings_from(MODEL).aliases["plain"].deployments[0].model_info is None


def test_the_older_max_tokens_is_the_most_a_model_writes() -> None:
    text = MODEL.replace("max_output_tokens: 1024", "notes: none")
    info = settings_from(text).aliases["local"].deployments[0].model_info
    assert info is not None
    assert info.max_output_tokens == 99


def test_a_capability_that_is_none_is_named() -> None:
    text = MODEL.replace("supports_vision: false", "supports_vision: perhaps").replace("8192", "0")
    assert [problem.partition(":")[0] for problem in problems_of(text)] == [
        "model_list[0].model_info.max_input_tokens",
        "model_list[0].model_info.supports_vision",
    ]


def test_a_mistyped_capability_is_told_from_a_key_of_the_users_own() -> None:
    assert problems_of(MODEL.replace("supports_vision", "support_vision")) == (
        "model_list[0].model_info.support_vision: unknown key; the nearest known one is supports_vision",
    )


def test_checks_before_calls_are_switched_for_all_and_for_one() -> None:
    everywhere = "router_settings: {enable_pre_call_checks: true}\naliases: {plain: {enable_pre_call_checks: false}}\n"
    for text, expected in (
        (MODEL, (False, False)),
        (MODEL + everywhere, (True, False)),
        (MODEL + "aliases: {local: {enable_pre_call_checks: true}}\n", (True, False)),
    ):
        settings = settings_from(text)
        assert (
            settings.aliases["local"].enable_pre_call_checks,
            settings.aliases["plain"].enable_pre_call_checks,
        ) == expected
        assert not [key for key in settings.unacted if "pre_call" in key]
