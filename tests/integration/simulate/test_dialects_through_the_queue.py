"""Each dialect through the whole queue against the simulator: one OpenAI body, whatever provider answers it."""

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from broker.config import Prices
from tests.integration.simulate.test_simulator import simulator
from tests.serving import Caller, alias, calling, make_topics, settings_of, working

pytestmark = pytest.mark.embedded

PROVIDERS = {
    "openai": ("gpt-4o-mini", "/v1"),
    "anthropic": ("claude-sonnet-4-5-20250929", "/v1"),
    "gemini": ("gemini-2.5-flash", "/v1beta"),
    "cohere": ("command-a-03-2025", "/v2"),
}
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


@pytest.fixture(params=PROVIDERS)
async def caller(
    request: pytest.FixtureRequest, simulated: httpx.Client, kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> Any:
    model, base = PROVIDERS[request.param]
    url = f"{simulated.base_url}".rstrip("/") + base
    prices = Prices(input_cost_per_token=Decimal("0.000001"), output_cost_per_token=Decimal("0.000002"))
    fields = {"provider": request.param, "model": model, "name": f"{unique_prefix}any/0", "prices": prices}
    settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("any", url, limits=fields))
    await make_topics(settings)
    async with calling(settings) as found, working(settings):
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
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
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
