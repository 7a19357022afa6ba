"""What comes from Cohere, Jina and Voyage: faults, round trips, and nothing but a typed outcome, ever."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from broker.errors import BadUpstreamResponse, Fault, RequestError, UpstreamError
from schemas.request import CHAT, EMBEDDINGS, RERANK
from tests.golden.cases import FOLDER, dialect_of
from tests.golden.cases import target as golden_target
from tests.unit.providers.cohere.shapes import OURS, faults
from tests.unit.providers.cohere.test_cohere_requests import ARGUMENTS, JUNK, NAMES, WORDS, sent, target
from workers.providers.dialects import cohere, voyage

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
USAGE = {"billed_units": {"input_tokens": 5, "output_tokens": 6}, "tokens": {"input_tokens": 50, "output_tokens": 7}}


def read(body: object, endpoint: str = CHAT, asked: dict[str, Any] | None = None) -> Any:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return orjson.loads(cohere.answer(target(), endpoint, asked or HELLO, raw, {}).body)


def answer(message: dict[str, Any], finish: str = "COMPLETE", **more: Any) -> dict[str, Any]:
    return {"id": "c-1", "finish_reason": finish, "message": {"role": "assistant", **message}, "usage": USAGE, **more}


def test_the_usage_of_the_provider_itself_is_kept() -> None:
    found = cohere.answer(target(), CHAT, HELLO, orjson.dumps(answer({"content": []})), {"x-ratelimit-limit": "9"})
    assert (found.usage.raw, found.headers) == (USAGE, {"x-ratelimit-limit": "9"})
    meta = {"billed_units": {"search_units": 2}}
    ranked = {"results": [{"index": 0, "relevance_score": 1}], "meta": meta}
    asked = {"query": "q", "documents": ["d"]}
    assert cohere.answer(target(), RERANK, asked, orjson.dumps(ranked), {}).usage.raw == meta
    embedded = {"id": "e", "embeddings": {"float": [[1.0]]}, "meta": {"billed_units": {"images": 1}}}
    found = cohere.answer(target(), EMBEDDINGS, {"input": "x"}, orjson.dumps(embedded), {})
    assert found.usage.raw == embedded["meta"]
    listed = {"data": [{"embedding": [1.0], "index": 0}], "usage": {"total_tokens": 4}}
    found = voyage.answer(target("voyage"), EMBEDDINGS, {"input": "x"}, orjson.dumps(listed), {})
    assert (found.usage.raw, found.usage.input_tokens) == ({"total_tokens": 4}, 4)


def test_a_generation_that_failed_is_an_error() -> None:
    with pytest.raises(BadUpstreamResponse, match="generation failed"):
        read(answer({"content": []}, "ERROR"))
    with pytest.raises(UpstreamError) as caught:
        read(answer({"content": []}, "TIMEOUT"))
    assert (caught.value.status, caught.value.retriable) == (504, True)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("COMPLETE", "stop"), ("STOP_SEQUENCE", "stop"), ("MAX_TOKENS", "length"), ("ERROR_LIMIT", "length"),
     ("ERROR_TOXIC", "content_filter"), ("TOOL_CALL", "stop"), ("NEW_ONE", "stop"), (None, "stop")],
)  # fmt: skip
def test_finish_reasons_of_a_text(reason: str, finish: str) -> None:
    assert read(answer({"content": [{"type": "text", "text": "x"}]}, reason))["choices"][0]["finish_reason"] == finish


@pytest.mark.parametrize(
    ("endpoint", "asked", "body"),
    [
        (CHAT, HELLO, []),
        (CHAT, HELLO, {}),
        (CHAT, HELLO, b"<html>"),
        (CHAT, HELLO, {"message": "model not found"}),
        (CHAT, HELLO, answer({"content": [{"type": "text"}]})),
        (CHAT, HELLO, answer({"content": 3})),
        (CHAT, HELLO, answer({"role": "user"})),
        (CHAT, HELLO, answer({"tool_calls": [{"id": "x"}]})),
        (CHAT, HELLO, answer({"content": [], "citations": "none"})),
        (CHAT, HELLO, answer({"content": []}, logprobs={"text": "x"})),
        (EMBEDDINGS, {"input": "x"}, {"embeddings": {}}),
        (EMBEDDINGS, {"input": "x"}, {"embeddings": {"float": [["a"]]}}),
        (EMBEDDINGS, {"input": ["x", "y"]}, {"embeddings": {"float": [[1.0]]}}),
        (EMBEDDINGS, {"input": "x", "encoding_format": "base64"}, {"embeddings": {"base64": [[1.0]]}}),
        (RERANK, {"query": "q", "documents": ["d"]}, {"results": []}),
        (RERANK, {"query": "q", "documents": ["d"]}, {"results": [{"index": 0}]}),
        (RERANK, {"query": "q", "documents": ["d"]}, {"results": [{"index": 1, "relevance_score": 1}]}),
        (RERANK, {"query": "q", "documents": ["d"]}, {"results": [{"index": -1, "relevance_score": 1}]}),
        (RERANK, {"query": "q", "documents": ["d"]}, {"results": [{"index": 0, "relevance_score": True}]}),
    ],
)
def test_what_is_no_answer_is_a_bad_one(endpoint: str, asked: dict[str, Any], body: object) -> None:
    with pytest.raises(BadUpstreamResponse):
        read(body, endpoint, asked)


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events)


START = {"type": "message-start", "id": "c-1", "delta": {"message": {"role": "assistant"}}}
END = {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": USAGE}}


def part(kind: str, index: int, **message: Any) -> dict[str, Any]:
    return {"type": kind, "index": index, "delta": {"message": message}}


@pytest.mark.parametrize(
    "whole",
    [
        b"data: {",
        b"data: [DONE]\n\n",
        b"data: {}\n\n",
        sse(END),
        sse(START),
        sse(START, part("content-delta", 0)),
        sse(START, part("content-delta", 0, content={"text": 3})),
        sse(START, part("tool-call-delta", 0, tool_calls={"function": {"arguments": "x"}})),
        sse(START, part("tool-call-start", 0, tool_calls={"function": {}})),
        sse(START, {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "worn out"}}),
        sse(START, {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "error": "worn out"}}),
        sse(START) + b'event: error\ndata: {"message": "worn out"}\n\n',
        sse(START) + b"data: <html>\n\n",
    ],
)
def test_a_stream_that_breaks_is_a_bad_answer(whole: bytes) -> None:
    stream = cohere.stream(target(), CHAT, HELLO)
    with pytest.raises(BadUpstreamResponse):
        _ = (list(stream.feed(whole)), stream.body())


def test_a_stream_that_took_too_long_may_be_tried_again() -> None:
    stream = cohere.stream(target(), CHAT, HELLO)
    with pytest.raises(UpstreamError) as caught:
        list(stream.feed(sse(START, {"type": "message-end", "delta": {"finish_reason": "TIMEOUT"}})))
    assert caught.value.status == 504


def test_usage_is_for_who_asked_for_it_and_nothing_follows_the_end() -> None:
    stream = cohere.stream(target(), CHAT, HELLO)
    plain = [
        (bool(json.loads(chunk)["choices"]), told)
        for chunk, told in stream.feed(sse(START, END, START) + b"data: x\n\n")
    ]
    assert plain == [(True, True), (True, True), (False, False)]
    assert stream.done


@pytest.mark.parametrize(
    ("status", "message", "fault", "retriable"),
    [
        (429, "You are using a Trial key, which is limited to 40 API calls / minute.", Fault.RATE_LIMIT, True),
        (429, "You are using a Trial key, which is limited to 1000 API calls / month.", Fault.QUOTA, True),
        (402, "Please add or update your payment method", Fault.QUOTA, False),
        (499, "request cancelled", Fault.OVERLOADED, True),
        (401, "invalid api token", Fault.AUTH, False),
    ],
)
def test_what_is_wrong_by_what_is_said(status: int, message: str, fault: Fault, *, retriable: bool) -> None:
    found = cohere.error(status, {}, orjson.dumps({"message": message}), 0.0)
    assert isinstance(found, UpstreamError)
    assert (found.fault, found.retriable) == (fault, retriable)


@st.composite
def told(draw: st.DrawFn) -> dict[str, Any]:
    """Return a message of the assistant, as OpenAI has it and with what Cohere tells beside it."""
    called = draw(st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3))
    message: dict[str, Any] = {"role": "assistant", "content": draw(WORDS | st.none()) if called else draw(WORDS)}
    message |= draw(st.sampled_from([{}, {"reasoning_content": "Hm."}]))
    if called:
        message |= draw(st.sampled_from([{}, {"tool_plan": "First this."}]))
        message["tool_calls"] = [
            {"id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for place, (name, arguments) in enumerate(called)
        ]
    return message


def written(message: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return what goes to Cohere of a message, in blocks as it would answer it, and why it would have ended."""
    out = sent({"messages": [message]})["messages"][0]
    content = out.get("content") or []
    out["content"] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return out, "TOOL_CALL" if "tool_calls" in out else "COMPLETE"


@given(told())
@settings(max_examples=50, deadline=None)
def test_a_message_goes_there_and_back_as_it_was(message: dict[str, Any]) -> None:
    out, reason = written(message)
    choice = read(answer(out, reason))["choices"][0]
    assert choice["message"] == message
    assert choice["finish_reason"] == ("tool_calls" if "tool_calls" in message else "stop")


@given(told(), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_a_message_in_pieces_goes_there_and_back_as_it_was(message: dict[str, Any], size: int) -> None:
    out, reason = written(message)
    events: list[dict[str, Any]] = [START]
    if plan := out.get("tool_plan"):
        events += [part("tool-plan-delta", 0, tool_plan=piece) for piece in cut(plan, size)]
    for index, block in enumerate(out["content"]):
        kind = block["type"]
        events.append(part("content-start", index, content={"type": kind, kind: ""}))
        events += [part("content-delta", index, content={kind: piece}) for piece in cut(block[kind], size)]
        events.append({"type": "content-end", "index": index})
    for index, call in enumerate(out.get("tool_calls", [])):
        function = call["function"]
        empty = {**call, "function": {"name": function["name"], "arguments": ""}}
        events.append(part("tool-call-start", index, tool_calls=empty))
        events += [
            part("tool-call-delta", index, tool_calls={"function": {"arguments": piece}})
            for piece in cut(function["arguments"], size)
        ]
        events.append({"type": "tool-call-end", "index": index})
    stream = cohere.stream(target(), CHAT, HELLO)
    list(stream.feed(sse(*events, {"type": "message-end", "delta": {"finish_reason": reason, "usage": USAGE}})))
    choice = stream.body()["choices"][0]
    assert {**choice["message"], "content": choice["message"]["content"] or None} == message
    assert choice["finish_reason"] == ("tool_calls" if "tool_calls" in message else "stop")


def cut(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def recorded(kind: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for folder in ("cohere", "rerank"):
        found += [(folder, case) for case in json.loads((Path(FOLDER) / folder / f"{kind}.json").read_text())]
    return found


ANSWERS, STREAMS, ERRORS = recorded("answers"), recorded("streams"), recorded("errors")


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """Return JSON with one of its parts, at any depth, replaced, renamed or left out."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(JUNK | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63))
    places = sorted(value) if isinstance(value, dict) else range(len(value))
    place = draw(st.sampled_from(list(places)))
    copy = dict(value) if isinstance(value, dict) else list(value)
    way = draw(st.integers(0, 4))
    if way == 0:
        del copy[place]
    elif way == 1 and isinstance(copy, dict):
        copy[draw(st.text(max_size=4))] = copy.pop(place)
    else:
        copy[place] = draw(mutated(copy[place]))
    return copy


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_no_answer_makes_anything_but_a_typed_outcome(data: st.DataObject) -> None:
    _, case = data.draw(st.sampled_from(ANSWERS))
    raw = orjson.dumps(data.draw(mutated(case["answer"])))
    if data.draw(st.booleans()):
        raw = data.draw(garbled(raw))
    resolved = golden_target(case["deployment"])
    try:
        found = dialect_of(resolved).answer(resolved, case["endpoint"], case["asked"], raw, {})
    except RequestError:
        return
    body = orjson.loads(found.body)
    if case["endpoint"] == CHAT:
        assert faults(body, ChatCompletion, more=OURS) == []
    elif case["endpoint"] == RERANK and resolved.provider.dialect != "openai":
        assert [type(each["index"]) for each in body["results"]] == [int] * len(body["results"])
    assert found.usage.input_tokens >= 0


@st.composite
def garbled(draw: st.DrawFn, raw: bytes) -> bytes:
    """Return bytes cut off, or with a few of them replaced."""
    if not raw:
        return raw
    place, length = draw(st.integers(0, len(raw) - 1)), draw(st.integers(0, 9))
    return raw[:place] + draw(st.binary(max_size=4)) + (raw[place + length :] if draw(st.booleans()) else b"")


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_no_stream_makes_anything_but_a_typed_outcome(data: st.DataObject) -> None:
    folder, case = data.draw(st.sampled_from(STREAMS))
    lines = (Path(FOLDER) / folder / case["stream"]).read_bytes().split(b"\n")
    places = [place for place, line in enumerate(lines) if line.startswith(b"data: {")]
    place = data.draw(st.sampled_from(places))
    lines[place] = b"data: " + orjson.dumps(data.draw(mutated(orjson.loads(lines[place][6:]))))
    raw = b"\n".join(lines)
    if data.draw(st.booleans()):
        raw = data.draw(garbled(raw))
    resolved = golden_target(case["deployment"])
    stream = dialect_of(resolved).stream(resolved, case["endpoint"], case["asked"])
    try:
        chunks = [orjson.loads(chunk) for chunk, _ in stream.feed(raw)]
        body = stream.body()
    except RequestError:
        return
    assert [fault for chunk in chunks for fault in faults(chunk, ChatCompletionChunk, more=OURS)] == []
    assert faults(body, ChatCompletion, more=OURS) == []


@given(st.data(), st.integers(400, 599))
@settings(max_examples=50, deadline=None)
def test_no_error_makes_anything_but_a_typed_one(data: st.DataObject, status: int) -> None:
    folder, case = data.draw(st.sampled_from(ERRORS))
    deployment = case.get("deployment") or {"provider": folder, "model": "m"}
    raw = data.draw(garbled(orjson.dumps(data.draw(mutated(case["body"])))))
    found = dialect_of(golden_target(deployment)).error(status, {}, raw, 0.0)
    assert isinstance(found, RequestError)
    assert found.encode()
