"""Streams that break or are cut, through a real log and a real Redis: what is called, told, billed."""

import asyncio
from decimal import Decimal
from typing import Any

import orjson
import pytest

from broker.config import Prices
from broker.envelope import encode_cancel, headers
from broker.records import Record
from schemas.usage import Outcome
from tests.serving import alias, calling, make_topics, settings_of, working
from tests.upstream import BreakingStream, Events, Ok, Upstream

pytestmark = pytest.mark.embedded

BODY = {"model": "words", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
PRICES = Prices(input_cost_per_token=Decimal("0.000001"), output_cost_per_token=Decimal("0.000002"))


def chunks_of(records: list[Record]) -> list[Record]:
    return [record for record in records if headers.SEQ in dict(record.headers)]


def attempts_of(records: list[Record]) -> set[bytes]:
    return {dict(record.headers)[headers.ATTEMPT] for record in chunks_of(records)}


def a_chunk(content: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "words-0", "choices": [choice]}


async def test_a_stream_that_breaks_after_three_chunks_ends_with_an_error_and_one_call(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        words = alias("words", up.url, count=2, limits={"prices": PRICES}, fallbacks=("spare",))
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, words, alias("spare", up.url))
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            request_id = "breaks-" + unique_prefix
            up.script_request(request_id, [BreakingStream(after=3, chunk_delay=0.01)])
            reply = await caller.ask("words", BODY, request_id=request_id)
            records = await caller.until(caller.names.replies, 4, {request_id})
            (event,) = await caller.events(request_id, 1)
    assert (reply.status, reply.body()["error"]["code"], reply.attempts) == (502, "bad_upstream_response", 1)
    assert reply.body()["error"]["message"].startswith("the stream broke after 3 chunks: ")
    assert (len(chunks_of(records)), len(up.calls)) == (3, 1)
    assert (event.outcome, event.billable, event.estimated) == (Outcome.FAILED, True, True)
    assert (event.input_tokens, event.output_tokens, event.cost) == (2, 3, Decimal("0.000008"))
    assert reply.cost == event.cost


async def test_a_stream_that_breaks_before_its_first_content_is_answered_by_the_second_deployment(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("words", up.url, count=2))
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            request_id = "begins-" + unique_prefix
            up.script_request(request_id, [BreakingStream(after=1, chunk_delay=0.01), Ok("well done")])
            reply = await caller.ask("words", BODY, request_id=request_id)
            records = await caller.until(caller.names.replies, 5, {request_id})
            first, second = await caller.events(request_id, 2)
    assert (reply.status, reply.attempts, attempts_of(records)) == (200, 2, {b"2"})
    assert reply.body()["choices"][0]["message"]["content"] == "well done"
    assert (first.status, first.billable, second.outcome, second.billable) == (502, False, Outcome.ANSWERED, True)
    assert len({call.model for call in up.calls}) == 2


async def test_a_stream_cancelled_in_the_middle_is_closed_upstream_and_billed_for_what_came(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        words = alias("words", up.url, limits={"prices": PRICES})
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, words)
        await make_topics(settings)
        begun = b"".join(b"data: %s\n\n" % orjson.dumps(a_chunk(text)) for text in ("this ", "stream "))
        up.script("words-0", [Events([begun, a_chunk("late")], chunk_delay=60)])
        async with calling(settings) as caller, working(settings) as process:
            request_id = await caller.publish("words", BODY)
            await caller.until(caller.names.replies, 2, {request_id})
            await caller.write(encode_cancel(request_id, caller.names, process.parts.clock.now_ms()))
            (reply,) = await caller.replies(request_id)
            (event,) = await caller.events(request_id, 1)
            async with asyncio.timeout(5):
                await up.until(lambda: up.in_flight == 0)
    assert (reply.status, reply.body()["error"]["code"], up.calls[0].disconnected) == (499, "cancelled", True)
    assert (event.outcome, event.billable, event.estimated) == (Outcome.CANCELLED, True, True)
    assert (event.input_tokens, event.output_tokens, event.cost) == (2, 3, Decimal("0.000008"))
