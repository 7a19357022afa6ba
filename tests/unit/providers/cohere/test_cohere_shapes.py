"""What goes to Cohere is of its SDK's types, and what comes back is of OpenAI's: nothing more, nothing less."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cohere.v2.raw_client import RawV2Client
from cohere.v2.types.v2chat_response import V2ChatResponse
from cohere.v2.types.v2chat_stream_response import V2ChatStreamResponse
from cohere.v2.types.v2rerank_response import V2RerankResponse
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from schemas.request import CHAT, EMBEDDINGS, RERANK
from tests.golden.cases import FOLDER, dialect_of, stream_of, target
from tests.golden.test_openai_types import decoded
from tests.unit.providers.cohere.shapes import OURS, faults, request_faults

FOLDERS = ("cohere", "rerank")
METHODS: dict[str, Callable[..., Any]] = {EMBEDDINGS: RawV2Client.embed, RERANK: RawV2Client.rerank}


def cases(kind: str, *folders: str) -> list[Any]:
    found = []
    for folder in folders:
        listed = json.loads((Path(FOLDER) / folder / f"{kind}.json").read_text())
        found += [pytest.param(case, id=f"{folder}: {case['says']}") for case in listed]
    return found


@pytest.mark.parametrize("case", cases("requests", "cohere"))
def test_a_request_is_what_the_sdk_would_send(case: dict[str, Any]) -> None:
    resolved = target(case["deployment"])
    out = dialect_of(resolved).outbound(resolved, case["endpoint"], case["body"], streams=case["streams"])
    streams = {"stream": True} if case["streams"] else {}
    method = METHODS.get(case["endpoint"]) or (RawV2Client.chat_stream if streams else RawV2Client.chat)
    assert request_faults(json.loads(out.body), method, streams) == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"messages": []}, "$model: missing"),
        ({"model": "m", "messages": [], "top_p": 1}, "$top_p: no such parameter"),
        ({"model": "m", "messages": [{"role": "user", "content": "x", "name": "n"}]}, "has no such field"),
        ({"model": "m", "messages": [{"role": "owl", "content": "x"}]}, "is none of"),
        ({"model": "m", "messages": [], "safety_mode": "LOOSE"}, "is none of"),
        ({"model": "m", "messages": [], "k": True}, "is none of"),
        ({"model": "m", "messages": [], "tools": [{"type": "function", "function": {"name": "f"}}]}, "parameters"),
    ],
)
def test_a_request_that_is_not_is_found_out(body: dict[str, Any], fault: str) -> None:
    assert any(fault in each for each in request_faults(body, RawV2Client.chat, {}))


@pytest.mark.parametrize("case", cases("answers", "cohere"))
def test_a_recorded_answer_is_one_that_the_sdk_knows(case: dict[str, Any]) -> None:
    kinds = {CHAT: V2ChatResponse, RERANK: V2RerankResponse}
    kind = kinds.get(case["endpoint"])
    answer = {**case["answer"]}
    if answer.get("finish_reason") == "ERROR_TOXIC":  # of the version before
        answer["finish_reason"] = "COMPLETE"
    assert kind is None or faults(answer, kind) == []


@pytest.mark.parametrize("case", cases("streams", "cohere"))
def test_a_recorded_stream_is_one_that_the_sdk_knows(case: dict[str, Any]) -> None:
    lines = stream_of("cohere", case["stream"]).decode().splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    # The wire has these in the first event; the SDK's type leaves them out.
    beside = {"content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    first = events[0]["delta"]["message"]
    events[0]["delta"]["message"] = {name: value for name, value in first.items() if beside.get(name) != value}
    assert [fault for event in events for fault in faults(event, V2ChatStreamResponse)] == []


@pytest.mark.parametrize("case", cases("answers", *FOLDERS))
def test_an_answer_is_openais_or_of_the_shape_of_a_ranking(case: dict[str, Any]) -> None:
    resolved = target(case["deployment"])
    found = dialect_of(resolved).answer(
        resolved, case["endpoint"], case["asked"], json.dumps(case["answer"]).encode(), {}
    )
    body = json.loads(found.body)
    if case["endpoint"] == RERANK:
        theirs = resolved.provider.dialect == "openai"  # which is handed on as it is
        assert body == case["answer"] if theirs else faults(body, V2RerankResponse, more=OURS) == []
    elif case["endpoint"] == EMBEDDINGS:
        body = json.loads(decoded(found.body))
        assert faults(body, CreateEmbeddingResponse) == []
        CreateEmbeddingResponse.model_validate(body, strict=True)
    else:
        assert faults(body, ChatCompletion, more=OURS) == []
        ChatCompletion.model_validate(body)


@pytest.mark.parametrize("case", cases("streams", "cohere"))
def test_every_chunk_is_openais_and_so_is_the_whole(case: dict[str, Any]) -> None:
    resolved = target(case["deployment"])
    stream = dialect_of(resolved).stream(resolved, case["endpoint"], case["asked"])
    chunks = [json.loads(chunk) for chunk, _ in stream.feed(stream_of("cohere", case["stream"]))]
    assert [fault for chunk in chunks for fault in faults(chunk, ChatCompletionChunk, more=OURS)] == []
    assert {chunk["id"] for chunk in chunks} == {case["body"]["id"]}
    assert len({chunk["created"] for chunk in chunks}) == 1
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
    assert faults(stream.body(), ChatCompletion, more=OURS) == []
    ChatCompletion.model_validate(stream.body())
