"""What goes to Cohere: what it cannot take, malformed bodies, and conversations that lose no meaning."""

from contextlib import suppress
from typing import Any

import orjson
import pytest
from cohere.v2.raw_client import RawV2Client
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from broker.config import Deployment
from broker.errors import InvalidRequest, RequestError
from schemas.request import CHAT, COMPLETIONS, EMBEDDINGS, RERANK
from tests.unit.providers.cohere.shapes import request_faults
from workers.providers.catalog import ResolvedDeployment, resolve
from workers.providers.dialects import cohere, jina, voyage

MODEL = "command-a-reasoning-08-2025"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
PNG = "data:image/png;base64,aGk="


def target(provider: str = "cohere", **fields: Any) -> ResolvedDeployment:
    values = {"name": "a/0", "alias": "a", "provider": provider, "model": MODEL, "api_key": SecretStr("co-1")}
    return resolve(Deployment(**{**values, **fields}))


def sent(body: dict[str, Any], endpoint: str = CHAT, **fields: Any) -> dict[str, Any]:
    if endpoint == CHAT:
        body = {"messages": [{"role": "user", "content": "Hello"}], **body}
    found: dict[str, Any] = orjson.loads(cohere.outbound(target(**fields), endpoint, body, streams=False).body)
    return found


@pytest.mark.parametrize("provider", ["cohere", "cohere_chat", "jina_ai", "voyage"])
def test_the_key_goes_as_a_bearer(provider: str) -> None:
    assert dict(target(provider).headers)["authorization"] == "Bearer co-1"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 2}, "n"),
        ({"top_logprobs": 3, "logprobs": True}, "top_logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "a", "format": "wav"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"verbosity": "low"}, "verbosity"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"frequency_penalty": -0.5}, "frequency_penalty"),
        ({"presence_penalty": 1.5}, "presence_penalty"),
        ({"stop": ["1", "2", "3", "4", "5", "6"]}, "stop"),
        ({"response_format": {"type": "json_object"}, "documents": ["d"]}, "response_format"),
    ],
)
def test_what_it_cannot_take_is_refused_by_name_or_dropped(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(dict(body))
    assert caught.value.param == param
    kept = {name: value for name, value in body.items() if name != param}
    assert sent(dict(body), drop_params=True) == sent(kept)
    assert sent(dict(body), additional_drop_params=(param,)) == sent(kept)


def test_effort_of_a_model_that_does_not_reason_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent({"reasoning_effort": "high"}, model="command-a-03-2025")
    assert caught.value.param == "reasoning_effort"
    assert "thinking" not in sent({"reasoning_effort": "low"}, model="command-r7b-12-2024", drop_params=True)


@pytest.mark.parametrize(
    ("effort", "thinking"),
    [
        ("minimal", {"type": "enabled", "token_budget": 1024}),
        ("low", {"type": "enabled", "token_budget": 1024}),
        ("medium", {"type": "enabled", "token_budget": 8192}),
        ("xhigh", {"type": "enabled"}),
    ],
)
def test_efforts_without_a_bound_on_the_answer(effort: str, thinking: dict[str, Any]) -> None:
    assert sent({"reasoning_effort": effort})["thinking"] == thinking


def test_a_bound_of_one_token_leaves_one_to_think() -> None:
    assert sent({"reasoning_effort": "low", "max_tokens": 1})["thinking"]["token_budget"] == 1


def user(kind: str, value: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": kind, kind: value}]}]}


BROKEN = {"id": "c", "function": {"name": "f", "arguments": "{"}}
PART = "messages[0].content[0]"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "alone"}]}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [BROKEN]}]}, "messages[0].tool_calls[0].function.arguments"),
        ({"messages": [{"role": "assistant", "reasoning_content": 3}]}, "messages[0].reasoning_content"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}, "content": "x"}]}, "messages[0].audio"),
        (user("image_url", {"url": "ftp://x"}), f"{PART}.image_url.url"),
        (user("image_url", "data:image/bmp;base64,aGk="), f"{PART}.image_url.url"),
        (user("image_url", {"url": PNG, "detail": "huge"}), f"{PART}.image_url.detail"),
        (user("input_audio", {"data": "aGk=", "format": "wav"}), PART),
        (user("file", {"file_data": "aGk="}), PART),
        ({"temperature": "hot"}, "temperature"),
        ({"logprobs": 3}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": 3}, "stop"),
        ({"reasoning_effort": "most"}, "reasoning_effort"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"tools": [TOOL], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"response_format": {"type": "xml"}}, "response_format"),
    ],
)
def test_a_malformed_body_names_its_field(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(body)
    assert caught.value.param == param


def result(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "tool", "tool_call_id": "c", "content": list(parts)}]}


def test_a_tool_s_result_takes_texts_and_documents_only() -> None:
    image = {"type": "image_url", "image_url": {"url": PNG}}
    with pytest.raises(InvalidRequest) as caught:
        sent(result(image))
    assert caught.value.param == PART
    assert sent(result(image), drop_params=True)["messages"][0]["content"] == ""
    with pytest.raises(InvalidRequest) as caught:
        sent(result({"type": "document", "document": {"data": "text"}}))
    assert caught.value.param == f"{PART}.document"


@pytest.mark.parametrize(
    ("endpoint", "body", "param"),
    [
        (EMBEDDINGS, {"input": [1, 2]}, "input"),
        (EMBEDDINGS, {"input": []}, "input"),
        (EMBEDDINGS, {"input": "x", "encoding_format": "hex"}, "encoding_format"),
        (EMBEDDINGS, {"input": "x", "encoding_format": []}, None),
        (EMBEDDINGS, {"input": "x", "embedding_types": ["float", "int8"]}, "embedding_types"),
        (EMBEDDINGS, {"input": "x", "embedding_types": ["int8"], "encoding_format": "base64"}, "encoding_format"),
        (RERANK, {"query": "", "documents": ["x"]}, "query"),
        (RERANK, {"query": "q", "documents": []}, "documents"),
        (RERANK, {"query": "q", "documents": [3]}, "documents[0]"),
        (RERANK, {"query": "q", "documents": ["a", {"title": "t"}]}, "documents[1]"),
        (RERANK, {"query": "q", "documents": ["a"], "top_n": 0}, "top_n"),
        (RERANK, {"query": "q", "documents": ["a"], "rank_fields": ["title"]}, "rank_fields"),
        (RERANK, {"query": "q", "documents": ["a"], "max_chunks_per_doc": 3}, "max_chunks_per_doc"),
        (COMPLETIONS, {"prompt": "x"}, "endpoint"),
    ],
)
def test_embeddings_and_rankings_name_what_is_wrong(endpoint: str, body: dict[str, Any], param: str | None) -> None:
    if param is None:  # nothing was asked for
        assert sent(body, endpoint)["embedding_types"] == ["float"]
        return
    with pytest.raises(InvalidRequest) as caught:
        sent(body, endpoint)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("provider", "endpoint", "body", "param"),
    [
        ("voyage", EMBEDDINGS, {"input": PNG}, "input"),
        ("voyage", RERANK, {"query": "q", "documents": [{"image": "x"}]}, "documents[0]"),
        ("voyage", RERANK, {"query": "q", "documents": ["x"], "max_tokens_per_doc": 3}, "max_tokens_per_doc"),
        ("voyage", CHAT, {"messages": [{"role": "user", "content": "x"}]}, "endpoint"),
        ("jina_ai", EMBEDDINGS, {"input": [[1, 2]]}, "input"),
        ("jina_ai", EMBEDDINGS, {"input": "x", "encoding_format": 3}, "encoding_format"),
        ("jina_ai", RERANK, {"query": "q", "documents": ["x"], "rank_fields": ["a"]}, "rank_fields"),
        ("jina_ai", CHAT, {"messages": [{"role": "user", "content": "x"}]}, "endpoint"),
    ],
)
def test_jina_and_voyage_name_what_they_cannot_take(
    provider: str, endpoint: str, body: dict[str, Any], param: str
) -> None:
    dialect = {"voyage": voyage, "jina_ai": jina}[provider]
    with pytest.raises(InvalidRequest) as caught:
        dialect.outbound(target(provider), endpoint, body, streams=False)
    assert caught.value.param == param
    assert dialect.streamed(endpoint) is False


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="JSON"):
        sent({"documents": {1}})


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)
NAMES = st.sampled_from(["get_weather", "now", "search"])
VALUES = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | WORDS, lambda inner: st.lists(inner, max_size=2))
ARGUMENTS = st.dictionaries(WORDS, VALUES, max_size=3).map(lambda value: orjson.dumps(value).decode())
IMAGE = st.sampled_from([{"url": PNG}, {"url": "https://example.com/a.png", "detail": "high"}])
CONTENT = WORDS | st.lists(
    st.builds(lambda text: {"type": "text", "text": text}, WORDS)
    | st.builds(lambda image: {"type": "image_url", "image_url": image}, IMAGE),
    min_size=1,
    max_size=3,
)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return a conversation in which every call has its result, as OpenAI insists."""
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": draw(st.sampled_from(["system", "developer"])), "content": draw(WORDS)})
    for turn in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(CONTENT)})
        called = draw(st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3))
        answer: dict[str, Any] = {"role": "assistant", "content": draw(WORDS | st.none()) if called else draw(WORDS)}
        if called:
            answer["tool_calls"] = [
                {"id": f"call_{turn}_{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for place, (name, arguments) in enumerate(called)
            ]
            answer |= draw(st.sampled_from([{}, {"tool_plan": "First this."}]))
        answer |= draw(st.sampled_from([{}, {"reasoning_content": "Hm."}]))
        messages.append(answer)
        messages += [
            {"role": "tool", "tool_call_id": f"call_{turn}_{place}", "content": draw(WORDS)}
            for place in range(len(called))
        ]
    return messages


def back(message: dict[str, Any]) -> dict[str, Any]:
    """Read one of Cohere's messages as OpenAI's, by their documentation and by nothing of ours."""
    told = {name: value for name, value in message.items() if name != "content"}
    content = message.get("content")
    if isinstance(content, list) and message["role"] == "assistant":
        thoughts = [block["thinking"] for block in content if block["type"] == "thinking"]
        said = [block["text"] for block in content if block["type"] == "text"]
        told |= {"reasoning_content": "".join(thoughts)} if thoughts else {}
        content = "".join(said) or None
    if isinstance(content, list) and len(content) == 1 and content[0]["type"] == "text":
        content = content[0]["text"]
    return {**told, "content": content}


def meant(message: dict[str, Any]) -> dict[str, Any]:
    """Return what a message of OpenAI's means, however it is written."""
    content = message["content"]
    if isinstance(content, list) and len(content) == 1 and content[0]["type"] == "text":
        content = content[0]["text"]
    return {**message, "role": "system" if message["role"] == "developer" else message["role"], "content": content}


@given(conversations())
@settings(max_examples=50, deadline=None)
def test_a_conversation_with_tools_goes_there_and_back_without_losing_meaning(messages: list[dict[str, Any]]) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("get_weather", "now", "search")]
    out = sent({"messages": messages, "tools": tools})
    assert request_faults(out, RawV2Client.chat, {}) == []
    assert [back(message) for message in out["messages"]] == [meant(message) for message in messages]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "role", "content", "function", "name", "id", "url", "data"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
FIELDS = [
    "messages", "tools", "tool_choice", "response_format", "stop", "temperature", "top_p", "reasoning_effort", "input",
    "max_tokens", "n", "parallel_tool_calls", "documents", "query", "top_n", "encoding_format", "embedding_types",
    "logprobs", "thinking", "frequency_penalty", "dimensions", "return_documents",
]  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(FIELDS), JUNK, max_size=6),
    st.sampled_from([CHAT, EMBEDDINGS, RERANK]),
    st.sampled_from([("cohere", cohere), ("jina_ai", jina), ("voyage", voyage)]),
)
@settings(max_examples=50, deadline=None)
def test_no_body_makes_anything_but_a_request_error(body: dict[str, Any], endpoint: str, spoken: Any) -> None:
    provider, dialect = spoken
    before = orjson.dumps(body)
    with suppress(RequestError):
        dialect.outbound(target(provider), endpoint, body, streams=True)
    assert orjson.dumps(body) == before
