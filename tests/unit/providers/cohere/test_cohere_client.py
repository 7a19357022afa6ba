"""Cohere's API through the provider client, on the wire: where a call goes, and what of it is billed."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from broker.config import Deployment
from broker.errors import ContextLengthExceeded
from schemas.request import CHAT, RERANK
from tests.golden.cases import FOLDER
from tests.upstream import Raw, Upstream
from workers.providers.base import Call, Usage
from workers.providers.client import HttpProviderClient
from workers.providers.transport import make_transport

USAGE = {"billed_units": {"input_tokens": 18, "output_tokens": 2}, "tokens": {"input_tokens": 82, "output_tokens": 4}}


@pytest.fixture
async def client() -> AsyncIterator[HttpProviderClient]:
    client = HttpProviderClient(make_transport(4))
    yield client
    await client.close()


@pytest.fixture
async def up() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        yield upstream


def a_call(up: Upstream, endpoint: str, body: dict[str, Any], provider: str = "cohere") -> Call:
    deployment = Deployment(name="a/0", alias="a", provider=provider, model="m", api_base=up.url, api_key="co-secret")
    return Call(deployment, endpoint, body, 10.0, "request-1")


class Chunks(list[dict[str, Any]]):
    async def __call__(self, data: bytes) -> None:
        self.append(json.loads(data))


async def test_a_stream_is_billed_by_what_its_end_says(client: HttpProviderClient, up: Upstream) -> None:
    stream = (FOLDER / "cohere" / "text.sse").read_bytes()
    up.script("m", [Raw(stream, content_type="text/event-stream")])
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
    chunks = Chunks()
    result = await client.call(a_call(up, CHAT, body), chunks)
    assert (up.calls[0].path, up.calls[0].headers["authorization"]) == ("/v2/chat", "Bearer co-secret")
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", "Hé", "llo", None]
    assert result.usage.raw is not None
    assert {name: result.usage.raw[name] for name in USAGE} == USAGE
    assert (result.usage.input_tokens, result.usage.cached_tokens, result.usage.output_tokens) == (18, 6, 2)
    assert json.loads(result.body)["choices"][0]["message"]["content"] == "Héllo"


async def test_a_ranking_goes_to_its_endpoint_and_keeps_its_search_units(
    client: HttpProviderClient, up: Upstream
) -> None:
    meta = {"billed_units": {"search_units": 1}}
    up.script("m", [Raw(json.dumps({"id": "r", "results": [{"index": 0, "relevance_score": 0.5}], "meta": meta}))])
    result = await client.call(a_call(up, RERANK, {"query": "four", "documents": ["four"]}))
    assert up.calls[0].path == "/v2/rerank"
    assert result.usage == Usage(input_tokens=2, estimated=True, raw=meta)


@pytest.mark.parametrize(
    ("provider", "field", "told"),
    [
        ("cohere", "message", "too many tokens: size limit exceeded"),
        ("voyage", "detail", "The max allowed tokens are 9"),
    ],
)
async def test_a_prompt_that_does_not_fit_is_known_as_one(
    client: HttpProviderClient, up: Upstream, provider: str, field: str, told: str
) -> None:
    up.script("m", [Raw(json.dumps({field: told}), 400)])
    with pytest.raises(ContextLengthExceeded) as caught:
        await client.call(a_call(up, RERANK, {"query": "q", "documents": ["d"]}, provider))
    assert caught.value.message == told
