"""Endpoints beside completions and embeddings: what is sent, what comes back, forms and sounds."""

import base64
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.config import Deployment
from broker.errors import BadUpstreamResponse, InvalidRequest, RequestError
from schemas.request import IMAGES, MODERATIONS, RERANK, RESPONSES, SPEECH, TRANSCRIPTIONS
from workers.providers.catalog import ResolvedDeployment, resolve
from workers.providers.dialects import openai
from workers.providers.openai_shapes import ResponseStream

JSON = {"content-type": "application/json"}


@pytest.fixture
def target() -> ResolvedDeployment:
    return resolve(Deployment(name="a/0", alias="a", provider="openai", model="m", api_base="http://127.0.0.1:1/v1"))


def reply(target: ResolvedDeployment, endpoint: str, body: Any, headers: dict[str, str] | None = None) -> Any:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return orjson.loads(openai.answer(target, endpoint, {"input": "x"}, raw, headers or JSON).body)


GOOD: dict[str, Any] = {
    RESPONSES: {"id": "r", "object": "response", "status": "completed", "output": [],
                "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}},
    MODERATIONS: {"id": "m", "model": "omni", "results": [{"flagged": False}]},
    IMAGES: {"created": 1, "data": [{"b64_json": "aGk="}], "usage": {"input_tokens": 5, "output_tokens": 9}},
    TRANSCRIPTIONS: {"text": "hello"},
    RERANK: {"id": "k", "results": [{"index": 1, "relevance_score": 0.5}]},
}  # fmt: skip


@pytest.mark.parametrize("endpoint", GOOD)
def test_a_good_answer_goes_on_as_it_came(target: ResolvedDeployment, endpoint: str) -> None:
    assert reply(target, endpoint, GOOD[endpoint]) == GOOD[endpoint]


@pytest.mark.parametrize("endpoint", GOOD)
@pytest.mark.parametrize("body", [{}, [], {"data": []}, {"results": [1]}, {"output": "x"}, {"text": None}])
def test_what_is_not_the_contract_is_a_bad_answer(target: ResolvedDeployment, endpoint: str, body: Any) -> None:
    with pytest.raises(BadUpstreamResponse):
        reply(target, endpoint, body)


def test_the_usage_of_a_response_is_read(target: ResolvedDeployment) -> None:
    found = openai.answer(target, RESPONSES, {}, orjson.dumps(GOOD[RESPONSES]), JSON)
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.estimated) == (3, 2, False)


def test_a_failed_response_raises_its_error(target: ResolvedDeployment) -> None:
    failed = {"status": "failed", "error": {"code": "server_error", "message": "down"}, "output": []}
    with pytest.raises(RequestError, match="down"):
        reply(target, RESPONSES, failed)


def test_spoken_audio_comes_as_json_with_its_type(target: ResolvedDeployment) -> None:
    told = reply(target, SPEECH, b"\xff\xf3audio", {"content-type": "audio/mpeg"})
    assert told == {
        "object": "audio.speech",
        "content_type": "audio/mpeg",
        "data": base64.b64encode(b"\xff\xf3audio").decode(),
    }


@pytest.mark.parametrize(
    ("raw", "kind"), [(b"", "audio/mpeg"), (b"<html>", "text/html"), (b'{"error":"x"}', "application/json")]
)
def test_no_audio_is_a_bad_answer(target: ResolvedDeployment, raw: bytes, kind: str) -> None:
    with pytest.raises(BadUpstreamResponse):
        reply(target, SPEECH, raw, {"content-type": kind})


def test_a_transcription_is_sent_as_a_form_and_its_text_comes_as_json(target: ResolvedDeployment) -> None:
    body = {"file": {"filename": "a.wav", "data": base64.b64encode(b"RIFF\r\n--x").decode()}, "language": "de",
            "timestamp_granularities": ["word", "segment"], "temperature": 0.5}  # fmt: skip
    out = openai.outbound(target, TRANSCRIPTIONS, body, streams=False)
    head = f"content-type: {dict(out.headers)['content-type']}\r\n\r\n".encode()
    parts = list(BytesParser(policy=HTTP).parsebytes(head + out.body).iter_parts())
    named = [(part.get_param("name", header="content-disposition"), part.get_payload(decode=True)) for part in parts]
    assert ("file", b"RIFF\r\n--x") in named
    assert ("language", b"de") in named
    assert [value for name, value in named if name == "timestamp_granularities[]"] == [b"word", b"segment"]
    assert ("model", b"m") in named
    assert reply(target, TRANSCRIPTIONS, b"1\n00:00 --> 00:01\nhi", {"content-type": "text/plain"})["text"].endswith(
        "hi"
    )


@pytest.mark.parametrize(
    ("file", "param"),
    [
        ({"filename": "a", "data": "%%"}, "file.data"),
        ({"filename": 'a"b', "data": "aGk="}, "file.filename"),
        (3, "file"),
    ],
)
def test_a_file_that_cannot_be_sent_names_its_field(target: ResolvedDeployment, file: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        openai.outbound(target, TRANSCRIPTIONS, {"file": file}, streams=False)
    assert caught.value.param == param


STREAM = (
    b'event: response.created\ndata: {"type":"response.created","response":{"id":"r","output":[]}}\n\n'
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi"}\n\n'
    b"event: response.completed\n"
    b'data: {"type":"response.completed","response":{"id":"r","status":"completed","output":[1]}}\n\n'
)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_events_of_a_response_go_on_and_its_last_one_is_the_whole(target: ResolvedDeployment, size: int) -> None:
    stream = openai.stream(target, RESPONSES, {})
    chunks = [chunk for start in range(0, len(STREAM), size) for chunk, _ in stream.feed(STREAM[start : start + size])]
    assert [orjson.loads(chunk)["type"].removeprefix("response.") for chunk in chunks] == [
        "created", "output_text.delta", "completed",
    ]  # fmt: skip
    assert stream.done
    assert stream.body() == {"id": "r", "status": "completed", "output": [1]}


def test_a_response_that_is_cut_or_fails_in_its_stream_is_no_answer(target: ResolvedDeployment) -> None:
    stream = openai.stream(target, RESPONSES, {})
    list(stream.feed(STREAM[:200]))
    with pytest.raises(BadUpstreamResponse):
        stream.body()
    failed = (
        b'data: {"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"slow"}}}\n\n'
    )
    with pytest.raises(RequestError, match="slow"):
        list(openai.stream(target, RESPONSES, {}).feed(failed))


@given(st.sampled_from([*GOOD, SPEECH]), st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["data", "results", "text", "output", "error", "usage", "status", "index", "model"]), inner,
        max_size=4),
    max_leaves=12,
))  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_no_answer_makes_anything_but_a_request_error(endpoint: str, body: Any) -> None:
    target = resolve(Deployment(name="a/0", alias="a", provider="openai", model="m", api_base="http://127.0.0.1:1/v1"))
    try:
        openai.answer(target, endpoint, {"input": "x"}, orjson.dumps(body), JSON)
    except RequestError:
        return


@pytest.mark.parametrize("kind", [b"[null]", b"{}", b"7"])
def test_an_event_of_a_response_whose_type_is_no_text_is_a_bad_answer(kind: bytes) -> None:
    with pytest.raises(BadUpstreamResponse, match="no text"):
        list(ResponseStream().feed(b'data: {"type": ' + kind + b"}\n\n"))
