"""Gemini behind an OpenAI body: what is sent, what comes back, streams, errors; and nothing but a typed outcome."""

import base64
import struct
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from broker.config import Deployment
from broker.errors import (
    BadUpstreamResponse,
    ContentPolicyViolation,
    ContextLengthExceeded,
    InvalidRequest,
    RequestError,
    UpstreamError,
)
from schemas.request import CHAT, EMBEDDINGS, SPEECH
from workers.providers.catalog import ResolvedDeployment, resolve
from workers.providers.dialects import gemini
from workers.providers.usage import produced

MODEL = "gemini-3-pro"
BASE = "https://generativelanguage.googleapis.com/v1beta/models/"


def target(model: str = MODEL, **fields: Any) -> ResolvedDeployment:
    values = {"name": "a/0", "alias": "a", "provider": "gemini", "model": model, "api_key": SecretStr("key-1")}
    return resolve(Deployment(**{**values, **fields}))


def sent(body: dict[str, Any], model: str = MODEL, **fields: Any) -> dict[str, Any]:
    body.setdefault("messages", [{"role": "user", "content": "Hello"}])
    found: dict[str, Any] = orjson.loads(gemini.outbound(target(model, **fields), CHAT, body, streams=False).body)
    return found


def read(body: Any, endpoint: str = CHAT, asked: dict[str, Any] | None = None) -> Any:
    return orjson.loads(gemini.answer(target(), endpoint, asked or {}, orjson.dumps(body), {}).body)


def test_where_it_goes_and_with_which_key() -> None:
    assert dict(target().headers)["x-goog-api-key"] == "key-1"
    body = {"messages": [{"role": "user", "content": "x"}]}
    assert gemini.outbound(target(), CHAT, body, streams=False).url == f"{BASE}{MODEL}:generateContent"
    assert gemini.outbound(target(), CHAT, body, streams=True).url == f"{BASE}{MODEL}:streamGenerateContent?alt=sse"
    with pytest.raises(InvalidRequest, match=SPEECH):
        gemini.outbound(target(), SPEECH, {"input": "x"}, streams=False)


def test_a_plain_request_and_its_numbers() -> None:
    asked = {"temperature": 1.5, "top_p": 0.5, "top_k": 3, "n": 2, "stop": ["a"], "max_tokens": 9, "seed": 7,
             "logprobs": True, "top_logprobs": 2, "user": "u", "safetySettings": []}  # fmt: skip
    assert sent(asked) == {
        "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
        "generationConfig": {
            "temperature": 1.5, "topP": 0.5, "topK": 3, "candidateCount": 2, "seed": 7, "logprobs": 2,
            "responseLogprobs": True, "maxOutputTokens": 9, "stopSequences": ["a"],
        },
        "safetySettings": [],
    }  # fmt: skip


CALL = {
    "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'},
    "extra_content": {"google": {"thought_signature": "sig"}},
}  # fmt: skip


def test_turns_calls_signatures_and_results() -> None:
    body = sent(
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}],
                },
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": '{"y": 2}'},
                {"role": "tool", "tool_call_id": "c1", "content": "plain"},
            ]
        }
    )
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert body["contents"] == [
        {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "aGk="}}]},
        {
            "role": "model",
            "parts": [{"functionCall": {"id": "c1", "name": "f", "args": {"x": 1}}, "thoughtSignature": "sig"}],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "c1", "name": "f", "response": {"y": 2}}},
                {"functionResponse": {"id": "c1", "name": "f", "response": {"result": "plain"}}},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_tools_and_the_choice_among_them(choice: Any, config: dict[str, Any]) -> None:
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    body = sent({"tools": [{"type": "function", "function": function}], "tool_choice": choice})
    declared = {"name": "f", "description": "d", "parametersJsonSchema": {"type": "object"}}
    assert body["tools"] == [{"functionDeclarations": [declared]}]
    assert body["toolConfig"] == {"functionCallingConfig": config}


def test_structured_answers_and_thinking() -> None:
    schema = {"type": "object"}
    asked = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    config = sent(asked)["generationConfig"]
    assert config == {"responseMimeType": "application/json", "responseJsonSchema": schema}
    assert sent({"reasoning_effort": "low"})["generationConfig"]["thinkingConfig"] == {
        "thinkingLevel": "low",
        "includeThoughts": True,
    }
    before = sent({"reasoning_effort": "none"}, "gemini-2.5-flash")["generationConfig"]
    assert before["thinkingConfig"] == {"thinkingBudget": 0, "includeThoughts": False}


@pytest.mark.parametrize(
    ("body", "param"),
    [({"logit_bias": {"1": 2}}, "logit_bias"),
     ({"reasoning_effort": "none"}, "reasoning_effort"), ({"service_tier": "scale"}, "service_tier")],
)  # fmt: skip
def test_what_it_cannot_take_is_refused_by_name_or_dropped(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(dict(body))
    assert caught.value.param == param
    assert sent(dict(body), drop_params=True) == sent({})


def test_a_result_of_a_call_nobody_made_names_its_field() -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent({"messages": [{"role": "tool", "tool_call_id": "c9", "content": "x"}]})
    assert caught.value.param == "messages[0].tool_call_id"


USAGE = {
    "promptTokenCount": 10, "candidatesTokenCount": 4, "thoughtsTokenCount": 6, "cachedContentTokenCount": 3,
    "totalTokenCount": 20, "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 2}],
}  # fmt: skip


def candidate(*parts: dict[str, Any], finish: str | None = "STOP", index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {"index": index, "content": {"role": "model", "parts": list(parts)}}
    return found if finish is None else {**found, "finishReason": finish}


def whole(*candidates: dict[str, Any]) -> dict[str, Any]:
    return {"responseId": "r1", "modelVersion": MODEL, "candidates": list(candidates), "usageMetadata": USAGE}


THOUGHT = {"text": "Hm.", "thought": True}
USE = {"functionCall": {"id": "c1", "name": "f", "args": {"x": 1}}, "thoughtSignature": "sig"}


def test_text_thoughts_and_calls_of_one_answer() -> None:
    body = read(whole(candidate(THOUGHT, {"text": "Hi."}, USE)))
    choice = body["choices"][0]
    assert (body["id"], body["model"], choice["finish_reason"]) == ("r1", MODEL, "tool_calls")
    assert choice["message"] == {
        "role": "assistant",
        "content": "Hi.",
        "reasoning_content": "Hm.",
        "tool_calls": [{**CALL, "function": {"name": "f", "arguments": '{"x":1}'}}],
        "refusal": None,
    }


def test_usage_counts_thoughts_as_output_and_keeps_the_raw() -> None:
    found = gemini.answer(target(), CHAT, {}, orjson.dumps(whole(candidate({"text": "x"}))), {}).usage
    assert (found.input_tokens, found.cached_tokens, found.output_tokens) == (10, 3, 10)
    assert (found.reasoning_tokens, found.audio_tokens, found.raw) == (6, 2, USAGE)


def test_logprobs() -> None:
    token = {"token": "Hi", "logProbability": -0.5, "tokenId": 1}
    told = {
        **candidate({"text": "Hi"}),
        "logprobsResult": {"chosenCandidates": [token], "topCandidates": [{"candidates": [token]}]},
    }
    entry = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
    assert read(whole(told))["choices"][0]["logprobs"]["content"] == [{**entry, "top_logprobs": [entry]}]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("SPII", "content_filter"),
        ("OTHER", "stop"),
    ],
)
def test_finish_reasons(reason: str, finish: str) -> None:
    assert read(whole(candidate({"text": "x"}, finish=reason)))["choices"][0]["finish_reason"] == finish


def test_a_blocked_prompt_is_a_content_policy_violation() -> None:
    with pytest.raises(ContentPolicyViolation, match="SAFETY"):
        read({"promptFeedback": {"blockReason": "SAFETY"}})


@pytest.mark.parametrize(
    "body", [[], {}, {"candidates": 3}, {"candidates": [{"content": {"parts": [{"functionCall": {}}]}}]}]
)
def test_what_is_no_answer_is_a_bad_answer(body: Any) -> None:
    with pytest.raises(BadUpstreamResponse):
        read(body)


@pytest.mark.parametrize("form", ["float", "base64"])
def test_embeddings(form: str) -> None:
    out = gemini.outbound(
        target("gemini-embedding-001"), EMBEDDINGS, {"input": ["a", "b"], "dimensions": 2}, streams=False
    )
    assert out.url.endswith("gemini-embedding-001:batchEmbedContents")
    request = {"model": "models/gemini-embedding-001", "content": {"parts": [{"text": "a"}]}, "outputDimensionality": 2}
    assert orjson.loads(out.body)["requests"][0] == request
    asked = {"input": ["a", "b"], "encoding_format": form}
    body = read({"embeddings": [{"values": [0.5, 1]}, {"values": [0.25, 2]}]}, EMBEDDINGS, asked)
    first = body["data"][0]["embedding"]
    assert (list(struct.unpack("<2f", base64.b64decode(first))) if form == "base64" else first) == [0.5, 1.0]


def sse(*bodies: dict[str, Any]) -> bytes:
    return b"".join(b"data: %s\r\n\r\n" % orjson.dumps(body) for body in bodies)


STREAM = sse(
    whole(candidate(THOUGHT, finish=None)),
    whole(candidate({"text": "Hi"}, finish=None)),
    whole(candidate({"text": "."}, USE, finish=None)),
    whole(candidate({"functionCall": {"name": "g"}}, finish=None)),
    whole(candidate(finish="STOP")),
)


@pytest.mark.parametrize("size", [1, 17, 100_000])
def test_a_stream_becomes_chunks_and_the_whole_is_what_the_answer_would_be(size: int) -> None:
    stream = gemini.stream(target(), CHAT, {})
    chunks = [
        orjson.loads(chunk)
        for start in range(0, len(STREAM), size)
        for chunk, _ in stream.feed(STREAM[start : start + size])
    ]
    assert {chunk["id"] for chunk in chunks} == {"r1"}
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 20)
    choice = stream.body()["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "Hi.")
    assert choice["message"]["reasoning_content"] == "Hm."
    functions = [call["function"] for call in choice["message"]["tool_calls"]]
    assert functions == [{"name": "f", "arguments": '{"x":1}'}, {"name": "g", "arguments": "{}"}]
    assert choice["message"]["tool_calls"][0]["extra_content"] == CALL["extra_content"]


def test_a_stream_that_is_cut_has_the_usage_of_its_last_event() -> None:
    def told(**counts: int) -> bytes:
        content = {"role": "model", "parts": [{"text": "x" * 40}]}
        return sse({"candidates": [{"index": 0, "content": content}], "usageMetadata": counts})

    stream = gemini.stream(target(), CHAT, {})
    list(stream.feed(told(promptTokenCount=7, totalTokenCount=7)))
    early = produced({}, stream.so_far())
    assert (early.input_tokens, early.output_tokens, early.estimated) == (7, 10, True)
    list(stream.feed(told(promptTokenCount=7, candidatesTokenCount=3, totalTokenCount=10)))
    counted = produced({}, stream.so_far())
    assert (counted.input_tokens, counted.output_tokens, counted.estimated) == (7, 3, False)


def test_a_stream_that_is_cut_is_no_answer() -> None:
    stream = gemini.stream(target(), CHAT, {})
    list(stream.feed(STREAM[:-300]))
    with pytest.raises(BadUpstreamResponse):
        stream.body()


@pytest.mark.parametrize(
    ("status", "told", "wanted", "seen"),
    [
        (400, {"message": "API key not valid.", "details": [{"reason": "API_KEY_INVALID"}]}, UpstreamError, 401),
        (400, {"message": "The input token count (9) exceeds the maximum number of tokens allowed (5)."},
         ContextLengthExceeded, 400),
        (429, {"status": "RESOURCE_EXHAUSTED", "message": "quota", "details": [
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]}, UpstreamError, 429),
        (503, {"status": "UNAVAILABLE", "message": "The model is overloaded."}, UpstreamError, 503),
    ],
)  # fmt: skip
def test_errors(status: int, told: dict[str, Any], wanted: type[RequestError], seen: int) -> None:
    raw = orjson.dumps({"error": {"code": status, **told}})
    for body in (raw, b"[" + raw + b"]"):
        found = gemini.error(status, {}, body, 0.0)
        assert isinstance(found, wanted)
        assert (found.status, found.message) == (seen, told["message"])
        assert getattr(found, "retry_after", None) == (7.0 if status == 429 else None)


@given(st.text(max_size=20), st.lists(st.tuples(st.sampled_from("fg"), st.dictionaries(
    st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=5), max_size=3)), max_size=3))  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_a_conversation_goes_there_and_back_without_losing_meaning(
    text: str, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    parts: list[dict[str, Any]] = [{"text": text}] if text else []
    parts += [
        {"functionCall": {"id": f"c{n}", "name": name, "args": args}, "thoughtSignature": f"s{n}"}
        for n, (name, args) in enumerate(calls)
    ]  # fmt: skip
    told = read(whole(candidate(*parts)))["choices"][0]["message"]
    body = sent({"messages": [{"role": "user", "content": "Go."}, told, {"role": "user", "content": "On."}]})
    assert [part for turn in body["contents"] if turn["role"] == "model" for part in turn["parts"]] == parts


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_no_answer_and_no_stream_makes_anything_but_a_request_error(data: st.DataObject) -> None:
    raw = bytearray(STREAM if data.draw(st.booleans()) else orjson.dumps(whole(candidate(THOUGHT, USE))))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(raw) - 1))
        what = data.draw(st.sampled_from(["flip", "cut", "double", "null"]))
        if what == "flip":
            raw[place] = data.draw(st.integers(0, 255))
        elif what == "cut":
            del raw[place : place + data.draw(st.integers(1, 40))]
        elif what == "double":
            raw[place:place] = raw[place : place + 40]
        else:
            raw[place : place + 4] = b"null"
    for attempt in (
        lambda: gemini.answer(target(), CHAT, {}, bytes(raw), {}),
        lambda: gemini.answer(target(), EMBEDDINGS, {}, bytes(raw), {}),
        lambda: (list((stream := gemini.stream(target(), CHAT, {})).feed(bytes(raw))), stream.body()),
        lambda: gemini.error(400, {}, bytes(raw), 0.0),
    ):
        try:
            attempt()
        except RequestError:
            continue
