"""Each dialect through the whole queue against the simulator: one OpenAI body, whatever provider answers it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import httpx
import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import SecretStr

from broker.config import Aws, Azure, Prices, Vertex
from schemas.request import EMBEDDINGS, RERANK
from tests.integration.simulate.keys import private_key
from tests.integration.simulate.test_simulator import simulator
from tests.serving import Caller, alias, calling, make_topics, settings_of, working

pytestmark = pytest.mark.embedded

KEY = SecretStr("sk-upstream-secret")
SIGNED = Aws(
    region="us-east-1",
    access_key_id=SecretStr("AKIASIMULATOR0000000"),
    secret_access_key=SecretStr("simulated/secret/key/that/opens/nothing0"),
)
TARGETS: dict[str, Callable[[str], dict[str, Any]]] = {
    "openai": lambda url: {"provider": "openai", "model": "gpt-4o-mini", "api_base": f"{url}/v1"},
    "anthropic": lambda url: {"provider": "anthropic", "model": "claude-sonnet-4-5-20250929", "api_base": f"{url}/v1"},
    "gemini": lambda url: {"provider": "gemini", "model": "gemini-2.5-flash", "api_base": f"{url}/v1beta"},
    "cohere": lambda url: {"provider": "cohere", "model": "command-a-03-2025", "api_base": f"{url}/v2"},
    "azure by key": lambda url: {
        "provider": "azure", "model": "d1", "api_base": url, "azure": Azure(api_version="2024-10-21"),
    },
    "azure by a token": lambda url: {
        "provider": "azure", "model": "d1", "api_base": url, "api_key": None,
        "azure": Azure(
            api_version="2024-10-21", tenant_id="t", client_id="c", client_secret=SecretStr("entra-secret"),
            authority=url,
        ),
    },
    "vertex": lambda url: {
        "provider": "vertex_ai", "model": "gemini-2.5-flash", "api_base": url, "api_key": None,
        "vertex": Vertex(project="project-1", location="europe-west1", credentials=SecretStr(service_account(url))),
    },
    "bedrock": lambda url: {
        "provider": "bedrock", "model": "anthropic.claude-sonnet-4-5-20250929-v1:0", "api_base": url, "api_key": None,
        "aws": SIGNED,
    },
    "bedrock by key": lambda url: {
        "provider": "bedrock", "model": "amazon.nova-pro-v1:0", "api_base": url, "aws": Aws(region="us-east-1"),
    },
}  # fmt: skip
"""What a deployment of each says; the address is the simulator's."""


def service_account(url: str) -> str:
    """A credential file of a service account whose tokens the simulator gives."""
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "project-1",
            "private_key_id": "k1",
            "private_key": private_key(),
            "client_email": "tester@project-1.iam.gserviceaccount.com",
            "token_uri": f"{url}/token",
        }
    )


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "What is the weather in Bern?"}


@pytest.fixture(scope="module")
def simulated() -> Iterator[httpx.Client]:
    with simulator() as client:
        yield client


@asynccontextmanager
async def served(fields: dict[str, Any], bootstrap: str, redis_url: str, prefix: str) -> AsyncIterator[Caller]:
    """Serve the alias `any` by one deployment; a token costs a dollar in a million, one of the answer two."""
    prices = Prices(input_cost_per_token=Decimal("0.000001"), output_cost_per_token=Decimal("0.000002"))
    named = {"name": f"{prefix}any/0", "prices": prices, "api_key": KEY, **fields}
    settings = settings_of(bootstrap, redis_url, prefix, alias("any", "", limits=named))
    await make_topics(settings)
    async with calling(settings) as found, working(settings):
        yield found


@pytest.fixture(params=TARGETS)
async def caller(
    request: pytest.FixtureRequest, simulated: httpx.Client, kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> AsyncIterator[Caller]:
    fields = TARGETS[request.param](str(simulated.base_url).rstrip("/"))
    async with served(fields, kafka_bootstrap, redis_url, unique_prefix) as found:
        yield found


async def test_a_conversation_with_a_tool_goes_round(caller: Caller) -> None:
    asked = {
        "messages": [SYSTEM, QUESTION],
        "tools": [TOOL],
        "tool_choice": "required",
        "max_tokens": 100,
        "temperature": 0.5,
    }
    first = await caller.ask("any", asked)
    assert first.status == 200, first.value
    ChatCompletion.model_validate(first.body(), strict=True)
    message = first.body()["choices"][0]["message"]
    assert first.body()["choices"][0]["finish_reason"] == "tool_calls"
    (call,) = message["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("weather", {"place": "text"})
    result = {"role": "tool", "tool_call_id": call["id"], "content": "Sunny."}
    second = await caller.ask("any", {"messages": [SYSTEM, QUESTION, message, result], "tools": [TOOL]})
    assert second.status == 200, second.value
    assert second.body()["choices"][0]["message"]["content"].startswith("the quick")
    (event,) = await caller.events(second.request_id, 1)
    assert event.billable
    assert event.output_tokens == 16
    assert not event.estimated
    assert event.cost == (event.input_tokens + 2 * event.output_tokens) * Decimal("0.000001")


async def test_a_stream_comes_as_openai_chunks_and_its_end_is_the_whole(caller: Caller) -> None:
    reply = await caller.ask("any", {"messages": [QUESTION], "stream": True, "stream_options": {"include_usage": True}})
    assert reply.status == 200, reply.value
    body = reply.body()
    chunks = [
        json.loads(record.value or b"")
        for record in await caller.until(caller.names.replies, 3, {reply.request_id})
        if dict(record.headers).get("final") != b"1"
    ]
    told = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert told == body["choices"][0]["message"]["content"]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk.get("usage")] == [16]
    assert body["usage"]["completion_tokens"] == 16


async def test_a_structured_answer_fits_its_schema(caller: Caller) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    reply = await caller.ask("any", {"messages": [QUESTION], "response_format": wanted})
    assert json.loads(reply.body()["choices"][0]["message"]["content"]) == {"n": 1}


async def test_what_the_provider_fails_at_is_tried_again(caller: Caller, simulated: httpx.Client) -> None:
    await asyncio.to_thread(simulated.post, "/-/script", json=["503", "html"])
    reply = await caller.ask("any", {"messages": [QUESTION]})
    assert (reply.status, reply.attempts) == (200, 3)


EMBEDDERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "openai": lambda url: {"provider": "openai", "model": "text-embedding-3-small", "api_base": f"{url}/v1"},
    "gemini": lambda url: {"provider": "gemini", "model": "gemini-embedding-001", "api_base": f"{url}/v1beta"},
    "cohere": lambda url: {"provider": "cohere", "model": "embed-v4.0", "api_base": f"{url}/v2"},
    "azure": lambda url: {**TARGETS["azure by key"](url), "model": "embedder"},
    "vertex": lambda url: {**TARGETS["vertex"](url), "model": "text-embedding-005"},
    "bedrock": lambda url: {**TARGETS["bedrock"](url), "model": "cohere.embed-english-v3"},
}
RERANKERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "cohere": lambda url: {"provider": "cohere", "model": "rerank-v3.5", "api_base": f"{url}/v2"},
    "jina": lambda url: {"provider": "jina_ai", "model": "jina-reranker-v3", "api_base": f"{url}/jina/v1"},
    "voyage": lambda url: {"provider": "voyage", "model": "rerank-2.5", "api_base": f"{url}/voyage/v1"},
}  # fmt: skip


@pytest.mark.parametrize("name", EMBEDDERS)
async def test_texts_are_embedded_by_whoever_embeds(
    name: str, simulated: httpx.Client, kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    fields = EMBEDDERS[name](str(simulated.base_url).rstrip("/"))
    async with served(fields, kafka_bootstrap, redis_url, unique_prefix) as caller:
        reply = await caller.ask("any", {"input": ["one text", "another"]}, endpoint=EMBEDDINGS)
    assert reply.status == 200, reply.value
    found = CreateEmbeddingResponse.model_validate(reply.body(), strict=True)
    assert [item.index for item in found.data] == [0, 1]
    assert all(item.embedding for item in found.data)


@pytest.mark.parametrize("name", RERANKERS)
async def test_documents_are_ranked_in_one_shape_by_whoever_ranks(
    name: str, simulated: httpx.Client, kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    fields = RERANKERS[name](str(simulated.base_url).rstrip("/"))
    asked = {"query": "What is a fox?", "documents": ["A fox is an animal.", "Rates rose.", "Foxes run."], "top_n": 2}
    async with served(fields, kafka_bootstrap, redis_url, unique_prefix) as caller:
        reply = await caller.ask("any", asked, endpoint=RERANK)
    assert reply.status == 200, reply.value
    results = reply.body()["results"]
    assert len(results) == 2
    assert results[0]["relevance_score"] >= results[1]["relevance_score"]
    assert {result["index"] for result in results} <= {0, 1, 2}
