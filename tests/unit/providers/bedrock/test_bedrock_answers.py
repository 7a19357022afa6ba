"""What comes from Bedrock: answers, streams and exceptions as OpenAI's; and nothing but a typed outcome, ever."""

import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import BadUpstreamResponse, ContextLengthExceeded, RequestError, UpstreamError
from schemas.request import CHAT, EMBEDDINGS
from tests.golden.cases import cases, stream_of, target
from tests.unit.providers.bedrock import frames, service
from tests.unit.providers.bedrock.test_bedrock_requests import CLAUDE, OLD, to
from workers.providers.dialects import bedrock

ANSWERS = [case.values[1] for case in cases("answers") if case.values[0] == "bedrock"]
STREAMS = [case.values[1] for case in cases("streams") if case.values[0] == "bedrock"]
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


def read(answer: Any, asked: dict[str, Any] | None = None, name: str = CLAUDE) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(bedrock.answer(to(name), CHAT, asked or {}, orjson.dumps(answer), {}).body)
    return found


def told(raw: bytes, asked: dict[str, Any] | None = None, name: str = CLAUDE) -> tuple[list[Any], dict[str, Any]]:
    stream = bedrock.stream(to(name), CHAT, asked or {})
    chunks = [orjson.loads(chunk) for chunk, _ in stream.feed(raw)]
    return chunks, stream.body()


@pytest.mark.parametrize("case", [case for case in ANSWERS if case["endpoint"] == CHAT])
def test_a_recorded_answer_is_one_to_botocore(case: dict[str, Any]) -> None:
    parsed = service.parse("Converse", json.dumps(case["answer"]).encode())
    assert parsed["stopReason"] == case["answer"]["stopReason"]
    assert parsed["output"]["message"]["role"] == "assistant"
    blocks = [block.keys() for block in case["answer"]["output"]["message"]["content"]]
    assert [block.keys() for block in parsed["output"]["message"]["content"]] == blocks


@pytest.mark.parametrize("case", STREAMS)
def test_a_recorded_stream_is_one_to_botocore(case: dict[str, Any]) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(stream_of("bedrock", case["stream"]))
    shape = service.model().operation_model("ConverseStream").output_shape.members["stream"]
    messages = [(message.headers[":event-type"], json.loads(message.payload)) for message in buffer]
    assert {name for name, _ in messages} <= shape.members.keys()
    for name, payload in messages:
        told = {field: value for field, value in payload.items() if field != "p"}
        assert told.keys() <= shape.members[name].members.keys()


def embedded(answer_: dict[str, Any], **asked: Any) -> dict[str, Any]:
    target_ = to("amazon.titan-embed-text-v2:0")
    raw = orjson.dumps(answer_)
    found: dict[str, Any] = orjson.loads(bedrock.answer(target_, EMBEDDINGS, {"input": "Hi", **asked}, raw, {}).body)
    return found


def test_an_embedding_is_base64_where_that_is_asked_for_and_uncounted_where_nothing_counts_it() -> None:
    assert embedded({"embedding": [1.0, -2.0]}, encoding_format="base64") == {
        "object": "list",
        "model": "amazon.titan-embed-text-v2:0",
        "data": [{"object": "embedding", "index": 0, "embedding": "AACAPwAAAMA="}],
    }
    assert embedded({"embeddingsByType": {"float": [1]}, "inputTextTokenCount": 2})["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize("wrong", [{}, {"embedding": ["a"]}, {"embedding": 3}, {"embeddings": []}, {"embeddings": 3}])
def test_what_is_no_embedding_is_a_bad_answer(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadUpstreamResponse):
        embedded(wrong)


def answer(*blocks: dict[str, Any], stop: str = "end_turn") -> dict[str, Any]:
    usage = {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10}
    message = {"role": "assistant", "content": list(blocks)}
    return {"output": {"message": message}, "stopReason": stop, "usage": usage, "metrics": {"latencyMs": 1}}


def events(blocks: list[dict[str, Any]], stop: str, pieces: int) -> Iterator[bytes]:
    """The same answer as Bedrock streams it, each text in pieces."""
    yield frames.event("messageStart", {"role": "assistant"})
    for index, block in enumerate(blocks):
        place = {"contentBlockIndex": index}
        deltas: list[dict[str, Any]] = []
        if "text" in block:
            deltas = [{"text": part} for part in cut(block["text"], pieces)]
        elif "toolUse" in block:
            use = block["toolUse"]
            start = {"toolUse": {"toolUseId": use["toolUseId"], "name": use["name"]}}
            yield frames.event("contentBlockStart", {**place, "start": start})
            deltas = [{"toolUse": {"input": part}} for part in cut(json.dumps(use["input"]), pieces)]
        elif "redactedContent" in block["reasoningContent"]:
            deltas = [{"reasoningContent": block["reasoningContent"]}]
        else:
            thought = block["reasoningContent"]["reasoningText"]
            deltas = [{"reasoningContent": {"text": part}} for part in cut(thought["text"], pieces)]
            deltas.append({"reasoningContent": {"signature": thought["signature"]}})
        for delta in deltas:
            yield frames.event("contentBlockDelta", {**place, "delta": delta, "p": "abc"})
        yield frames.event("contentBlockStop", place)
    yield frames.event("messageStop", {"stopReason": stop})
    usage = {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10}
    yield frames.event("metadata", {"usage": usage, "metrics": {"latencyMs": 1}})


def cut(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
NAME = st.text("abcXYZ019_-", min_size=1, max_size=10)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
CALL = st.builds(
    lambda identity, name, arguments: {
        "id": identity,
        "type": "function",
        "function": {"name": name, "arguments": orjson.dumps(arguments).decode()},
    },
    NAME, NAME, st.dictionaries(TEXT, VALUE, max_size=3),
)  # fmt: skip
THOUGHT = st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": "c2ln"}, TEXT) | st.just(
    {"type": "redacted_thinking", "data": "cmVk"}
)


@st.composite
def turns(draw: st.DrawFn) -> dict[str, Any]:
    """A turn of the assistant, as OpenAI writes it."""
    text, calls = draw(TEXT | st.none()), draw(st.lists(CALL, max_size=3))
    thoughts = draw(st.lists(THOUGHT, max_size=2))
    content = text if text is not None or calls else "x"
    turn: dict[str, Any] = {"role": "assistant", "content": content}
    if thoughts:
        thinking = "".join(each.get("thinking", "") for each in thoughts)
        turn |= {"thinking_blocks": thoughts, **({"reasoning_content": thinking} if thinking else {})}
    return {**turn, "tool_calls": calls} if calls else turn


@given(st.lists(st.tuples(TEXT, turns()), min_size=1, max_size=3), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_a_conversation_goes_there_and_back_without_losing_anything(spoken: list[Any], pieces: int) -> None:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "S"}]
    for question, turn in spoken:
        messages += [{"role": "user", "content": question}, turn]
        messages += [
            {"role": "tool", "tool_call_id": call["id"], "content": question} for call in turn.get("tool_calls", [])
        ]
    out = bedrock.outbound(to(), CHAT, {"messages": messages}, streams=False)
    service.check(out.url, out.body, CLAUDE)
    said = [turn["content"] for turn in json.loads(out.body)["messages"] if turn["role"] == "assistant"]
    for blocks, (_, turn) in zip(said, spoken, strict=True):
        stop = "tool_use" if turn.get("tool_calls") else "end_turn"
        assert read(answer(*blocks, stop=stop))["choices"][0]["message"] == turn
        _, body = told(b"".join(events(blocks, stop, pieces)))
        assert _parsed(body["choices"][0]["message"]) == _parsed(turn)
        assert body["usage"]["total_tokens"] == 10
    heard = [block for turn in json.loads(out.body)["messages"] if turn["role"] == "user" for block in turn["content"]]
    wanted = [part for question, turn in spoken for part in [question] * (1 + len(turn.get("tool_calls", [])))]
    assert sorted(_said(block) for block in heard) == sorted(wanted)


def _said(block: dict[str, Any]) -> str:
    return str(block["text"] if "text" in block else block["toolResult"]["content"][0]["text"])


def _parsed(message: dict[str, Any]) -> dict[str, Any]:
    calls = [
        {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
        for call in message.get("tool_calls", [])
    ]
    # A stream cannot know at its first chunk that there will be no text: it says an empty one.
    return {**message, "content": message["content"] or None, "tool_calls": calls}


@pytest.mark.parametrize(
    "body",
    [[], {}, {"output": {}}, {"output": {"message": {"role": "user", "content": []}}}, answer({"text": 3}),
     answer({"toolUse": {"name": "f"}}), {"output": {"message": {"role": "assistant", "content": 3}}}],
)  # fmt: skip
def test_what_is_no_message_is_a_bad_answer(body: Any) -> None:
    with pytest.raises(BadUpstreamResponse):
        read(body)


def test_an_exception_with_a_good_status_is_that_exception() -> None:
    with pytest.raises(UpstreamError, match="slow") as caught:
        read({"__type": "com.amazon.bedrock#ThrottlingException", "message": "slow"})
    assert caught.value.status == 429


def test_a_block_of_a_kind_that_is_not_known_yet_is_passed_over() -> None:
    assert read(answer({"owl": {"wise": True}}, {"text": "a"}))["choices"][0]["message"]["content"] == "a"


def test_of_two_structured_answers_the_first_counts() -> None:
    uses = [{"toolUse": {"toolUseId": str(n), "name": "structured_answer", "input": {"n": n}}} for n in (1, 2)]
    choice = read(answer(*uses, stop="tool_use"), {"response_format": FORMAT}, OLD)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ('{"n":1}', "stop")
    _, body = told(b"".join(events(uses, "tool_use", 3)), {"response_format": FORMAT}, OLD)
    assert (body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"]) == ('{"n": 1}', "stop")


START = frames.event("messageStart", {"role": "assistant"})


@pytest.mark.parametrize(
    ("raw", "kind", "status", "retriable"),
    [
        (frames.exception("throttlingException", {"message": "slow"}), UpstreamError, 429, True),
        (frames.exception("internalServerException", {"message": "oh"}), UpstreamError, 500, True),
        (frames.exception("serviceUnavailableException", {"message": "oh"}), UpstreamError, 503, True),
        (frames.exception("validationException", {"message": "no"}), UpstreamError, 400, False),
        (frames.exception("validationException", {"message": "Input is too long for requested model."}),
         ContextLengthExceeded, 400, False),
        (frames.exception("modelStreamErrorException", {"message": "oh"}), UpstreamError, 424, True),
        (frames.exception("modelStreamErrorException", {"message": "oh", "originalStatusCode": 503}),
         UpstreamError, 503, True),
        (frames.exception("modelStreamErrorException", {"originalMessage": "bad", "originalStatusCode": 400}),
         UpstreamError, 400, False),
        (frames.exception("modelTimeoutException", {"message": "late"}), UpstreamError, 408, True),
        (frames.exception("owlException", {}), UpstreamError, 500, True),
        (frames.error("InternalFailure", "oh"), UpstreamError, 500, True),
    ],
)  # fmt: skip
def test_an_exception_in_a_stream_is_typed_with_its_status(
    raw: bytes, kind: type[RequestError], status: int, *, retriable: bool
) -> None:
    with pytest.raises(kind) as caught:
        told(START + raw)
    assert (type(caught.value), caught.value.status, caught.value.retriable) == (kind, status, retriable)


@pytest.mark.parametrize(
    "raw",
    [
        b"", START, stream_of("bedrock", "text.hex")[:-200], b'{"message": "no"}' * 3, b"data: {}\n\n" * 3,
        frames.event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "a"}}),
        START + frames.event("contentBlockDelta", {"delta": {"text": "a"}}),
        START + frames.event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": 3}}),
        START + frames.event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": "{"}}}),
        START + frames.frame(frames.header(":message-type", "event") + frames.header(":event-type", "metadata"), b"{"),
        frames.event("messageStart", {"role": "user"}),
    ],
)  # fmt: skip
def test_what_is_no_stream_or_is_cut_is_a_bad_answer(raw: bytes) -> None:
    with pytest.raises(BadUpstreamResponse):
        told(raw)


def test_what_is_held_back_has_come_and_is_charged_where_the_stream_breaks() -> None:
    stream = bedrock.stream(to(OLD), CHAT, {"response_format": FORMAT})
    piece = frames.event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "I think "}})
    assert [orjson.loads(chunk)["choices"][0]["delta"]["content"] for chunk, _ in stream.feed(START + piece * 2)] == [
        ""
    ]
    assert stream.so_far().body["choices"][0]["message"]["content"] == "I think I think "


def test_a_stream_that_said_why_it_ended_is_whole_without_its_usage() -> None:
    raw = START + frames.event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "a"}})
    _, body = told(raw + frames.event("messageStop", {"stopReason": "end_turn"}))
    assert (body["choices"][0]["message"]["content"], "usage" in body) == ("a", False)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["text", "toolUse"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def changed(value: Any, data: st.DataObject) -> Any:
    """The same JSON with one place in it replaced, taken away or put in."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 3)):
        name = data.draw(st.sampled_from(sorted(value)))
        if data.draw(st.booleans()):
            return {**value, name: changed(value[name], data)}
        return {each: inner for each, inner in value.items() if each != name}
    if isinstance(value, list) and value and data.draw(st.integers(0, 3)):
        place = data.draw(st.integers(0, len(value) - 1))
        return [changed(each, data) if index == place else each for index, each in enumerate(value)]
    return data.draw(JUNK)


@given(st.sampled_from(ANSWERS), st.data())
@settings(max_examples=50, deadline=None)
def test_a_changed_answer_is_an_answer_or_a_typed_error(case: dict[str, Any], data: st.DataObject) -> None:
    raw = json.dumps(changed(case["answer"], data)).encode()
    if data.draw(st.integers(0, 9)) == 0:
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    try:
        bedrock.answer(target(case["deployment"]), case["endpoint"], case["asked"], raw, case.get("headers", {}))
    except RequestError:
        return


@given(st.sampled_from(STREAMS), st.data())
@settings(max_examples=50, deadline=None)
def test_a_changed_stream_is_a_stream_or_a_typed_error(case: dict[str, Any], data: st.DataObject) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(stream_of("bedrock", case["stream"]))
    messages = [(message.headers[":event-type"], json.loads(message.payload)) for message in buffer]
    place = data.draw(st.integers(0, len(messages) - 1))
    messages[place] = (messages[place][0], changed(messages[place][1], data))
    raw = b"".join(frames.event(*each) for each in messages)
    stream = bedrock.stream(target(case["deployment"]), CHAT, case["asked"])
    try:
        for chunk, _ in stream.feed(raw):
            assert orjson.loads(chunk)["object"] == "chat.completion.chunk"
        stream.body()
    except RequestError:
        return
