"""The demo's two difficult upstreams do what the demo says of them."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from broker.clock import ManualClock
from broker.embedded.demo.upstreams import BURST, BURST_SECONDS, Busy, Flaky, error, listening
from broker.embedded.part import PartError
from broker.embedded.probe import free_port


@pytest.fixture
async def model() -> AsyncIterator[str]:
    """A server that says what it was asked."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split()[1]
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(path), path))
        await writer.drain()
        writer.close()

    port = free_port()
    async with await asyncio.start_server(handle, "127.0.0.1", port):
        yield f"http://127.0.0.1:{port}/v1"


async def test_busy_answers_a_burst_and_tells_the_rest_when_to_come_back(model: str) -> None:
    clock = ManualClock()
    busy, port = Busy(model, clock.monotonic), free_port()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with listening(busy, port), httpx.AsyncClient() as client:
        answers = [await client.post(url, json={}) for _ in range(BURST + 1)]
        clock.advance(BURST_SECONDS)
        later = await client.post(url, json={})

    assert [answer.status_code for answer in answers] == [200] * BURST + [429]
    assert answers[0].text == "/v1/chat/completions"
    assert answers[-1].headers["retry-after"] == "6"
    assert answers[-1].json()["error"]["message"] == "at most 3 requests within 6 s"
    assert (later.status_code, busy.turned_away) == (200, 1)


async def test_busy_is_a_bad_gateway_while_the_model_is_away() -> None:
    port = free_port()
    busy = Busy(f"http://127.0.0.1:{free_port()}/v1", ManualClock().monotonic)
    async with listening(busy, port), httpx.AsyncClient() as client:
        answer = await client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json={})

    assert answer.status_code == 502


async def test_flaky_fails_in_four_ways_in_turn() -> None:
    flaky, port = Flaky(), free_port()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with listening(flaky, port), httpx.AsyncClient() as client:
        first = [await client.post(url, json={}) for _ in range(3)]
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(url, json={})
        again = await client.post(url, json={})

    assert [answer.status_code for answer in first] == [429, 503, 200]
    assert first[2].headers["content-type"] == "text/html"
    assert again.status_code == 429
    assert dict(flaky.failures) == {"429": 2, "503": 1, "HTML with status 200": 1, "dropped connection": 1}


async def test_a_port_in_use_is_one_clear_line() -> None:
    port = free_port()
    async with listening(Flaky(), port):
        with pytest.raises(PartError, match=rf"^flaky: port {port} on 127\.0\.0\.1 is in use; stop what listens"):
            async with listening(Flaky(), port):
                pass


def test_a_header_is_written_with_hyphens() -> None:
    assert b"\r\nretry-after: 3\r\n" in error(429, "slow", retry_after="3").encode()
