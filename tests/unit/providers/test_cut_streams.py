"""Streams of every dialect, damaged and cut anywhere: a typed outcome, chunks of one id, and what came can be asked."""

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import RequestError
from tests.golden.cases import stream_of
from tests.unit.providers.anthropic.test_anthropic_answers import WHOLE
from tests.unit.providers.anthropic.test_anthropic_requests import target as anthropic_target
from tests.unit.providers.bedrock.test_bedrock_requests import to as bedrock_target
from tests.unit.providers.gemini.test_gemini import STREAM
from tests.unit.providers.gemini.test_gemini import target as gemini_target
from workers.providers.dialect import Stream
from workers.providers.dialects import anthropic, bedrock, gemini
from workers.providers.openai_shapes import ResponseStream
from workers.providers.openai_stream import Completion
from workers.providers.usage import produced

CHAT = "/v1/chat/completions"
ASKED = {"messages": [{"role": "user", "content": "Hello"}]}


def openai_events() -> bytes:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    deltas: list[Any] = [
        {"role": "assistant", "content": ""},
        {"content": "Hi"},
        {"reasoning_content": "hm", "thinking_blocks": [{"type": "thinking", "thinking": "hm"}]},
        {"tool_calls": [call]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}, {**call, "index": 1, "id": "b"}]},
    ]
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    chunks.append({**head, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    return b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


def response_events() -> bytes:
    response: dict[str, Any] = {"id": "r", "model": "m", "output": [], "usage": None}
    events = [
        {"type": "response.created", "response": response},
        {"type": "response.output_text.delta", "delta": "Hi"},
        {"type": "response.completed", "response": {**response, "usage": {"input_tokens": 1, "output_tokens": 1}}},
    ]
    return b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events)


STREAMS: dict[str, tuple[bytes, Callable[[], Stream]]] = {
    "openai": (openai_events(), lambda: Completion(CHAT)),
    "responses": (response_events(), ResponseStream),
    "anthropic": (WHOLE, lambda: anthropic.stream(anthropic_target(), CHAT, {})),
    "gemini": (STREAM, lambda: gemini.stream(gemini_target(), CHAT, {})),
    "bedrock": (stream_of("bedrock", "tools.hex"), lambda: bedrock.stream(bedrock_target(), CHAT, {})),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_may_be_cut_after_any_byte(name: str) -> None:
    events, make = STREAMS[name]
    came = 0
    for size in range(len(events) + 1):
        stream = make()
        chunks = [orjson.loads(chunk) for chunk, _ in stream.feed(events[:size])]
        assert len({chunk.get("id") for chunk in chunks}) <= 1
        found = produced(ASKED, stream.so_far())
        assert stream.begun or found.output_tokens == 0 or "usage" in stream.so_far().body
        came = max(came, found.output_tokens)
    assert came > 0
    assert stream.body()


@pytest.mark.parametrize("name", STREAMS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_damaged_stream_is_a_typed_error_or_chunks_and_never_silences_what_came(
    name: str, data: st.DataObject
) -> None:
    events, make = STREAMS[name]
    raw = bytearray(events)
    parts = [
        b"null",
        b"{}",
        b"[]",
        b'"x"',
        b"-1",
        b"1e99",
        b"true",
        b"data: ",
        b"\n\n",
        b"\xff",
        b'{"a":' * 300,
        b"[" * 300,
    ]
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw)))
        raw[place : place + data.draw(st.integers(0, 12))] = data.draw(st.sampled_from(parts))
    stream = make()
    try:
        for chunk, _ in stream.feed(bytes(raw)):
            assert isinstance(orjson.loads(chunk), dict)
        stream.body()
    except RequestError:
        pass
    found = produced(ASKED, stream.so_far())
    assert found.input_tokens >= 0
    assert found.output_tokens >= 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["", "x", "{}", "tool_calls", "stop", "length"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "tool_calls", "function", "arguments", "name", "id", "index", "text"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(
    choices=st.lists(
        st.fixed_dictionaries({"delta": VALUES}, optional={"finish_reason": VALUES, "index": VALUES, "text": VALUES}),
        max_size=6,
    ),
    endpoint=st.sampled_from([CHAT, "/v1/completions"]),
)
def test_chunks_of_any_shape_are_a_typed_error_or_an_answer(choices: list[Any], endpoint: str) -> None:
    completion = Completion(endpoint)
    stream = b"".join(b"data: %s\n\n" % orjson.dumps({"choices": [choice]}) for choice in choices) + b"data: [DONE]\n\n"
    try:
        list(completion.feed(stream))
        completion.body()
    except RequestError:
        pass
    assert produced(ASKED, completion.so_far()).output_tokens >= 0
