"""The scripted upstream itself: what other tests rely on."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.upstream import BreakingStream, Drop, Hang, Html, Ok, Sse, Status, TruncatedJson, Upstream

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def test_a_script_is_played_in_order_and_then_answers_are_good() -> None:
    async with Upstream() as up, httpx.AsyncClient(base_url=up.url) as client:
        up.script("m", [Status(429, retry_after=1), Html(), TruncatedJson(), Sse()])
        answers = [await client.post("/chat/completions", json=CHAT) for _ in range(5)]
        assert [(a.status_code, a.headers["content-type"].split(";")[0]) for a in answers] == [
            (429, "application/json"),
            (200, "text/html"),
            (200, "application/json"),
            (200, "text/event-stream"),
            (200, "application/json"),
        ]
        assert answers[0].headers["retry-after"] == "1"
        assert answers[4].json()["choices"][0]["message"]["content"] == "echo: hi"
        assert len(up.calls) == 5


async def test_a_dropped_connection_is_dropped_before_or_inside_the_body() -> None:
    async with Upstream() as up, httpx.AsyncClient(base_url=up.url) as client:
        up.script("m", [Drop(), Drop(after_bytes=20), BreakingStream()])
        for _ in range(2):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post("/chat/completions", json=CHAT)
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/chat/completions", json={**CHAT, "stream": True})


async def test_overlap_ids_and_disconnects_are_recorded() -> None:
    async with Upstream() as up, httpx.AsyncClient(base_url=up.url) as client:
        up.script("m", [Hang(), Hang(), Hang()])
        calls = [
            asyncio.create_task(client.post("/chat/completions", json=CHAT, headers={"x-request-id": "r"}))
            for _ in range(3)
        ]
        await up.until(lambda: up.in_flight == 3)
        for call in calls:
            call.cancel()
        await up.until(lambda: up.in_flight == 0)
        assert (up.peak, up.counts["r"], [call.disconnected for call in up.calls]) == (3, 3, [True] * 3)


def test_it_serves_from_a_thread() -> None:
    with Upstream(default=Ok("hello")) as up:
        answer = httpx.post(f"{up.url}/embeddings", json={"model": "m", "input": ["a", "b"]}, trust_env=False)
    assert [item["index"] for item in answer.json()["data"]] == [0, 1]


def test_it_serves_from_a_process_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"m": [{"Status": {"status": 503}}]}))
    command = [sys.executable, "-m", "tests.upstream", "--script", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        answers = [httpx.post(f"{url}/chat/completions", json=CHAT, trust_env=False) for _ in range(2)]
        stats = httpx.get(url.removesuffix("/v1") + "/-/stats", trust_env=False).json()
        process.terminate()
    assert [answer.status_code for answer in answers] == [503, 200]
    assert (stats["calls"], stats["models"]) == (2, {"m": 2})
