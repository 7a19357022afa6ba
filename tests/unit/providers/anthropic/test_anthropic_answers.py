"""What comes from Anthropic: messages, streams and errors as OpenAI's; and nothing but a typed outcome, ever."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import BadUpstreamResponse, ContextLengthExceeded, InvalidRequest, RequestError, UpstreamError
from schemas.request import CHAT
from tests.unit.providers.anthropic.test_anthropic_requests import BEFORE, JSON, NOW, target
from workers.providers.dialects import anthropic
from workers.providers.usage import produced

USAGE = {
    "input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 3, "output_tokens": 8,
    "output_tokens_details": {"thinking_tokens": 2}, "service_tier": "standard",
}  # fmt: skip


def message(*blocks: dict[str, Any], stop: str = "end_turn", **fields: Any) -> dict[str, Any]:
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": NOW, "content": list(blocks),
            "stop_reason": stop, "usage": USAGE, **fields}  # fmt: skip


def read(body: Any, asked: dict[str, Any] | None = None, model: str = NOW) -> Any:
    result = anthropic.answer(target(model), CHAT, asked or {}, orjson.dumps(body), {})
    return orjson.loads(result.body)


TEXT = {"type": "text", "text": "Hi."}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "sig"}
USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}}


def test_text_thoughts_and_calls_of_one_message() -> None:
    body = read(message(THOUGHT, TEXT, USE, stop="tool_use"))
    assert body["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hi.",
                "reasoning_content": "Hm.",
                "thinking_blocks": [THOUGHT],
                "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}],
                "refusal": None,
            },
            "finish_reason": "tool_calls",
            "logprobs": None,
        }
    ]
    assert (body["id"], body["model"], body["object"]) == ("msg_1", NOW, "chat.completion")


def test_usage_counts_the_cache_as_part_of_the_prompt_and_keeps_the_raw() -> None:
    found = anthropic.answer(target(), CHAT, {}, orjson.dumps(message(TEXT)), {}).usage
    assert (found.input_tokens, found.cached_tokens, found.cache_write_tokens) == (18, 5, 3)
    assert (found.output_tokens, found.reasoning_tokens, found.raw) == (8, 2, USAGE)


@pytest.mark.parametrize(
    ("stop", "finish"),
    [("end_turn", "stop"), ("max_tokens", "length"), ("stop_sequence", "stop"), ("pause_turn", "stop"),
     ("refusal", "content_filter"), ("model_context_window_exceeded", "length"), ("new_one", "stop"), (None, "stop")],
)  # fmt: skip
def test_stop_reasons(stop: Any, finish: str) -> None:
    assert read(message(TEXT, stop=stop))["choices"][0]["finish_reason"] == finish


def test_a_forced_structured_answer_is_content_and_no_call() -> None:
    sent = orjson.loads(
        anthropic.outbound(
            target(BEFORE),
            CHAT,
            {"messages": [{"role": "user", "content": "x"}], "response_format": JSON},
            streams=False,
        ).body
    )
    use = {"type": "tool_use", "id": "t", "name": sent["tools"][0]["name"], "input": {"a": 1}}
    choice = read(message(use, stop="tool_use"), {"response_format": JSON}, BEFORE)["choices"][0]
    message_then = {"role": "assistant", "content": '{"a":1}', "refusal": None}
    assert (choice["message"], choice["finish_reason"]) == (message_then, "stop")


@pytest.mark.parametrize(
    "body", [[], {}, {"type": "message"}, message({"type": "text"}), message(content=3), {"content": []}]
)
def test_what_is_no_message_is_a_bad_answer(body: Any) -> None:
    with pytest.raises(BadUpstreamResponse):
        read(body)


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events)


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


START = {"type": "message_start", "message": message(stop="", usage={"input_tokens": 9, "output_tokens": 1})}
END: list[dict[str, Any]] = [
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 6}},
    {"type": "message_stop"},
]
WHOLE = sse(
    START,
    {"type": "ping"},
    *block(0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "H"},
           {"type": "thinking_delta", "thinking": "m."}, {"type": "signature_delta", "signature": "sig"}),
    *block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Hi"}, {"type": "text_delta", "text": "."}),
    *block(2, {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
           {"type": "input_json_delta", "partial_json": ""}, {"type": "input_json_delta", "partial_json": '{"x"'},
           {"type": "input_json_delta", "partial_json": ":1}"}),
    *block(3, {"type": "tool_use", "id": "t2", "name": "g", "input": {}}),
    *END,
)  # fmt: skip


@pytest.mark.parametrize("size", [1, 13, 100_000])
def test_a_stream_becomes_chunks_and_the_whole_is_what_the_message_would_be(size: int) -> None:
    stream = anthropic.stream(target(), CHAT, {})
    chunks = [
        orjson.loads(chunk)
        for start in range(0, len(WHOLE), size)
        for chunk, _ in stream.feed(WHOLE[start : start + size])
    ]
    assert {chunk["id"] for chunk in chunks} == {"msg_1"}
    assert len({chunk["created"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 15
    calls = [call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", [])]
    assert [call["index"] for call in calls if "id" in call] == [0, 1]
    choice = stream.body()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "Hi.",
        "reasoning_content": "Hm.",
        "thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "sig"}],
        "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
            {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }


def test_a_stream_that_is_cut_is_no_answer_and_an_error_in_it_is_typed() -> None:
    stream = anthropic.stream(target(), CHAT, {})
    list(stream.feed(WHOLE[:-200]))
    with pytest.raises(BadUpstreamResponse):
        stream.body()
    overloaded = sse(START, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    with pytest.raises(UpstreamError, match="Overloaded") as caught:
        list(anthropic.stream(target(), CHAT, {}).feed(overloaded))
    assert caught.value.status == 529


def test_a_stream_that_is_cut_tells_its_input_at_once_and_its_output_with_its_last_event_but_one() -> None:
    asked = {"messages": [{"role": "user", "content": "not counted"}]}
    text = block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "x" * 40})
    stream = anthropic.stream(target(), CHAT, {})
    list(stream.feed(sse(START)))
    assert not stream.begun
    list(stream.feed(sse(*text)))
    cut = produced(asked, stream.so_far())
    assert (cut.input_tokens, cut.output_tokens, cut.estimated) == (9, 10, True)
    list(stream.feed(sse(END[0])))
    counted = produced(asked, stream.so_far())
    assert (counted.input_tokens, counted.output_tokens, counted.estimated) == (9, 6, False)


@pytest.mark.parametrize(
    ("status", "kind", "text", "wanted"),
    [
        (400, "invalid_request_error", "prompt is too long: 9 tokens > 5 maximum", ContextLengthExceeded),
        (400, "invalid_request_error", "max_tokens: field required", RequestError),
        (401, "authentication_error", "invalid x-api-key", UpstreamError),
        (404, "not_found_error", "model: claude-0", UpstreamError),
        (429, "rate_limit_error", "slow down", UpstreamError),
        (529, "overloaded_error", "Overloaded", UpstreamError),
    ],
)
def test_errors_keep_their_status_and_message(status: int, kind: str, text: str, wanted: type[RequestError]) -> None:
    raw = orjson.dumps({"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_1"})
    found = anthropic.error(status, {"retry-after": "7"}, raw, 0.0)
    assert isinstance(found, wanted)
    assert text in found.message
    if isinstance(found, UpstreamError):
        assert (found.status, found.retry_after) == (status, 7.0)


ARGUMENTS = st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=5) | st.booleans(), max_size=3)


@given(st.text(max_size=20), st.lists(st.tuples(st.sampled_from("fg"), ARGUMENTS), max_size=3), st.text(max_size=9))
@settings(max_examples=50, deadline=None)
def test_a_conversation_goes_there_and_back_without_losing_meaning(
    text: str, calls: list[tuple[str, dict[str, Any]]], signature: str
) -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": signature}
    uses: list[dict[str, Any]] = [
        {"type": "tool_use", "id": f"t{n}", "name": name, "input": given} for n, (name, given) in enumerate(calls)
    ]
    blocks: list[dict[str, Any]] = [thought, *([{"type": "text", "text": text}] if text.strip() else []), *uses]
    told = read(message(*blocks))["choices"][0]["message"]
    again = [{"role": "user", "content": "Go."}, told, {"role": "user", "content": "On."}]
    sent = orjson.loads(anthropic.outbound(target(), CHAT, {"messages": again}, streams=False).body)
    assert sent["messages"][1] == {"role": "assistant", "content": blocks}


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    raw = bytearray(WHOLE if draw(st.booleans()) else orjson.dumps(message(THOUGHT, TEXT, USE)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(raw) - 1))
        what = draw(st.sampled_from(["flip", "cut", "double", "null"]))
        if what == "flip":
            raw[place] = draw(st.integers(0, 255))
        elif what == "cut":
            del raw[place : place + draw(st.integers(1, 40))]
        elif what == "double":
            raw[place:place] = raw[place : place + 40]
        else:
            raw[place : place + 4] = b"null"
    return bytes(raw)


@given(mangled())
@settings(max_examples=50, deadline=None)
def test_no_answer_and_no_stream_makes_anything_but_a_request_error(raw: bytes) -> None:
    for attempt in (
        lambda: anthropic.answer(target(), CHAT, {}, raw, {}),
        lambda: (list((stream := anthropic.stream(target(), CHAT, {})).feed(raw)), stream.body()),
        lambda: anthropic.error(400, {}, raw, 0.0),
    ):
        try:
            attempt()
        except RequestError:
            continue


def test_the_error_of_a_request_that_is_at_fault_is_the_callers() -> None:
    raw = orjson.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": "messages: bad"}})
    assert isinstance(anthropic.error(400, {}, raw, 0.0), InvalidRequest | UpstreamError)
