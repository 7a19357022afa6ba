"""The demo's two difficult providers do what the demo says of them."""

from collections import Counter

import httpx
import pytest

from broker.cli.demo_upstreams import BURST, BURST_SECONDS, busy_provider, failures, flaky_provider, serving
from broker.embedded.part import PartError
from broker.embedded.probe import free_port

MESSAGE = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
KEYS = {"x-api-key": "k", "anthropic-version": "2023-06-01", "authorization": "Bearer k"}


async def test_busy_answers_a_burst_and_tells_the_rest_when_to_come_back() -> None:
    busy, port = busy_provider(), free_port()
    async with serving("busy", busy, port), httpx.AsyncClient(headers=KEYS) as client:
        answers = [await client.post(f"http://127.0.0.1:{port}/v1/messages", json=MESSAGE) for _ in range(BURST + 1)]

    assert [answer.status_code for answer in answers] == [200] * BURST + [429]
    assert answers[-1].json()["error"]["type"] == "rate_limit_error"
    assert 0 < int(answers[-1].headers["retry-after"]) <= BURST_SECONDS
    assert busy.desk.outcomes == Counter({"answered": BURST, "429": 1})


async def test_flaky_fails_in_four_ways_in_turn() -> None:
    flaky, port = flaky_provider(), free_port()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with serving("flaky", flaky, port), httpx.AsyncClient(headers=KEYS) as client:
        first = [await client.post(url, json=CHAT) for _ in range(3)]
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(url, json=CHAT)
        again = await client.post(url, json=CHAT)

    assert [answer.status_code for answer in first] == [429, 503, 200]
    assert first[2].headers["content-type"] == "text/html"
    assert again.status_code == 429
    assert failures(flaky) == {"429": 2, "503": 1, "HTML with status 200": 1, "dropped connection": 1}


async def test_a_port_in_use_is_one_clear_line() -> None:
    port = free_port()
    async with serving("flaky", flaky_provider(), port):
        with pytest.raises(PartError, match=rf"^flaky: port {port} on 127\.0\.0\.1 is in use; stop what listens"):
            async with serving("flaky", flaky_provider(), port):
                pass
