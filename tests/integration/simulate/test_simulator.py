"""`broker simulate`: three APIs as strict as their providers, limits with their own headers, faults on demand."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

CHAT = {"model": "gpt-x", "messages": [{"role": "user", "content": "Hello"}]}
MESSAGES = {"model": "claude-x", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
GENERATE = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
KEYS = {"authorization": "Bearer k", "x-api-key": "k", "anthropic-version": "2023-06-01", "x-goog-api-key": "k"}
PATHS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": ("/v1/chat/completions", CHAT),
    "anthropic": ("/v1/messages", MESSAGES),
    "gemini": ("/v1beta/models/gemini-x:generateContent", GENERATE),
}


@contextmanager
def bases_of(*options: str) -> Iterator[dict[str, str]]:
    """Run `broker simulate` and yield what it prints: where each API begins."""
    command = [sys.executable, "-m", "broker", "simulate", "--port", "0", "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        bases = json.loads(process.stdout.readline())
        try:
            yield bases
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


@contextmanager
def simulator(*options: str) -> Iterator[httpx.Client]:
    """Run `broker simulate` and yield a client of it."""
    with bases_of(*options) as bases:
        base = bases["stats"].removesuffix("/-/stats")
        with httpx.Client(base_url=base, headers=KEYS, timeout=20.0) as client:
            yield client


def text_of(api: str, body: Any) -> str:
    if api == "openai":
        return str(body["choices"][0]["message"]["content"])
    if api == "anthropic":
        return str(body["content"][0]["text"])
    return str(body["candidates"][0]["content"]["parts"][0]["text"])


@pytest.mark.parametrize("api", PATHS)
def test_each_api_answers_with_so_many_tokens(plain: httpx.Client, api: str) -> None:
    path, body = PATHS[api]
    answer = plain.post(path, json=body)
    assert answer.status_code == 200
    assert len(text_of(api, answer.json())) == pytest.approx(64, abs=4)


@pytest.mark.parametrize(
    ("api", "change", "field"),
    [
        ("openai", {"tempersture": 1}, "tempersture"),
        ("openai", {"temperature": 3}, "temperature"),
        ("openai", {"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]}, "tool_calls"),
        ("openai", {"messages": []}, "messages"),
        ("anthropic", {"max_tokens": None}, "max_tokens"),
        ("anthropic", {"temperature": 1.5}, "temperature"),
        ("anthropic", {"frequency_penalty": 1}, "frequency_penalty"),
        ("anthropic", {"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ("anthropic", {"thinking": {"type": "enabled", "budget_tokens": 60}}, "thinking"),
        ("gemini", {"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "role"),
        ("gemini", {"generationConfig": {"max_tokens": 1}}, "max_tokens"),
        ("gemini", {"contents": [{"role": "user", "parts": [{}]}]}, "parts"),
    ],
)
def test_what_the_provider_would_refuse_is_refused_by_name(
    plain: httpx.Client, api: str, change: dict[str, Any], field: str
) -> None:
    path, body = PATHS[api]
    answer = plain.post(path, json={**body, **change})
    assert answer.status_code == 400
    assert field in json.dumps(answer.json()["error"])


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("raw", [b"", b"[]", b'{"messages": [1], "contents": 3}', b"<html>"])
def test_garbage_is_a_clear_400(plain: httpx.Client, api: str, raw: bytes) -> None:
    assert plain.post(PATHS[api][0], content=raw).status_code == 400


@pytest.mark.parametrize(("api", "status"), [("openai", 401), ("anthropic", 401), ("gemini", 403)])
def test_a_key_is_needed_and_any_is_good(plain: httpx.Client, api: str, status: int) -> None:
    path, body = PATHS[api]
    assert httpx.post(f"{plain.base_url}{path}", json=body).status_code == status


def test_forced_tools_and_schemas_get_what_fits(plain: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "k": {"enum": ["a"]}}, "required": ["n", "k"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    body = plain.post("/v1/chat/completions", json={**CHAT, "tools": [tool], "tool_choice": "required"}).json()
    call = body["choices"][0]["message"]["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"])) == ("f", {"n": 1, "k": "a"})
    format_ = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = plain.post("/v1/chat/completions", json={**CHAT, "response_format": format_}).json()
    assert json.loads(body["choices"][0]["message"]["content"]) == {"n": 1, "k": "a"}


@pytest.mark.parametrize(
    ("api", "left", "wait"),
    [("openai", "x-ratelimit-remaining-requests", "retry-after"),
     ("anthropic", "anthropic-ratelimit-requests-remaining", "retry-after"), ("gemini", None, None)],
)  # fmt: skip
def test_limits_come_with_the_headers_of_the_provider(api: str, left: str | None, wait: str | None) -> None:
    path, body = PATHS[api]
    with simulator("--rpm", "2") as client:
        answers = [client.post(path, json=body) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    if left is not None and wait is not None:
        assert [answer.headers[left] for answer in answers] == ["1", "0", "0"]
        assert 0 < int(answers[2].headers[wait]) <= 60
    else:
        (wait_of,) = [each for each in answers[2].json()["error"]["details"] if each["@type"].endswith("RetryInfo")]
        assert 0 < float(wait_of["retryDelay"].removesuffix("s")) <= 60


def test_faults_by_script_and_by_rate_and_what_was_seen() -> None:
    with simulator("--fault", "503=1.0") as client:
        client.post("/-/script", json=["ok", "429", "html", "drop", "cut"])
        path, body = PATHS["openai"]
        told: list[Any] = []
        for _ in range(6):
            try:
                answer = client.post(path, json=body, headers={"x-request-id": "r1"})
            except httpx.HTTPError as error:
                told.append(type(error).__name__)
            else:
                told.append((answer.status_code, answer.headers["content-type"].partition(";")[0]))
        stats = client.get("/-/stats").json()
    assert told[:3] == [(200, "application/json"), (429, "application/json"), (200, "text/html")]
    assert told[3:5] == ["RemoteProtocolError"] * 2
    assert told[5] == (503, "application/json")
    assert (stats["requests"], stats["in_flight"], stats["outcomes"]["503"]) == ({"r1": 6}, 0, 1)


@pytest.mark.parametrize("fault", ["429", "429=2", "nonsense=0.1", "200=0.5", "=1"])
def test_a_wrong_fault_is_told(fault: str) -> None:
    command = [sys.executable, "-m", "broker", "simulate", "--fault", fault]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "KIND=RATE" in done.stderr
