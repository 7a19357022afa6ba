"""What Bedrock is sent: held against botocore's model of the service; what it cannot take is refused by name."""

import json
from typing import Any

import orjson
import pytest
from botocore.exceptions import ParamValidationError
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.config import Deployment
from broker.errors import InvalidRequest, RequestError
from schemas.request import CHAT, EMBEDDINGS, SPEECH
from tests.golden.cases import cases, target
from tests.unit.providers.bedrock import service
from workers.providers.catalog import ResolvedDeployment, resolve
from workers.providers.dialects import bedrock
from workers.providers.dialects.bedrock_models import Thinking, model, of

AWS = {"region": "us-east-1", "access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret-key-1"}
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
OLD = "anthropic.claude-3-5-sonnet-20241022-v2:0"
ADAPTIVE = "anthropic.claude-sonnet-4-6"
NEWEST = "global.anthropic.claude-opus-5"
NOVA = "us.amazon.nova-2-lite-v1:0"
NOVA_1 = "amazon.nova-pro-v1:0"
LLAMA = "us.meta.llama3-3-70b-instruct-v1:0"
R1 = "us.deepseek.r1-v1:0"
GPT = "openai.gpt-oss-120b-1:0"
HIDDEN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/ab12cd34ef56"
MODELS = [CLAUDE, OLD, ADAPTIVE, NEWEST, NOVA, NOVA_1, LLAMA, R1, GPT, HIDDEN]


def to(name: str = CLAUDE, **fields: Any) -> ResolvedDeployment:
    return resolve(
        Deployment(**{"name": "a/0", "alias": "a", "provider": "bedrock", "model": name, "aws": AWS, **fields})
    )


def sent(body: dict[str, Any], name: str = CLAUDE, *, streams: bool = False, **fields: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": "Hi"}], **body}
    resolved = to(name, **fields)
    out = bedrock.outbound(resolved, CHAT, body, streams=streams)
    service.check(out.url, out.body, of(resolved).id)
    found: dict[str, Any] = orjson.loads(out.body)
    return found


@pytest.mark.parametrize("case", [case.values[1] for case in cases("requests") if case.values[0] == "bedrock"])
def test_a_recorded_request_is_what_botocore_would_send_and_the_service_would_take(case: dict[str, Any]) -> None:
    service.check(case["url"], json.dumps(case["sent"]).encode(), of(target(case["deployment"])).id)


def test_the_check_itself_refuses_fields_that_the_service_does_not_have() -> None:
    shape = service.model().operation_model("Converse").input_shape
    with pytest.raises(ParamValidationError):
        raise ParamValidationError(
            report=ParamValidator().validate({"modelId": "m", "messages": [], "top_k": 1}, shape).generate_report()
        )
    url = "https://h/model/m/converse"
    for wrong in ({"top_k": 1}, {"serviceTier": {"type": "owl"}}, {"inferenceConfig": {"temperature": 1.5}}):
        with pytest.raises(AssertionError):
            service.check(url, json.dumps({"messages": [], **wrong}).encode(), "m")


@pytest.mark.parametrize(
    ("name", "body", "param"),
    [
        (CLAUDE, {"n": 2}, "n"), (CLAUDE, {"seed": 1}, "seed"), (CLAUDE, {"logprobs": True}, "logprobs"),
        (CLAUDE, {"temperature": 1.5}, "temperature"), (CLAUDE, {"top_p": -1}, "top_p"),
        (CLAUDE, {"presence_penalty": 1}, "presence_penalty"), (CLAUDE, {"logit_bias": {"1": 1}}, "logit_bias"),
        (CLAUDE, {"service_tier": "owl"}, "service_tier"), (CLAUDE, {"metadata": {"a": 1}}, "metadata"),
        (CLAUDE, {"metadata": {"a": "ä"}}, "metadata"), (CLAUDE, {"audio": {}}, "audio"),
        (CLAUDE, {"modalities": ["text", "audio"]}, "modalities"), (CLAUDE, {"verbosity": "low"}, "verbosity"),
        (CLAUDE, {"stop": "\n"}, "stop"), (CLAUDE, {"functions": [{"name": "f"}]}, "functions"),
        (CLAUDE, {"reasoning_effort": "high", "temperature": 0.2}, "temperature"),
        (CLAUDE, {"reasoning_effort": "high", "top_k": 3}, "top_k"),
        (CLAUDE, {"web_search_options": {}}, "web_search_options"),
        (OLD, {"reasoning_effort": "low"}, "reasoning_effort"),
        (OLD, {"tools": [{"function": {"name": "f"}}], "parallel_tool_calls": False}, "parallel_tool_calls"),
        (NEWEST, {"temperature": 0}, "temperature"), (NEWEST, {"top_k": 3}, "top_k"),
        (NOVA, {"reasoning_effort": "high", "max_tokens": 5}, "max_tokens"),
        (NOVA_1, {"reasoning_effort": "low"}, "reasoning_effort"), (LLAMA, {"top_k": 3}, "top_k"),
        (R1, {"reasoning_effort": "low"}, "reasoning_effort"), (GPT, {"reasoning_effort": "none"}, "reasoning_effort"),
    ],
)  # fmt: skip
def test_what_it_cannot_take_is_refused_by_name_or_dropped(name: str, body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(body, name)
    assert caught.value.param == param
    left = {each: value for each, value in body.items() if each not in {param, "top_k"}}
    assert sent(body, name, drop_params=True) == sent(left, name)
    assert sent(body, name, additional_drop_params=(param,)) == sent(left, name)


@pytest.mark.parametrize(
    "nothing",
    [{"n": 1}, {"logprobs": False}, {"presence_penalty": 0}, {"store": True}, {"seed": None}, {"user": "u"},
     {"service_tier": "auto"}, {"prompt_cache_key": "k"}, {"safety_identifier": "s"}, {"parallel_tool_calls": True},
     {"tool_choice": "auto"}, {"reasoning_effort": "none"}, {"response_format": {"type": "text"}}, {"metadata": {}}],
)  # fmt: skip
def test_what_asks_for_nothing_is_left_out(nothing: dict[str, Any]) -> None:
    assert sent(nothing) == {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}


def user(kind: str, value: object) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": kind, kind: value}]}]


PLACE = "messages[0].content[0]"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "system", "content": "alone"}], "messages"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "owl", "content": "x"}], "messages[0].role"),
        ([{"role": "tool", "content": "x"}], "messages[0].tool_call_id"),
        (user("image_url", {"url": "https://example.com/a.png"}), f"{PLACE}.image_url.url"),
        (user("video_url", {"url": "https://example.com/a.mp4"}), f"{PLACE}.video_url.url"),
        (user("image_url", {"url": "data:image/bmp;base64,aGk="}), f"{PLACE}.image_url.url"),
        (user("image_url", {"url": "data:image/png;base64,"}), f"{PLACE}.image_url.url"),
        (user("image_url", {"url": "data:application/pdf;base64,aGk="}), f"{PLACE}.image_url.url"),
        (user("image_url", {"url": "s3://bucket/none"}), f"{PLACE}.image_url"),
        (user("file", {"file_data": "data:application/zip;base64,aGk="}), f"{PLACE}.file"),
        (user("file", {"file_id": "file-1"}), f"{PLACE}.file.file_data"),
        (user("input_audio", {"data": "aGk=", "format": "owl"}), f"{PLACE}.input_audio.format"),
        (user("owl", {}), PLACE),
        ([{"role": "assistant", "thinking_blocks": 3}], "messages[0].thinking_blocks"),
        ([{"role": "assistant", "thinking_blocks": [{"type": "owl"}]}], "messages[0].thinking_blocks[0]"),
    ],
)  # fmt: skip
def test_a_malformed_conversation_names_its_field(messages: list[Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent({"messages": messages})
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [{"function": {"name": "a.b"}}]}, "tools[0].function.name"),
        ({"tools": [{"function": {"name": "f"}}], "tool_choice": {"function": {"name": "g"}}}, "tool_choice"),
        ({"reasoning_effort": "much"}, "reasoning_effort"),
        ({"outputConfig": 3}, "outputConfig"),
        ({"inferenceConfig": 3}, "inferenceConfig"),
        ({"latency": "slow"}, "latency"),
        ({"top_k": "3"}, "top_k"),
    ],
)
def test_a_malformed_parameter_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(body)
    assert caught.value.param == param


def test_thoughts_of_another_provider_have_no_signature_and_are_left_out_for_claude() -> None:
    turn = {"role": "assistant", "content": "A", "thinking_blocks": [{"type": "thinking", "thinking": "Hm."}]}
    body = {"messages": [{"role": "user", "content": "Q"}, turn]}
    assert sent(body)["messages"][1]["content"] == [{"text": "A"}]
    kept = sent(body, HIDDEN)["messages"][1]["content"]
    assert kept == [{"reasoningContent": {"reasoningText": {"text": "Hm."}}}, {"text": "A"}]


@pytest.mark.parametrize("nothing", ["", None, " ", [], [{"type": "text", "text": ""}]])
def test_a_tool_that_returned_nothing_has_a_result_that_is_not_blank(nothing: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = {
        "messages": [
            {"role": "user", "content": "Go."},
            {"role": "assistant", "content": " ", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": nothing},
        ]
    }
    turns = [turn["content"] for turn in sent(body)["messages"]]
    assert turns[1:] == [
        [{"toolUse": {"toolUseId": "c1", "name": "f", "input": {}}}],
        [{"toolResult": {"toolUseId": "c1", "content": [{"json": {}}]}}],
    ]


@pytest.mark.parametrize(("effort", "told"), [("xhigh", "max"), ("max", "max"), ("minimal", "low")])
def test_efforts_that_a_model_does_not_have_become_the_next(effort: str, told: str) -> None:
    assert sent({"reasoning_effort": effort}, ADAPTIVE)["outputConfig"] == {"effort": told}


@pytest.mark.parametrize(
    ("name", "thinking", "structured"),
    [
        ("anthropic.claude-3-haiku-20240307-v1:0", Thinking.NEVER, False),
        ("anthropic.claude-3-7-sonnet-20250219-v1:0", Thinking.BUDGET, False),
        ("apac.anthropic.claude-sonnet-4-20250514-v1:0", Thinking.BUDGET, False),
        ("anthropic.claude-opus-4-1-20250805-v1:0", Thinking.BUDGET, False),
        ("jp.anthropic.claude-haiku-4-5-20251001-v1:0", Thinking.BUDGET, True),
        ("anthropic.claude-opus-4-6-v1", Thinking.ADAPTIVE, True),
        ("us-gov.anthropic.claude-opus-4-7", Thinking.ADAPTIVE, False),
        ("anthropic.claude-opus-5-5", Thinking.ADAPTIVE, True),
        ("us.amazon.nova-2-lite-v1:0", Thinking.NOVA, False),
        ("nova-2/" + HIDDEN, Thinking.NOVA, False),
        ("amazon.nova-micro-v1:0", Thinking.NEVER, False),
        ("qwen.qwen3-32b-v1:0", Thinking.NEVER, True),
        ("global.openai.gpt-6-luna", Thinking.NESTED, False),
        ("ai21.jamba-1-5-large-v1:0", Thinking.NEVER, False),
        (HIDDEN, Thinking.EFFORT, False),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-2-lite-v1:0", Thinking.NOVA, False),
    ],
)  # fmt: skip
def test_what_a_model_can_do_is_read_from_its_id(name: str, thinking: Thinking, *, structured: bool) -> None:
    assert (model(name).thinking, model(name).structured) == (thinking, structured)


@pytest.mark.parametrize("base", [CLAUDE, "bedrock/" + CLAUDE, "bedrock_converse/us-east-1/" + CLAUDE])
def test_what_a_profile_hides_is_told_by_its_base_model(base: str) -> None:
    found = of(to(HIDDEN, base_model=base))
    assert (found.id, found.family, found.thinking) == (HIDDEN, "anthropic", Thinking.BUDGET)


def test_other_endpoints_are_not_served() -> None:
    with pytest.raises(InvalidRequest, match="/v1/audio/speech"):
        bedrock.outbound(to(), SPEECH, {"input": "x"}, streams=False)


@pytest.mark.parametrize(
    ("name", "body", "param"),
    [
        ("amazon.titan-embed-text-v2:0", {"input": ["a", "b"]}, "input"),
        ("amazon.titan-embed-text-v1", {"input": "a", "dimensions": 256}, "dimensions"),
        ("cohere.embed-english-v3", {"input": "a", "dimensions": 256}, "dimensions"),
        ("cohere.embed-english-v3", {"input": [1, 2]}, "input"),
        ("cohere.embed-english-v3", {"input": ["a", "data:image/png;base64,aGk="]}, "input"),
        ("cohere.embed-english-v3", {"input": "a", "encoding_format": "owl"}, "encoding_format"),
        ("amazon.nova-2-multimodal-embeddings-v1:0", {"input": "a"}, "model"),
    ],
)
def test_embeddings_that_cannot_be_made_are_refused_by_name(name: str, body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bedrock.outbound(to(name), EMBEDDINGS, body, streams=False)
    assert caught.value.param == param


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "role", "content", "function", "name", "id", "url", "image_url", "file"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["messages", "tools", "tool_choice", "response_format", "stop", "temperature", "top_k",
                         "reasoning_effort", "max_tokens", "metadata", "n", "parallel_tool_calls", "service_tier",
                         "outputConfig", "guardrailConfig", "inferenceConfig", "thinking", "web_search_options",
                         "input", "additionalModelRequestFields", "dimensions", "latency", "seed"]),
        JUNK, max_size=6,
    ),
    st.sampled_from([*MODELS, "amazon.titan-embed-text-v2:0", "cohere.embed-v4:0"]),
    st.sampled_from([CHAT, EMBEDDINGS]),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_no_body_makes_anything_but_a_request_error(body: dict[str, Any], name: str, endpoint: str) -> None:
    body.setdefault("messages", [{"role": "user", "content": "x"}])
    try:
        bedrock.outbound(to(name), endpoint, body, streams=True)
    except RequestError:
        return
