"""What a caller may write means the same to every dialect that writes it anew, or is refused by the same name."""

from typing import Any

import orjson
import pytest

from broker.errors import BadUpstreamResponse, Fault, InvalidRequest, RequestError, UpstreamError
from schemas.request import CHAT
from tests.parameter_table import sent, target
from workers.providers.dialects import anthropic, cohere
from workers.providers.openai import error_inside

OURS = ("anthropic", "gemini", "vertex_ai", "cohere", "bedrock")
HI = {"role": "user", "content": "Hi"}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
ALLOWED = {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]}
ABSENT = {"anthropic": "seed", "gemini": "logit_bias", "vertex_ai": "logit_bias", "cohere": "n", "bedrock": "seed"}


def refused(provider: str, asked: dict[str, Any]) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        sent(provider, asked)
    return caught.value.param


@pytest.mark.parametrize("provider", OURS)
@pytest.mark.parametrize("content", [None, "Well."])
def test_a_refusal_of_the_assistant_stays_in_the_conversation(provider: str, content: str | None) -> None:
    turn = {"role": "assistant", "content": content, "refusal": "I will not."}
    written = orjson.dumps(sent(provider, {"messages": [HI, turn, HI]})).decode()
    assert [text for text in (content or "Hi", "I will not.") if text not in written] == []


@pytest.mark.parametrize("provider", OURS)
@pytest.mark.parametrize(
    "asked",
    [
        {"tool_choice": "required"}, {"tool_choice": TOOLS[0]}, {"tools": [], "tool_choice": "required"},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "h"}}},
    ],
)  # fmt: skip
def test_a_tool_that_must_be_called_has_to_be_offered(provider: str, asked: dict[str, Any]) -> None:
    assert refused(provider, asked) == "tool_choice"


@pytest.mark.parametrize("provider", OURS)
@pytest.mark.parametrize("choice", ["auto", "none"])
def test_a_choice_that_asks_for_no_tool_needs_none(provider: str, choice: str) -> None:
    assert sent(provider, {"tool_choice": choice}) == sent(provider, {})


@pytest.mark.parametrize("provider", ["anthropic", "cohere", "bedrock"])
def test_tools_that_are_not_allowed_are_not_offered(provider: str) -> None:
    chosen = {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": ALLOWED}}
    assert sent(provider, chosen) == sent(provider, {"tools": TOOLS[:1], "tool_choice": "required"})


@pytest.mark.parametrize("provider", OURS)
@pytest.mark.parametrize(
    "asked",
    [
        {"stop": ""}, {"functions": []}, {"parallel_tool_calls": False}, {"verbosity": "medium"}, {"n": 1},
        {"service_tier": "auto"} , {"prompt_cache_retention": "24h"}, {"prompt_cache_options": {}}, {"store": True},
        {"prediction": {"type": "content", "content": "x"}}, {"prompt_cache_key": "k"},
    ],
)  # fmt: skip
def test_what_changes_nothing_of_an_answer_is_left_out_without_a_word(provider: str, asked: dict[str, Any]) -> None:
    found = sent(provider, asked)
    found.pop("service_tier", None)
    assert found == sent(provider, {})


@pytest.mark.parametrize("provider", OURS)
def test_an_allowed_parameter_passes_through_by_name(provider: str) -> None:
    name = ABSENT[provider]
    assert refused(provider, {name: 2}) == name
    found = sent(provider, {name: 2}, allowed_openai_params=(name,))
    assert found.get("additionalModelRequestFields", found)[name] == 2


@pytest.mark.parametrize("provider", ["openai", *OURS])
def test_a_bound_of_the_callers_goes_before_the_deployments_by_either_name(provider: str) -> None:
    for given, fixed in (("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")):
        assert sent(provider, {given: 5}, extra_body={fixed: 900}) == sent(provider, {given: 5})


@pytest.mark.parametrize("provider", ["anthropic", "bedrock"])
def test_a_text_of_white_space_is_no_block(provider: str) -> None:
    blank = {"type": "text", "text": " \n"}
    messages = [
        {"role": "system", "content": " "},
        {"role": "user", "content": [blank, {"type": "text", "text": "Hi"}]},
    ]
    assert sent(provider, {"messages": messages}) == sent(provider, {})


def test_claude_is_given_no_beginning_that_ends_with_white_space_and_no_thoughts_of_others() -> None:
    thought = {"type": "thinking", "thinking": "Hm."}
    turn = {"role": "assistant", "content": "So: ", "thinking_blocks": [thought]}
    assert sent("anthropic", {"messages": [HI, turn]})["messages"][1]["content"] == [{"type": "text", "text": "So:"}]


@pytest.mark.parametrize("provider", OURS)
def test_a_part_that_cannot_stand_there_is_named_by_its_place(provider: str) -> None:
    turn = {"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "https://e.com/a.png"}}]}
    assert refused(provider, {"messages": [HI, turn, HI]}) == "messages[1].content[0]"


def events(*told: dict[str, Any]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (each["type"].encode(), orjson.dumps(each)) for each in told)


FORMAT = {"response_format": {"type": "json_object"}}


def of_claude(*blocks: tuple[dict[str, Any], dict[str, Any]]) -> bytes:
    told: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": "m", "model": "c"}}]
    for index, (block, grown) in enumerate(blocks):
        told += [
            {"type": "content_block_start", "index": index, "content_block": block},
            {"type": "content_block_delta", "index": index, "delta": grown},
            {"type": "content_block_stop", "index": index},
        ]
    return events(*told, {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}, {"type": "message_stop"})


TEXT = ({"type": "text", "text": ""}, {"type": "text_delta", "text": "Here it is:"})


def stand_in(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    block = {"type": "tool_use", "id": "t", "name": "structured_answer", "input": {}}
    return block, {"type": "input_json_delta", "partial_json": text}


@pytest.mark.parametrize(
    ("blocks", "content"),
    [((TEXT, stand_in('{"a":1}')), '{"a":1}'), ((stand_in("{}"), stand_in('{"a":1}')), "{}"), ((TEXT,), "Here it is:")],
)
def test_a_structured_answer_of_claude_is_streamed_without_what_stands_beside_it(blocks: Any, content: str) -> None:
    stream = anthropic.stream(target("anthropic"), CHAT, FORMAT)
    told = [orjson.loads(chunk)["choices"] for chunk, _ in stream.feed(of_claude(*blocks))]
    assert "".join(each[0]["delta"].get("content", "") for each in told if each) == content
    assert stream.body()["choices"][0]["message"]["content"] == content


def test_what_is_held_back_of_a_broken_stream_is_charged() -> None:
    stream = anthropic.stream(target("anthropic"), CHAT, FORMAT)
    list(stream.feed(of_claude(TEXT).partition(b"event: message_delta")[0]))
    assert stream.so_far().body["choices"][0]["message"]["content"] == "Here it is:"


def test_the_first_of_two_structured_answers_is_the_answer_of_cohere_too() -> None:
    told: list[dict[str, Any]] = [{"type": "message-start", "id": "m"}]
    for index, text in enumerate(("{}", '{"a":1}')):
        call = {"id": "t", "function": {"name": "structured_answer", "arguments": text}}
        told += [
            {"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": call}}},
            {"type": "tool-call-end", "index": index},
        ]
    told.append({"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}})
    stream = cohere.stream(target("cohere"), CHAT, {**FORMAT, "tools": TOOLS})
    list(stream.feed(events(*told)))
    assert stream.body()["choices"][0]["message"]["content"] == "{}"


@pytest.mark.parametrize(
    ("told", "status", "fault"),
    [
        ({"type": "insufficient_quota"}, 429, Fault.QUOTA),
        ({"code": "rate_limit_exceeded"}, 429, Fault.RATE_LIMIT),
        ({"type": "overloaded_error"}, 503, Fault.OVERLOADED),
        ({"code": "invalid_api_key"}, 401, Fault.AUTH),
        ({"code": "tool_use_failed", "status_code": 400}, 400, Fault.BAD_REQUEST),
    ],
)
def test_an_error_inside_a_stream_is_typed_by_its_field(told: dict[str, Any], status: int, fault: Fault) -> None:
    found: RequestError = error_inside({"error": {"message": "No.", **told}})
    assert isinstance(found, UpstreamError)
    assert (found.status, found.fault) == (status, fault)


def test_an_error_inside_a_stream_that_says_nothing_of_its_kind_is_a_bad_answer() -> None:
    assert isinstance(error_inside({"error": {"message": "No.", "type": "server_error"}}), BadUpstreamResponse)
