"""Limits with each provider's own headers, faults of every kind, and what is counted."""

import json
import subprocess
import sys
from typing import Any

import httpx
import pytest

from broker.simulate.behaviour import FAULTS
from tests.integration.simulate.test_refusals import BODIES
from tests.integration.simulate.test_simulator import simulator

STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": (BODIES["openai"][0], {**BODIES["openai"][1], "stream": True}),
    "responses": (BODIES["responses"][0], {**BODIES["responses"][1], "stream": True}),
    "anthropic": (BODIES["anthropic"][0], {**BODIES["anthropic"][1], "stream": True}),
    "gemini": ("/v1beta/models/gemini-x:streamGenerateContent?alt=sse", BODIES["gemini"][1]),
    "cohere": (BODIES["cohere"][0], {**BODIES["cohere"][1], "stream": True}),
    "bedrock": (BODIES["bedrock"][0] + "-stream", BODIES["bedrock"][1]),
    "azure": (BODIES["azure"][0], {**BODIES["azure"][1], "stream": True}),
}
ENDS = {
    "openai": b"data: [DONE]\n\n", "responses": b"response.completed", "anthropic": b'{"type":"message_stop"}\n\n',
    "gemini": b'"finishReason":"STOP"', "cohere": b'"finish_reason":"COMPLETE"', "bedrock": b'"stopReason":"end_turn"',
    "azure": b"data: [DONE]\n\n",
}  # fmt: skip
ERRORS = {
    "openai": b'"type":"server_error"', "responses": b'"type":"server_error"', "anthropic": b"event: error\n",
    "gemini": b'"status":"INTERNAL"', "cohere": b'"finish_reason":"ERROR"', "bedrock": b"internalServerException",
    "azure": b'"type":"server_error"',
}  # fmt: skip


def posted(client: httpx.Client, api: str, **change: Any) -> httpx.Response:
    path, body = BODIES[api]
    return client.post(path, json={**body, **change})


def scripted(client: httpx.Client, *faults: str) -> None:
    assert client.post("/-/script", json=faults).json() == {"scripted": len(faults)}


def test_the_headers_of_a_limit_are_each_provider_s_own() -> None:
    with simulator("--rpm", "2", "--tpm", "1000") as client:

        def third(api: str) -> httpx.Response:
            path, body = BODIES[api]
            answers = [client.post(path, json=body) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 429]
            return answers[2]

        told = third("openai").headers
        assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("2", "0")
        assert told["x-ratelimit-reset-requests"].endswith("s")
        assert float(told["retry-after-ms"]) <= float(told["retry-after"]) * 1000
        told = third("anthropic").headers
        assert told["anthropic-ratelimit-requests-reset"].endswith("Z")
        assert told["anthropic-ratelimit-input-tokens-limit"] == "1000"
        assert (told["anthropic-ratelimit-output-tokens-remaining"], told["anthropic-ratelimit-tokens-remaining"]) == (
            "964", "964",
        )  # fmt: skip
        assert third("gemini").json()["error"]["status"] == "RESOURCE_EXHAUSTED"
        assert third("vertex").json()["error"]["status"] == "RESOURCE_EXHAUSTED"
        assert third("cohere").headers["x-trial-endpoint-call-remaining"] == "0"
        assert third("bedrock").headers["x-amzn-errortype"].startswith("ThrottlingException")
        azure = third("azure")
        assert azure.json()["error"]["code"] == "429"
        assert "retry-after-ms" in azure.headers
        assert third("jina").headers["x-ratelimit-remaining"] == "0"


def test_a_limit_is_each_model_s_and_is_counted_over_its_window() -> None:
    path, body = BODIES["openai"]
    with simulator("--rpm", "30", "--window", "6") as client:
        told = [client.post(path, json={**body, "model": model}).status_code for model in "aaaab"]
        headers = client.post(path, json=body).headers
    assert told == [200, 200, 200, 429, 200]
    assert headers["x-ratelimit-limit-requests"] == "30"


@pytest.mark.parametrize(
    ("api", "status", "told"),
    [("openai", 400, "context_length_exceeded"), ("anthropic", 400, "prompt is too long"),
     ("gemini", 400, "exceeds the maximum number of tokens"), ("cohere", 400, "too many tokens"),
     ("bedrock", 400, "Input is too long"), ("azure", 400, "context_length_exceeded")],
)  # fmt: skip
def test_a_prompt_that_does_not_fit_gets_the_provider_s_error(api: str, status: int, told: str) -> None:
    path, body = BODIES[api]
    long = json.loads(json.dumps(body).replace("Hello", "word " * 100))
    with simulator("--context-window", "100") as client:
        assert client.post(path, json=body).status_code == 200
        answer = client.post(path, json=long)
    assert (answer.status_code, told in answer.text) == (status, True), answer.text


def test_an_answer_that_does_not_fit_beside_its_prompt_is_told_by_those_who_count_it() -> None:
    with simulator("--context-window", "100") as client:
        openai = posted(client, "openai", max_completion_tokens=100).json()["error"]
        anthropic = posted(client, "anthropic", max_tokens=100).json()["error"]
        gemini = posted(client, "gemini", generationConfig={"maxOutputTokens": 100})
    assert (openai["code"], "you requested 102 tokens" in openai["message"]) == ("context_length_exceeded", True)
    assert anthropic["message"].startswith("input length and `max_tokens` exceed context limit: 2 + 100 > 100")
    assert gemini.status_code == 200


def test_only_the_models_named_exist() -> None:
    with simulator("--models", "m*", "--models", "claude-x") as client:
        path, body = BODIES["openai"]
        assert client.post(path, json=body).status_code == 200
        answer = client.post(path, json={**body, "model": "gpt-9"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert posted(client, "anthropic", model="other").json()["error"] == {
            "type": "not_found_error", "message": "model: other",
        }  # fmt: skip
        assert posted(client, "bedrock").headers["x-amzn-errortype"].startswith("ResourceNotFoundException")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("429", {"openai": 429, "anthropic": 429, "gemini": 429, "cohere": 429, "bedrock": 429, "azure": 429}),
        ("500", {"openai": 500, "anthropic": 500, "gemini": 500, "cohere": 500, "bedrock": 500, "azure": 500}),
        ("503", {"openai": 503, "anthropic": 529, "gemini": 503, "cohere": 503, "bedrock": 503, "azure": 503}),
        ("529", {"openai": 503, "anthropic": 529, "gemini": 503, "cohere": 503, "bedrock": 503, "azure": 503}),
        ("418", {"openai": 418, "anthropic": 418, "gemini": 418, "cohere": 418, "bedrock": 418, "azure": 418}),
        ("auth", {"openai": 401, "anthropic": 401, "gemini": 400, "cohere": 401, "bedrock": 403, "azure": 401}),
        ("not_found", {"openai": 404, "anthropic": 404, "gemini": 404, "cohere": 404, "bedrock": 404, "azure": 404}),
        ("context_length", dict.fromkeys(("openai", "anthropic", "gemini", "cohere", "bedrock", "azure"), 400)),
        ("content_policy", {"openai": 400, "anthropic": 400, "gemini": 200, "cohere": 498, "bedrock": 200}),
        ("insufficient_quota", {"openai": 429, "anthropic": 400, "gemini": 429, "cohere": 402, "bedrock": 400}),
        ("refusal", dict.fromkeys(("openai", "anthropic", "gemini", "cohere", "bedrock", "azure"), 200)),
    ],
)  # fmt: skip
def test_an_error_on_demand_has_the_status_of_the_provider(
    plain: httpx.Client, fault: str, expected: dict[str, int]
) -> None:
    told = {}
    for api in expected:
        scripted(plain, fault)
        told[api] = posted(plain, api).status_code
    assert told == expected


def answers_of(client: httpx.Client, fault: str) -> dict[str, Any]:
    found = {}
    for api in ("openai", "anthropic", "gemini", "bedrock", "azure"):
        scripted(client, fault)
        found[api] = posted(client, api).json()
    return found


def test_what_is_against_the_policy_is_told_in_the_provider_s_way(plain: httpx.Client) -> None:
    told = answers_of(plain, "content_policy")
    assert told["openai"]["error"]["code"] == "content_policy_violation"
    assert told["anthropic"]["error"]["message"] == "Output blocked by content filtering policy"
    assert told["gemini"]["promptFeedback"] == {"blockReason": "PROHIBITED_CONTENT"}
    assert told["bedrock"]["stopReason"] == "guardrail_intervened"
    assert told["azure"]["error"]["innererror"]["code"] == "ResponsibleAIPolicyViolation"


def test_a_refusal_is_an_answer(plain: httpx.Client) -> None:
    told = answers_of(plain, "refusal")
    message = told["openai"]["choices"][0]["message"]
    assert (message["content"], message["refusal"][:9]) == (None, "I'm sorry")
    assert told["anthropic"]["stop_reason"] == "refusal"
    assert told["gemini"]["candidates"] == [{"index": 0, "finishReason": "SAFETY"}]


@pytest.mark.parametrize("api", STREAMS)
def test_a_stream_ends_is_cut_ends_early_or_tells_of_an_error(plain: httpx.Client, api: str) -> None:
    path, body = STREAMS[api]
    good = plain.post(path, json=body)
    assert ENDS[api] in good.content
    scripted(plain, "truncated", "error_event", "cut")
    short, broken = plain.post(path, json=body), plain.post(path, json=body)
    assert (short.status_code, ENDS[api] in short.content, len(short.content) < len(good.content)) == (200, False, True)
    assert (broken.status_code, ENDS[api] in broken.content, ERRORS[api] in broken.content) == (200, False, True)
    with pytest.raises(httpx.RemoteProtocolError):
        plain.post(path, json=body)


@pytest.mark.parametrize("api", ["openai", "anthropic", "gemini", "cohere", "bedrock"])
def test_the_wrong_form_is_a_stream_for_json_and_json_for_a_stream(plain: httpx.Client, api: str) -> None:
    scripted(plain, "sse_in_json", "sse_in_json", "truncated")
    streamed = posted(plain, api)
    assert ENDS[api] in streamed.content
    path, body = STREAMS[api]
    assert isinstance(plain.post(path, json=body).json(), dict)
    with pytest.raises(json.JSONDecodeError):
        posted(plain, api).json()


def test_a_slow_first_byte_and_a_call_that_hangs_are_cut_by_their_caller() -> None:
    path, body = BODIES["openai"]
    with simulator("--slow", "60") as client:
        scripted(client, "slow", "hang", "drop")
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout):
                client.post(path, json=body, timeout=0.3)
        with pytest.raises(httpx.RemoteProtocolError):
            client.post(path, json=body)
        stats = client.get("/-/stats").json()
    assert (stats["paid"], stats["cut"], stats["in_flight"]) == (3, 2, 0)
    assert stats["outcomes"] == {"disconnected": 1, "hang": 1, "drop": 1}


def test_calls_are_counted_by_api_model_outcome_and_request() -> None:
    path, body = BODIES["openai"]
    with simulator("--model-fault", "frail*=500", "--numbered") as client:
        texts = []
        for model, identity in (("m", "r1"), ("frail-1", "r2"), ("m", "r1"), ("m", "r3")):
            answer = client.post(path, json={**body, "model": model}, headers={"x-request-id": identity})
            texts.append(answer.json().get("choices", [{"message": {"content": None}}])[0]["message"]["content"])
        client.post(path, json={"model": "m"}, headers={"x-request-id": "r4"})
        posted(client, "anthropic")
        stats, totals = client.get("/-/stats").json(), client.get("/-/totals").json()
    assert texts == ["answer 1 to r1", None, "answer 2 to r1", "answer 3 to r3"]
    assert stats["requests"] == {"r1": 2, "r2": 1, "r3": 1, "r4": 1}
    assert stats["paid_requests"] == {"r1": 2, "r3": 1}
    assert totals == {
        "calls": 6, "in_flight": 0, "peak": 1, "paid": 4, "cut": 0, "again": {"r1": 2},
        "apis": {"openai": 5, "anthropic": 1},
        "models": {"m": {"answered": 4}, "frail-1": {"500": 1}},
        "outcomes": {"answered": 4, "500": 1, "400": 1},
    }  # fmt: skip


def test_a_script_is_played_over_and_over() -> None:
    path, body = BODIES["openai"]
    with simulator("--script", "ok, 503,429") as client:
        assert [client.post(path, json=body).status_code for _ in range(6)] == [200, 503, 429] * 2


def test_a_token_meets_no_fault() -> None:
    good = {"grant_type": "client_credentials", "client_id": "a", "client_secret": "b", "scope": "x/.default"}
    with simulator("--fault", "500=1") as client:
        assert client.post("/oauth2/v2.0/token", data=good).status_code == 200
        assert client.get("/-/totals").json()["paid"] == 0


def test_an_unknown_fault_is_told_and_nothing_is_scripted(plain: httpx.Client) -> None:
    assert plain.post("/-/script", json=["ok", "flood"]).json()["unknown"] == ["flood"]
    assert posted(plain, "openai").status_code == 200


@pytest.mark.parametrize(
    "options",
    [["--model-fault", "=500"], ["--model-fault", "m=flood"], ["--script", "ok,flood"], ["--latency", "6-3"],
     ["--latency", "soon"], ["--fault", "500=0.6", "--fault", "429=0.6"]],
)  # fmt: skip
def test_wrong_options_are_one_clear_line(options: list[str]) -> None:
    command = [sys.executable, "-m", "broker", "simulate", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "Error: Invalid value" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_faults_are_listed() -> None:
    command = [sys.executable, "-m", "broker", "simulate", "--list-faults"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()[:-1]] == list(FAULTS)
