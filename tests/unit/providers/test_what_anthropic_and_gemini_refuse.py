"""Parameters that Anthropic and Gemini cannot take: a 400 that names each, or left out where the deployment says so."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.config import Deployment
from broker.errors import BadUpstreamResponse, InvalidRequest, RequestError
from schemas.request import CHAT
from workers.providers.catalog import resolve
from workers.providers.dialect import Dialect
from workers.providers.dialects import anthropic, gemini
from workers.providers.registry import DIALECTS

FUNCTION = {"type": "function", "function": {"name": "f"}}
OPEN = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


def sent(provider: str, model: str, body: dict[str, Any], **fields: Any) -> dict[str, Any]:
    target = resolve(Deployment(name="a/0", alias="a", provider=provider, model=model, **fields))
    whole = {"messages": [{"role": "user", "content": "hi"}], **body}
    dialect: Dialect = DIALECTS[provider]
    found: dict[str, Any] = orjson.loads(dialect.outbound(target, CHAT, whole, streams=False).body)
    return found


REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("anthropic", "claude-opus-4-6", {"seed": 1}, "seed"),
    ("anthropic", "claude-opus-4-6", {"logprobs": True}, "logprobs"),
    ("anthropic", "claude-opus-4-6", {"top_logprobs": 2}, "top_logprobs"),
    ("anthropic", "claude-opus-4-6", {"n": 2}, "n"),
    ("anthropic", "claude-opus-4-6", {"presence_penalty": 1}, "presence_penalty"),
    ("anthropic", "claude-opus-4-6", {"frequency_penalty": 1}, "frequency_penalty"),
    ("anthropic", "claude-opus-4-6", {"logit_bias": {"1": 1}}, "logit_bias"),
    ("anthropic", "claude-opus-4-6", {"modalities": ["text", "audio"]}, "modalities"),
    ("anthropic", "claude-opus-4-6", {"audio": {"voice": "v", "format": "wav"}}, "audio"),
    ("anthropic", "claude-opus-4-6", {"verbosity": "low"}, "verbosity"),
    ("anthropic", "claude-opus-4-6", {"service_tier": "flex"}, "service_tier"),
    ("anthropic", "claude-opus-4-6", {"stop": [" "]}, "stop"),
    ("anthropic", "claude-opus-4-6", {"temperature": 1.5}, "temperature"),
    ("anthropic", "claude-haiku-4-5", {"temperature": 0.5, "top_p": 0.5}, "top_p"),
    ("anthropic", "claude-opus-4-8", {"temperature": 0.5}, "temperature"),
    ("anthropic", "claude-opus-4-8", {"top_k": 4}, "top_k"),
    ("anthropic", "claude-opus-5-5", {"reasoning_effort": "none"}, "reasoning_effort"),
    ("anthropic", "claude-3-haiku-20240307", {"reasoning_effort": "low"}, "reasoning_effort"),
    ("anthropic", "claude-opus-5-5", {"tools": [FUNCTION], "tool_choice": "required"}, "tool_choice"),
    ("anthropic", "claude-opus-5-5", {"response_format": OPEN}, "response_format"),
    ("gemini", "gemini-3.1-pro-preview", {"parallel_tool_calls": False, "tools": [{"function": {"name": "f"}}]},
     "parallel_tool_calls"),
    ("gemini", "gemini-3.1-pro-preview", {"logit_bias": {"1": 1}}, "logit_bias"),
    ("gemini", "gemini-3.1-pro-preview", {"verbosity": "high"}, "verbosity"),
    ("gemini", "gemini-3.1-pro-preview", {"service_tier": "scale"}, "service_tier"),
    ("gemini", "gemini-3.1-pro-preview", {"reasoning_effort": "none"}, "reasoning_effort"),
    ("gemini", "gemini-2.5-pro", {"reasoning_effort": "none"}, "reasoning_effort"),
    ("gemini", "gemini-2.0-flash", {"reasoning_effort": "low"}, "reasoning_effort"),
    ("gemini", "gemini-2.5-flash-preview-tts", {"audio": {"voice": "v", "format": "mp3"}}, "audio.format"),
    ("gemini", "gemini-2.5-pro", {"web_search_options": {"user_location": {}}}, "web_search_options.user_location"),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "model", "body", "param"), REFUSED)
def test_what_cannot_be_taken_is_refused_by_name(provider: str, model: str, body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(provider, model, dict(body))
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(("provider", "model", "body", "param"), REFUSED)
def test_what_cannot_be_taken_is_dropped_where_the_deployment_says_so(
    provider: str, model: str, body: dict[str, Any], param: str
) -> None:
    top = param.partition(".")[0]
    sent(provider, model, dict(body), drop_params=True)
    rest = {name: value for name, value in body.items() if name != top}
    dropped = sent(provider, model, dict(body), additional_drop_params=(top,))
    assert dropped == sent(provider, model, rest)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "any", "tools": []}}}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"functions": 3}, "functions"),
        ({"web_search_options": 3}, "web_search_options"),
        ({"reasoning_effort": "most"}, "reasoning_effort"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
    ],
)
@pytest.mark.parametrize(
    ("provider", "model"), [("anthropic", "claude-opus-4-6"), ("gemini", "gemini-3-flash-preview")]
)
def test_what_is_malformed_names_its_field(provider: str, model: str, body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(provider, model, {"tools": [FUNCTION], **body})
    assert (caught.value.param or "").startswith(param)


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE"])
def test_an_answer_that_gemini_threw_away_is_none(reason: str) -> None:
    target = resolve(Deployment(name="a/0", alias="a", provider="gemini", model="gemini-3-flash-preview"))
    body = {"candidates": [{"finishReason": reason, "finishMessage": "print(f(", "index": 0}]}
    with pytest.raises(BadUpstreamResponse, match=reason) as caught:
        gemini.answer(target, CHAT, {}, orjson.dumps(body), {})
    assert caught.value.retriable
    with pytest.raises(BadUpstreamResponse, match=reason):
        list(gemini.stream(target, CHAT, {}).feed(b"data: " + orjson.dumps(body) + b"\n\n"))


def test_credit_that_is_used_up_in_a_stream_is_no_fault_of_the_caller() -> None:
    target = resolve(Deployment(name="a/0", alias="a", provider="anthropic", model="claude-opus-4-6"))
    told = {"type": "error", "error": {"type": "billing_error", "message": "no credit"}}
    with pytest.raises(Exception, match="no credit") as caught:
        list(anthropic.stream(target, CHAT, {}).feed(b"event: error\ndata: " + orjson.dumps(told) + b"\n\n"))
    assert getattr(caught.value, "status", None) == 402


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5) | st.sampled_from(["", "auto", "f", "https://x.example/a", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "text", "role", "content", "function", "name", "id", "url", "image_url", "file", "file_id",
                 "file_data", "allowed_tools", "mode", "tools", "json_schema", "schema", "properties", "minItems",
                 "format", "anyOf", "items", "approximate", "user_location", "tool_calls", "function_call", "images"]
            ), inner, max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip
NAMES = st.sampled_from(
    ["messages", "tools", "tool_choice", "response_format", "functions", "function_call", "web_search_options", "audio",
     "modalities", "service_tier", "reasoning_effort", "metadata", "user", "thinking", "output_config", "toolConfig",
     "generationConfig", "temperature", "n", "stop", "max_tokens", "verbosity", "safety_identifier"]
)  # fmt: skip
MODELS = st.sampled_from(
    [("anthropic", "claude-opus-4-6"), ("anthropic", "claude-opus-5-5"), ("anthropic", "claude-3-7-sonnet-20250219"),
     ("gemini", "gemini-3-flash-preview"), ("gemini", "gemini-2.5-pro")]
)  # fmt: skip


@given(st.dictionaries(NAMES, JUNK, max_size=5), MODELS, st.booleans())
@settings(max_examples=50, deadline=None)
def test_no_body_makes_anything_but_a_request_error(body: dict[str, Any], which: tuple[str, str], drops: bool) -> None:  # noqa: FBT001 - drawn
    try:
        sent(*which, body, drop_params=drops)
    except RequestError:
        return


@given(JUNK.filter(lambda value: isinstance(value, dict)))
@settings(max_examples=50, deadline=None)
def test_no_schema_makes_anything_but_a_request_error(schema: dict[str, Any]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", **schema}}}
    try:
        sent("anthropic", "claude-opus-4-6", {"response_format": form})
    except RequestError:
        return
