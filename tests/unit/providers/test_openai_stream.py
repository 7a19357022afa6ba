"""Streams that are not what they should be."""

import json
from typing import Any

import pytest

from broker.errors import BadUpstreamResponse, RequestError
from workers.providers.openai_stream import Completion

CHAT = "/v1/chat/completions"


def sse(*chunks: object) -> bytes:
    texts = [chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks]
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def delta(content: str | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content, **fields}, "finish_reason": finish}]}


def assemble(*pieces: bytes, **options: Any) -> dict[str, Any]:
    completion = Completion(CHAT, **options)
    for piece in pieces:
        for _ in completion.feed(piece):
            pass
    return completion.body()


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        sse("[DONE]"),
        sse(delta("a")),
        sse(delta("a"), delta("b")),
        sse({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}, "[DONE]"),
        sse(delta("a"), "not json"),
        sse(delta("a"), "[]"),
        sse({"choices": {"index": 0}}),
        sse({"choices": ["text"]}),
        sse({"choices": [{"index": "0", "delta": {}}]}),
        sse({"choices": [{"index": 0, "delta": "text"}]}),
        sse(delta(None, None, tool_calls=["text"])),
        sse(delta("a"), {"error": {"message": "the engine died", "type": "server_error"}}, "[DONE]"),
        b'event: error\ndata: {"message": "overloaded"}\n\n',
    ],
)
def test_a_stream_that_is_not_one_or_not_whole_is_a_bad_answer(stream: bytes) -> None:
    with pytest.raises(BadUpstreamResponse):
        assemble(stream)


def test_an_error_in_the_middle_keeps_the_status_it_names() -> None:
    broken = {"error": {"code": 429, "message": "slow down"}, "choices": [{"delta": {}, "finish_reason": "error"}]}
    with pytest.raises(RequestError) as caught:
        assemble(sse(delta("a"), broken))
    assert (caught.value.status, caught.value.message) == (429, "slow down")


@pytest.mark.parametrize("ending", [[delta("b", "stop")], [delta("b"), "[DONE]"], [delta("b", "stop"), "[DONE]"]])
def test_a_finish_reason_or_a_done_ends_a_stream(ending: list[object]) -> None:
    assert assemble(sse(delta("a"), *ending))["choices"][0]["message"]["content"] == "ab"


def test_what_follows_done_is_not_read() -> None:
    assert assemble(sse(delta("a", "stop"), "[DONE]", "not json"))["choices"][0]["message"]["content"] == "a"


def test_the_last_usage_counts_and_none_is_added_up() -> None:
    usages = [{**delta("a"), "usage": {"prompt_tokens": 1, "completion_tokens": n}} for n in (1, 2, 3)]
    assert assemble(sse(*usages, delta("", "stop"), "[DONE]"))["usage"] == {"prompt_tokens": 1, "completion_tokens": 3}


def test_groqs_own_field_is_a_usage_too() -> None:
    last = {**delta(None, "stop"), "x_groq": {"usage": {"prompt_tokens": 4, "completion_tokens": 2}}}
    assert assemble(sse(delta("a"), last))["usage"] == {"prompt_tokens": 4, "completion_tokens": 2}


def test_tool_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    def call(arguments: str, name: str | None = None) -> dict[str, Any]:
        return {"function": {"arguments": arguments}} | ({"id": name} if name else {})

    body = assemble(
        sse(
            delta(None, None, tool_calls=[call("{", "a")]),
            delta(None, None, tool_calls=[call("}")]),
            delta(None, "tool_calls", tool_calls=[call("{}", "b")]),
        )
    )
    assert body["choices"][0]["message"]["tool_calls"] == [
        {"id": "a", "function": {"arguments": "{}"}},
        {"id": "b", "function": {"arguments": "{}"}},
    ]


def test_a_name_that_is_repeated_in_every_chunk_is_told_once() -> None:
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "1"}}
    body = assemble(sse(delta(None, None, tool_calls=[call]), delta(None, "tool_calls", tool_calls=[call])))
    assert body["choices"][0]["message"]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "11"}}
    ]


def test_a_stream_without_end_is_cut_off() -> None:
    with pytest.raises(BadUpstreamResponse, match="too long"):
        assemble(*[sse(delta("x" * 100))] * 100, max_bytes=5000)


def test_an_event_without_end_is_cut_off() -> None:
    with pytest.raises(BadUpstreamResponse, match="larger than"):
        assemble(*[b"data: " + b"x" * (1 << 20)] * 20)
