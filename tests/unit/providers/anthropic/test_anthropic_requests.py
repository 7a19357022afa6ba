"""What goes to Anthropic: conversations, tools, structured answers, thinking, and what it cannot take."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from broker.config import Deployment
from broker.errors import InvalidRequest, RequestError
from schemas.request import CHAT, EMBEDDINGS
from workers.providers.catalog import ResolvedDeployment, resolve
from workers.providers.dialects import anthropic

NOW = "claude-opus-4-6"
BEFORE = "claude-3-7-sonnet-20250219"
PNG = "data:image/png;base64,aGk="


def target(model: str = NOW, **fields: Any) -> ResolvedDeployment:
    values = {"name": "a/0", "alias": "a", "provider": "anthropic", "model": model, "api_key": SecretStr("sk-ant-1")}
    return resolve(Deployment(**{**values, **fields}))


def sent(body: dict[str, Any], model: str = NOW, *, streams: bool = False, **fields: Any) -> dict[str, Any]:
    body.setdefault("messages", [{"role": "user", "content": "Hello"}])
    out = anthropic.outbound(target(model, **fields), CHAT, body, streams=streams)
    assert out.url == "https://api.anthropic.com/v1/messages"
    found: dict[str, Any] = orjson.loads(out.body)
    return found


def turns(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return list(sent({"messages": list(messages)})["messages"])


def test_the_key_and_the_version_go_in_their_own_headers() -> None:
    headers = dict(target().headers)
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("sk-ant-1", "2023-06-01")
    assert "authorization" not in headers


def test_a_plain_request() -> None:
    assert sent({"temperature": 0.5, "stop": "END", "user": "u1", "top_k": 5}) == {
        "model": NOW,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        "temperature": 0.5,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u1"},
        "top_k": 5,
    }


def test_system_messages_stand_apart_and_turns_of_one_role_become_one() -> None:
    body = sent(
        {
            "messages": [
                {
                    "role": "system",
                    "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
                },
                {"role": "user", "content": "One."},
                {"role": "developer", "content": "Be kind."},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "Two."}, {"type": "image_url", "image_url": {"url": PNG}}],
                },
            ],
            "max_completion_tokens": 7,
        }
    )
    assert body["system"] == [
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Be kind."},
    ]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    content = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}, image]
    assert body["messages"] == [{"role": "user", "content": content}]
    assert body["max_tokens"] == 7


def test_tool_calls_and_their_results_with_results_first_in_their_turn() -> None:
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}},
    ]
    found = turns(
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "user", "content": "Well?"},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}]},
    )
    assert found[1]["content"] == [
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
    ]
    assert found[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
        {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "two"}]},
        {"type": "text", "text": "Well?"},
    ]


TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
}


@pytest.mark.parametrize(
    ("asked", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"type": "tool", "name": "f"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"parallel_tool_calls": True}, None),
    ],
)
def test_tools_and_the_choice_among_them(asked: dict[str, Any], choice: Any) -> None:
    body = sent({"tools": [TOOL], **asked})
    assert body["tools"] == [{"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": True}]
    assert body.get("tool_choice") == choice


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
JSON = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}


def test_a_structured_answer_is_native_where_the_model_has_it_and_a_forced_tool_before() -> None:
    assert sent({"response_format": JSON})["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    before = sent({"response_format": JSON}, BEFORE)
    assert before["tools"][0]["input_schema"] == SCHEMA
    assert before["tool_choice"] == {"type": "tool", "name": before["tools"][0]["name"]}
    beside = sent({"response_format": JSON, "tools": [TOOL]}, BEFORE)
    assert (len(beside["tools"]), beside["tool_choice"]) == (2, {"type": "any"})


def test_reasoning_effort_is_adaptive_or_a_budget_that_does_not_eat_the_answer() -> None:
    now = sent({"reasoning_effort": "high", "max_tokens": 100})
    assert (now["thinking"], now["output_config"], now["max_tokens"]) == ({"type": "adaptive"}, {"effort": "high"}, 100)
    before = sent({"reasoning_effort": "low", "max_tokens": 100}, BEFORE)
    assert (before["thinking"], before["max_tokens"]) == ({"type": "enabled", "budget_tokens": 1024}, 1124)
    assert "thinking" not in sent({"reasoning_effort": "none"})


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 2}, "n"), ({"seed": 1}, "seed"), ({"temperature": 1.5}, "temperature"), ({"logprobs": True}, "logprobs"),
        ({"service_tier": "flex"}, "service_tier"), ({"stop": ["\n"]}, "stop"),
        ({"reasoning_effort": "high", "temperature": 0.2}, "temperature"),
        ({"presence_penalty": 1}, "presence_penalty"),
    ],
)  # fmt: skip
def test_what_it_cannot_take_is_refused_by_name_or_dropped(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(dict(body))
    assert caught.value.param == param
    assert param not in sent(dict(body), drop_params=True)
    assert param not in sent(dict(body), additional_drop_params=(param,))


@pytest.mark.parametrize(
    "nothing", [{"n": 1}, {"logprobs": False}, {"presence_penalty": 0}, {"store": True}, {"seed": None}]
)
def test_what_asks_for_nothing_is_left_out(nothing: dict[str, Any]) -> None:
    assert sent(dict(nothing)) == sent({})


def user(kind: str, value: object) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": kind, kind: value}]}]


BROKEN = {"id": "c", "function": {"name": "f", "arguments": "{"}}
URL = "messages[0].content[0].image_url.url"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "system", "content": "alone"}], "messages"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "owl", "content": "x"}], "messages[0].role"),
        ([{"role": "tool", "content": "x"}], "messages[0].tool_call_id"),
        (user("image_url", {"url": "ftp://x"}), URL),
        (user("image_url", "data:image/bmp;base64,aGk="), URL),
        (user("input_audio", {"data": "aGk=", "format": "wav"}), "messages[0].content[0]"),
        ([{"role": "assistant", "tool_calls": [BROKEN]}], "messages[0].tool_calls[0].function.arguments"),
    ],
)
def test_a_malformed_conversation_names_its_field(messages: list[Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent({"messages": messages})
    assert caught.value.param == param


def test_another_endpoint_is_not_served() -> None:
    with pytest.raises(InvalidRequest, match="/v1/embeddings"):
        anthropic.outbound(target(), EMBEDDINGS, {"input": "x"}, streams=False)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "role", "content", "function", "name", "id", "url"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["messages", "tools", "tool_choice", "response_format", "stop", "temperature",
                         "reasoning_effort",
                         "max_tokens", "metadata", "n", "parallel_tool_calls", "user"]),
        JUNK, max_size=6,
    ),
    st.sampled_from([NOW, BEFORE]),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_no_body_makes_anything_but_a_request_error(body: dict[str, Any], model: str) -> None:
    body.setdefault("messages", [{"role": "user", "content": "x"}])
    try:
        anthropic.outbound(target(model), CHAT, body, streams=True)
    except RequestError:
        return
