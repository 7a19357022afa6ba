"""`enable_pre_call_checks` over a real log, a real Redis and an upstream that counts its calls."""

from decimal import Decimal
from typing import Any

import pytest

from broker.config import Alias, Capabilities
from schemas.usage import Outcome
from tests.serving import calling, deployment, make_topics, settings_of, working
from tests.upstream import Upstream

pytestmark = pytest.mark.embedded

PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}]


def able(name: str, url: str, *cans: dict[str, Any], **fields: Any) -> Alias:
    """An alias with one deployment for each of `cans`, checked before calls."""
    deployments = tuple(
        deployment(name, url, number, model_info=Capabilities(**can)) for number, can in enumerate(cans)
    )
    return Alias(name=name, deployments=deployments, enable_pre_call_checks=True, timeout=20.0, **fields)


def chat(content: object) -> dict[str, Any]:
    return {"model": "m", "messages": content if isinstance(content, list) else [{"role": "user", "content": content}]}


async def test_a_long_conversation_goes_to_the_large_window_and_a_short_one_to_either(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        mixed = able("mixed", up.url, {"max_input_tokens": 1_000}, {"max_input_tokens": 100_000})
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, mixed)
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            long = [await caller.publish("mixed", chat("word " * 2_000)) for _ in range(12)]
            replies = await caller.replies(*long)
            long_calls = [call.model for call in up.calls]
            short = [await caller.publish("mixed", chat("Hello")) for _ in range(30)]
            short_replies = await caller.replies(*short)
    assert {reply.served_by for reply in replies} == {"mixed/1"}
    assert long_calls == ["mixed-1"] * 12
    assert {reply.served_by for reply in short_replies} == {"mixed/0", "mixed/1"}


async def test_a_picture_is_rerouted_past_what_cannot_see_it_without_one_call_there(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as blind_up, Upstream() as seeing_up:
        settings = settings_of(
            kafka_bootstrap,
            redis_url,
            unique_prefix,
            able("blind", blind_up.url, {"supports_vision": False}, fallbacks=("dark", "seeing")),
            able("dark", blind_up.url, {"supports_vision": False}),
            able("seeing", seeing_up.url, {"supports_vision": True}),
        )
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            reply = await caller.ask("blind", chat(PICTURE))
            events = await caller.events(reply.request_id, 2)
    assert (reply.status, reply.alias, reply.served_by, reply.fallbacks) == (200, "blind", "seeing/0", 1)
    assert (len(blind_up.calls), len(seeing_up.calls)) == (0, 1)
    assert [(event.alias, event.outcome, event.billable) for event in events] == [
        ("blind", Outcome.REROUTED, False),
        ("seeing", Outcome.ANSWERED, True),
    ]
    assert (events[0].cost, events[0].deployment) == (Decimal(0), "")


async def test_what_no_alias_can_serve_is_a_400_that_names_why_and_nothing_is_called(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        small = able("small", up.url, {"max_input_tokens": 1_000, "supports_function_calling": False})
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, small)
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            long = await caller.ask("small", chat("word " * 2_000))
            tools = await caller.ask("small", {**chat("Hello"), "tools": [{"type": "function"}]})
            (event,) = await caller.events(tools.request_id, 1)
    assert (long.status, long.body()["error"]["code"]) == (400, "context_length_exceeded")
    assert (tools.status, tools.body()["error"]["code"], tools.body()["error"]["param"]) == (
        400,
        "invalid_request",
        "tools",
    )
    assert (event.outcome, event.billable, event.cost) == (Outcome.REFUSED, True, Decimal(0))
    assert up.calls == []
