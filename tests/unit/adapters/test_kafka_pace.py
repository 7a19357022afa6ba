"""The pause between empty fetches: only for a broker that does not hold them back, and short."""

import asyncio
from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest

from broker.adapters.kafka_pace import pace

FETCH = FetchRequest(100, 1, 1, 0, [], rack_id="")


class Response:
    def __init__(self, records: bytes = b"", error: int = 0) -> None:
        self.topics: list[Any] = [("t", [(0, error, 7, 7, 0, [], records)])]


class Client:
    """Answers at once, and counts."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self.asked = 0

    async def send(self, node_id: int, request: Any, **options: Any) -> Response:
        del node_id, request, options
        self.asked += 1
        return self.response


class Consumer:
    def __init__(self, client: Client) -> None:
        self._client = client


async def seconds_for(client: Client, request: Any, times: int) -> float:
    """How long a fetcher that never rests takes to ask so often."""
    pace(Consumer(client))
    begun = asyncio.get_running_loop().time()
    for _ in range(times):
        await client.send(1, request)
    assert client.asked == times
    return asyncio.get_running_loop().time() - begun


async def test_empty_fetches_that_come_back_at_once_are_spaced_out() -> None:
    assert await seconds_for(Client(Response()), FETCH, 8) >= 0.05  # 1 + 2 + 4 + 8 + 4 · 10 ms


@pytest.mark.parametrize("response", [Response(b"records"), Response(error=6)])
async def test_fetches_that_bring_something_are_not(response: Response) -> None:
    assert await seconds_for(Client(response), FETCH, 1_000) < 5  # with pauses it would be ten


async def test_other_requests_are_not() -> None:
    assert await seconds_for(Client(Response()), MetadataRequest([]), 1_000) < 5
