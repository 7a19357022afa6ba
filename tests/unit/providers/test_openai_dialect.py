"""The OpenAI dialect against recorded shapes: requests out, answers, errors and streams in."""

import json
from pathlib import Path
from typing import Any

import pytest

from broker import errors
from broker.config import Deployment
from broker.errors import BadUpstreamResponse, Fault, InvalidRequest, RequestError, UpstreamError
from workers.providers import openai
from workers.providers.base import CallResult, Usage
from workers.providers.catalog import ResolvedDeployment, resolve
from workers.providers.openai_stream import Completion

GOLDEN = Path(__file__).parents[2] / "golden" / "openai"
CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
NOW = 1_700_000_000.0


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["says"]) for case in json.loads((GOLDEN / name).read_text())]


def target(provider: str = "openai_like", **fields: Any) -> ResolvedDeployment:
    defaults = {"name": "a/0", "alias": "a", "model": "configured"}
    if provider in {"openai_like", "hosted_vllm"}:
        defaults["api_base"] = "http://127.0.0.1:1/v1"
    return resolve(Deployment(provider=provider, **{**defaults, **fields}))


def answer(endpoint: str, asked: dict[str, Any], body: Any, provider: str = "openai_like") -> CallResult:
    return openai.answer(target(provider), endpoint, asked, json.dumps(body).encode(), {})


@pytest.mark.parametrize("case", cases("requests.json"))
def test_a_request_goes_out_as_recorded(case: dict[str, Any]) -> None:
    resolved = target(**case["deployment"])
    before = json.dumps(case["body"])
    sent = openai.request(resolved, case["body"], streams=case["streams"])
    assert json.loads(sent) == case["sent"]
    assert openai.url(resolved, case["endpoint"]) == case["url"]
    assert json.dumps(case["body"]) == before


def test_a_body_that_is_not_json_is_the_callers_fault() -> None:
    with pytest.raises(InvalidRequest):
        openai.request(target(), {"messages": [{"content": "\ud800"}]}, streams=False)


@pytest.mark.parametrize("case", cases("answers.json"))
def test_an_answer_is_read_as_recorded(case: dict[str, Any]) -> None:
    raw = json.dumps(case["answer"]).encode()
    found = openai.answer(target(case["provider"]), case["endpoint"], case["asked"], raw, {})
    estimated = case["usage"].get("estimated", False)
    assert found.usage == Usage(**case["usage"], raw=None if estimated else case["answer"]["usage"])
    assert (found.body, found.model, found.service_tier, found.stated_cost) == (
        raw,
        case["model"],
        case["tier"],
        case["cost"],
    )


def test_only_rate_limit_headers_are_kept_of_an_answer() -> None:
    raw = json.dumps({"choices": [{"message": {}}]}).encode()
    headers = {"x-ratelimit-remaining-tokens": "5", "set-cookie": "x", "anthropic-ratelimit-tokens-remaining": "1"}
    found = openai.answer(target(), CHAT, {}, raw, headers)
    assert found.headers == {"x-ratelimit-remaining-tokens": "5", "anthropic-ratelimit-tokens-remaining": "1"}


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"", "an empty body"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b'data: {"choices": []}\n\n', "an event stream"),
        (b'{"choices": [{"mess', "truncated or invalid JSON"),
        (b"OK", "text that is not JSON"),
        (b'{"a": "\xff"}', "truncated or invalid JSON"),
        (b"[" * 10_000, "truncated or invalid JSON"),
        (b"[]", "JSON that is no object"),
        (b'"text"', "JSON that is no object"),
    ],
)
def test_what_is_not_json_is_a_bad_answer_that_says_what_it_was(raw: bytes, shown: str) -> None:
    with pytest.raises(BadUpstreamResponse, match=shown):
        openai.answer(target(), CHAT, {}, raw, {})


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (CHAT, {}),
        (CHAT, {"choices": []}),
        (CHAT, {"choices": None}),
        (CHAT, {"choices": {"message": {}}}),
        (CHAT, {"choices": ["text"]}),
        (CHAT, {"choices": [{"text": "of the other endpoint"}]}),
        (CHAT, {"choices": [{"message": "hi"}]}),
        (CHAT, {"message": {"content": "ollama's own API"}, "done": True}),
        (COMPLETIONS, {"choices": [{"message": {"content": "of the other endpoint"}}]}),
        (COMPLETIONS, {"choices": [{"text": None}]}),
        (EMBEDDINGS, {"data": []}),
        (EMBEDDINGS, {"data": [{"embedding": None}]}),
        (EMBEDDINGS, {"data": [{"embedding": [1.0]}, {"embedding": [1.0]}]}),
        (EMBEDDINGS, {"choices": [{"message": {}}]}),
    ],
)
def test_json_that_is_not_the_endpoints_answer_is_a_bad_answer(endpoint: str, body: dict[str, Any]) -> None:
    with pytest.raises(BadUpstreamResponse):
        answer(endpoint, {"input": "one"}, body)


@pytest.mark.parametrize("case", cases("errors.json"))
def test_an_error_is_read_as_recorded(case: dict[str, Any]) -> None:
    raw = case["text"].encode() if "text" in case else json.dumps(case["body"]).encode()
    found = openai.error(case["status"], case["headers"], raw, NOW)
    assert isinstance(found, getattr(errors, case["error"]))
    expected = {"param": None, "retry_after": None, **case["reply"]}
    detail = found.body()["error"]
    assert {**detail, "status": found.status, "retry_after": found.retry_after} == expected
    assert isinstance(detail["code"], str)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ({"error": {"message": "no capacity", "code": 502}}, "UpstreamError", 502),
        ({"error": {"message": "slow down", "code": 429}, "user_id": "u"}, "UpstreamError", 429),
        ({"error": {"message": "too long", "code": "context_length_exceeded"}}, "ContextLengthExceeded", 400),
        ({"error": {"message": "This model's maximum context length is 8"}}, "ContextLengthExceeded", 400),
        ({"error": {"message": "refused", "code": 403, "metadata": {"reasons": []}}}, "ContentPolicyViolation", 400),
        ({"error": "something broke"}, "BadUpstreamResponse", 502),
        ({"error": {"message": "x", "param": "y", "code": "z"}}, "BadUpstreamResponse", 502),
        ({"error": {"code": 99999}}, "BadUpstreamResponse", 502),
        ({"choices": [{"error": {"message": "died", "code": 503}, "message": {}}]}, "UpstreamError", 503),
    ],
)
def test_an_error_with_status_200_is_an_error(body: dict[str, Any], kind: str, status: int) -> None:
    with pytest.raises(RequestError) as caught:
        answer(CHAT, {}, body)
    assert (type(caught.value).__name__, caught.value.status) == (kind, status)


def test_a_null_error_beside_an_answer_is_no_error() -> None:
    assert answer(CHAT, {}, {"error": None, "choices": [{"message": {"content": "hi"}}]}).usage.estimated


def test_a_long_message_is_cut() -> None:
    found = openai.error(500, {}, json.dumps({"error": {"message": "x" * 100_000}}).encode(), NOW)
    assert len(found.message) == 2000


STREAMS = sorted(path.stem for path in GOLDEN.glob("*.sse"))


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_a_stream_becomes_the_recorded_completion_however_it_is_cut(name: str, size: int) -> None:
    stream, golden = (GOLDEN / f"{name}.sse").read_bytes(), json.loads((GOLDEN / f"{name}.json").read_text())
    completion = Completion(golden["endpoint"])
    chunks = [chunk for start in range(0, len(stream), size) for chunk in completion.feed(stream[start : start + size])]
    assert completion.body() == golden["body"]
    assert (len(chunks), sum(plain for _, plain in chunks)) == (golden["chunks"], golden["plain"])
    openai.answer(target(), golden["endpoint"], {}, json.dumps(completion.body()).encode(), {})


@pytest.mark.parametrize(
    ("status", "error", "fault"),
    [
        (401, {"message": "no"}, Fault.AUTH),
        (402, {"message": "Insufficient Balance"}, Fault.QUOTA),
        (404, {"message": "no such model"}, Fault.NOT_FOUND),
        (408, {"message": "late"}, Fault.TIMEOUT),
        (429, {"message": "slow down", "code": "rate_limit_exceeded"}, Fault.RATE_LIMIT),
        (429, {"message": "You exceeded", "type": "insufficient_quota"}, Fault.QUOTA),
        (429, {"message": "busy", "type": "engine_overloaded_error"}, Fault.OVERLOADED),
        (400, {"message": "no such model", "code": "model_not_found", "param": "model"}, Fault.NOT_FOUND),
        (400, {"message": "Your credit balance is too low to access the API"}, Fault.QUOTA),
        (400, {"message": "bad"}, Fault.BAD_REQUEST),
        (500, {"message": "my credit balance is too low, says the log"}, Fault.SERVER),
        (503, {"message": "later"}, Fault.OVERLOADED),
        (529, {"message": "Overloaded", "type": "overloaded_error"}, Fault.OVERLOADED),
    ],
)
def test_what_is_wrong_is_told_by_status_then_by_the_typed_field_then_by_words(
    status: int, error: dict[str, Any], fault: Fault
) -> None:
    found = openai.error(status, {}, json.dumps({"error": error}).encode(), NOW)
    assert isinstance(found, UpstreamError)
    assert found.fault is fault


@pytest.mark.parametrize("field", ["prompt_tokens", "completion_tokens"])
def test_a_count_that_no_ledger_could_hold_is_none_and_the_tokens_are_estimated(field: str) -> None:
    told = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11, field: 1 << 32}
    body = {"choices": [{"message": {"role": "assistant", "content": "four"}}], "usage": told}
    found = answer(CHAT, {"messages": [{"role": "user", "content": "eight ch"}]}, body)
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.estimated) == (2, 1, True)
