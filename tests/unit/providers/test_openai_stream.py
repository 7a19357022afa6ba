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
        sse(delta(None, None, tool_calls={"a": 1})),
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


HEAD = {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "m"}


def chunks_of(*chunks: object) -> list[Any]:
    """What a reader gets of a stream of these chunks, those that tell the usage alone left out."""
    return [json.loads(chunk) for chunk, plain in Completion(CHAT).feed(sse(*chunks, "[DONE]")) if plain]


def test_a_chunk_that_is_as_it_should_be_goes_on_byte_by_byte() -> None:
    events = [b'{ "id":"c-1","created":7, "choices":[{"index":0,"delta":{"content":"a"}}],"x":1.0}'] * 2
    stream = b"".join(b"data: %s\n\n" % event for event in events)
    assert [chunk for chunk, _ in Completion(CHAT).feed(stream)] == events


def test_every_chunk_has_the_id_and_time_of_the_first() -> None:
    named = [{**HEAD, **delta("a")}, {**HEAD, "id": "c-2", "created": 8, **delta("b")}, delta("c", "stop")]
    chunks = chunks_of(*named)
    assert [(chunk["id"], chunk["created"]) for chunk in chunks] == [("c-1", 7)] * 3
    body = assemble(sse(*named))
    assert (body["id"], body["created"]) == ("c-1", 7)


def test_a_stream_without_ids_gets_one_and_the_completion_has_the_same() -> None:
    completion = Completion(CHAT)
    found = [json.loads(chunk) for chunk, _ in completion.feed(sse(delta("a"), delta("b", "stop")))]
    body = completion.body()
    assert [(chunk["id"], chunk["created"]) for chunk in found] == [(body["id"], body["created"])] * 2
    assert body["id"].startswith("chatcmpl-")


def test_a_first_chunk_that_has_no_id_yet_waits_for_the_streams() -> None:
    filtered = {"id": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    chunks = chunks_of(filtered, {**HEAD, **delta("a", "stop")})
    assert [chunk["id"] for chunk in chunks] == ["c-1", "c-1"]
    assert chunks[0]["prompt_filter_results"] == [{"prompt_index": 0}]


def called(**fields: Any) -> dict[str, Any]:
    return {**HEAD, **delta(None, fields.pop("finish", None), tool_calls=[fields])}


def calls_in(chunks: list[Any]) -> list[tuple[int, str | None, str]]:
    return [
        (call["index"], call.get("id"), call["function"].get("arguments", ""))
        for chunk in chunks
        for choice in chunk["choices"]
        for call in choice["delta"].get("tool_calls") or ()
    ]


def test_calls_without_an_index_are_given_one() -> None:
    chunks = chunks_of(
        called(id="a", function={"name": "f", "arguments": "{"}),
        called(function={"arguments": "}"}),
        called(id="b", function={"name": "f", "arguments": "{}"}),
        called(id="a", function={"arguments": " "}, finish="tool_calls"),
    )
    assert calls_in(chunks) == [(0, "a", "{"), (0, None, "}"), (1, "b", "{}"), (0, "a", " ")]


def test_two_calls_with_one_index_are_two_calls() -> None:
    stream = [
        called(index=0, id="a", function={"name": "f", "arguments": "{}"}),
        called(index=0, id="b", function={"name": "g", "arguments": "["}),
        called(index=0, function={"arguments": "]"}, finish="tool_calls"),
    ]
    assert calls_in(chunks_of(*stream)) == [(0, "a", "{}"), (1, "b", "["), (1, None, "]")]
    assert [call["function"] for call in assemble(sse(*stream))["choices"][0]["message"]["tool_calls"]] == [
        {"name": "f", "arguments": "{}"},
        {"name": "g", "arguments": "[]"},
    ]


def test_an_id_made_up_for_each_delta_is_no_new_call() -> None:
    stream = [
        called(index=0, id="a", function={"name": "f", "arguments": "{"}),
        called(index=0, id="b", function={"arguments": "}"}, finish="tool_calls"),
    ]
    (call,) = assemble(sse(*stream))["choices"][0]["message"]["tool_calls"]
    assert call == {"id": "a", "function": {"name": "f", "arguments": "{}"}}


def test_arguments_that_come_as_an_object_become_text() -> None:
    chunks = chunks_of(called(index=0, id="a", function={"name": "f", "arguments": {"x": 1}}, finish="tool_calls"))
    assert calls_in(chunks) == [(0, "a", '{"x":1}')]


def test_a_call_without_arguments_is_one_with_an_empty_object() -> None:
    stream = [called(index=0, id="a", function={"name": "f", "arguments": ""}), {**HEAD, **delta(None, "tool_calls")}]
    assert calls_in(chunks_of(*stream)) == [(0, "a", ""), (0, None, "{}")]
    (call,) = assemble(sse(*stream))["choices"][0]["message"]["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": "{}"}


@pytest.mark.parametrize("arguments", ['{"x": ', "{}{}", "x", '{"x": 1'])
def test_arguments_that_are_no_json_are_a_bad_answer_unless_the_limit_cut_them(arguments: str) -> None:
    call = called(index=0, id="a", function={"name": "f", "arguments": arguments})
    with pytest.raises(BadUpstreamResponse, match="arguments of a tool call"):
        assemble(sse(call, {**HEAD, **delta(None, "tool_calls")}))
    cut = assemble(sse(call, {**HEAD, **delta(None, "length")}))
    assert cut["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == arguments


def test_arguments_that_python_reads_are_json() -> None:
    call = called(
        index=0, id="a", function={"name": "f", "arguments": '{"x": NaN, "y": "\\ud83d"}'}, finish="tool_calls"
    )
    assert assemble(sse(call))["choices"][0]["finish_reason"] == "tool_calls"


def test_usage_beside_text_is_taken_out_of_its_chunk() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    stream = [{**HEAD, **delta("a"), "usage": usage}, {**HEAD, **delta("b", "stop"), "usage": usage}]
    assert [chunk["usage"] for chunk in chunks_of(*stream)] == [None, None]
    assert assemble(sse(*stream))["usage"] == usage


@pytest.mark.parametrize(
    ("stream", "begun"),
    [
        ([delta("", role="assistant", refusal=None)], False),
        ([{"choices": []}], False),
        ([delta("", "stop")], False),
        ([delta("", tool_calls=[])], False),
        ([delta(" ")], True),
        ([delta("", reasoning_content="hm")], True),
        ([delta(None, tool_calls=[{"id": "a", "function": {"name": "f"}}])], True),
    ],
)
def test_a_stream_has_begun_with_the_first_thing_a_reader_would_miss(stream: list[object], begun: bool) -> None:  # noqa: FBT001
    completion = Completion(CHAT)
    list(completion.feed(sse(*stream)))
    assert completion.begun is begun


def test_what_has_come_so_far_can_be_asked_at_any_time() -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 1}
    completion = Completion(CHAT)
    assert completion.so_far().counted is False
    list(completion.feed(sse({**HEAD, **delta("a"), "usage": usage})))
    assert completion.so_far().counted is True
    with pytest.raises(BadUpstreamResponse):
        list(completion.feed(sse({**HEAD, **delta("b")}, "not json")))
    body, counted = completion.so_far()
    assert (body["choices"][0]["message"]["content"], body["usage"], counted) == ("ab", usage, False)


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
