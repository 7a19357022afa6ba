"""Streams that break or are cut off: who is called again, what the reader is told, what the row says and the key pays.

Over the real provider client and the scripted upstream; log, journal and limits are twins.
"""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import orjson
import pytest

from broker.config import Alias, Deployment, Prices, VirtualKey
from broker.envelope import NewRequest, Reply, encode_cancel, encode_request, read_reply
from broker.ledger.money import to_decimal
from broker.ports import Scope
from schemas.usage import Outcome
from tests.unit.workers.world import World
from tests.upstream import BreakingStream, Events, Hang, Status, Step, Upstream
from workers.providers.client import HttpProviderClient
from workers.providers.transport import make_transport

PRICES = Prices(input_cost_per_token=Decimal("0.000001"), output_cost_per_token=Decimal("0.000002"))
KEY = VirtualKey(
    hash=hashlib.sha256(b"sk-mine").hexdigest(),
    key_id="mine",
    tenant="mine",
    tpm_limit=1_000_000,
    max_budget=Decimal(9),
)
MONEY = Scope(f"key:{KEY.hash}")

TEXT = "this stream "
"""What `BreakingStream(after=3)` tells before it breaks: its first event is a role alone."""
COST = Decimal("0.000008")
"""Of the 2 tokens of "Hello" and the 3 of `TEXT`, four characters a token."""


@asynccontextmanager
async def serving(count: int = 1, **fields: Any) -> AsyncIterator[tuple[World, Upstream]]:
    """A worker on twins whose alias `fast` has `count` deployments, models `m0`, `m1`, …, on one scripted upstream."""
    async with Upstream() as up:
        deployments = tuple(
            Deployment(
                name=f"fast/{n}", alias="fast", provider="hosted_vllm", model=f"m{n}", api_base=up.url, prices=PRICES
            )
            for n in range(count)
        )
        world = World(Alias(name="fast", deployments=deployments, **fields), keys={KEY.hash: KEY})
        world.provider = HttpProviderClient(make_transport(16))  # type: ignore[assignment] # the same port
        async with world.worker():
            yield world, up


async def ask(world: World, **fields: Any) -> None:
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    deadline = fields.pop("deadline", None)
    request = NewRequest(
        alias="fast",
        body=orjson.dumps({**body, **fields}),
        request_id="a",
        reply_to=world.names.replies,
        reply_partition=0,
        key="sk-mine",
        deadline=deadline,
    )
    await world.write(encode_request(request, world.names))


async def told(world: World) -> tuple[list[Reply], Reply]:
    """What the reader got: chunks, then the final reply."""
    count = 0
    while True:
        records = await world.records(world.names.replies, count + 1)
        count = len(records)
        replies = [reply for reply in map(read_reply, records) if reply is not None]
        final = [reply for reply in replies if reply.final]
        if final:
            assert len(final) == 1
            return [reply for reply in replies if not reply.final], final[0]


def text_of(chunks: list[Reply]) -> str:
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.body().get("choices", [])
    )


async def settled(world: World) -> tuple[Decimal, int, int]:
    """USD and tokens that the key has used and how many of its requests run: asked of a worker that has stopped."""
    (found,) = await world.callers.used([MONEY])
    return to_decimal(found["spent"]), found["tokens"], found["running"]


def a_chunk(content: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m0", "choices": [choice]}


BEGUN = [a_chunk("this "), a_chunk("str"), a_chunk("eam ")]
SILENT = Events([b"".join(b"data: %s\n\n" % orjson.dumps(each) for each in BEGUN), a_chunk("late")], chunk_delay=60)
"""Tells `TEXT` and then nothing for a minute."""

BROKEN: list[tuple[Step, int, str]] = [
    (BreakingStream(after=3), 502, "bad_upstream_response"),
    (BreakingStream(after=3, chunk_delay=0.01), 502, "bad_upstream_response"),
    (Events(BEGUN), 502, "bad_upstream_response"),
    (Events([*BEGUN, b"data: {\n\n"]), 502, "bad_upstream_response"),
    (Events([*BEGUN, {"error": {"message": "the engine died"}}]), 502, "bad_upstream_response"),
    (Events([*BEGUN, {"error": {"message": "overloaded", "code": 503}}]), 503, "upstream_503"),
    (Events([*BEGUN, {"error": {"message": "slow down", "code": 429}}]), 429, "upstream_429"),
    (SILENT, 408, "upstream_timeout"),
]


@pytest.mark.parametrize(("step", "status", "code"), BROKEN, ids=repr)
async def test_a_stream_that_breaks_after_content_was_delivered_ends_with_its_error_and_is_not_called_again(
    step: Step, status: int, code: str
) -> None:
    async with serving(2, num_retries=3, fallbacks=("other",), timeout=0.5 if status == 408 else 20.0) as (world, up):
        up.script_request("a", [step])
        await ask(world)
        chunks, reply = await told(world)
        (row,) = await world.rows(1)
    error = reply.body()["error"]
    assert (reply.status, len(up.calls), reply.attempts) == (status, 1, 1)
    assert (error["code"], text_of(chunks)) == (code, TEXT)
    assert error["message"].startswith("the stream broke after 3 chunks: ")
    assert (row.outcome, row.billable, row.status) == (Outcome.FAILED, True, status)
    assert (row.input_tokens, row.output_tokens, row.estimated, row.cost) == (2, 3, True, COST)
    assert (reply.cost, await settled(world)) == (COST, (COST, 5, 0))


@pytest.mark.parametrize(
    "step",
    [BreakingStream(after=1), Events([{"error": {"message": "died"}}]), Events([b"data: {\n\n"]), Status(500)],
    ids=repr,
)
async def test_a_stream_that_breaks_before_content_is_answered_by_another_deployment_and_nobody_sees_it(
    step: Step,
) -> None:
    async with serving(2) as (world, up):
        up.script_request("a", [step])
        await ask(world)
        chunks, reply = await told(world)
        first, second = await world.rows(2)
    assert (reply.status, text_of(chunks), {chunk.attempt for chunk in chunks}) == (200, "echo: Hello", {2})
    assert (first.outcome, first.billable, first.output_tokens) == (Outcome.FAILED, False, 0)
    assert (second.outcome, second.billable, len(up.calls)) == (Outcome.ANSWERED, True, 2)
    assert first.deployment != second.deployment


async def test_a_cancelled_stream_is_closed_upstream_and_billed_once_for_what_came() -> None:
    async with serving() as (world, up):
        up.script("m0", [SILENT])
        await ask(world)
        await world.records(world.names.replies, 3)
        await world.write(encode_cancel("a", world.names, world.clock.now_ms()))
        chunks, reply = await told(world)
        (row,) = await world.rows(1)
        await up.until(lambda: up.in_flight == 0)
    assert (reply.status, text_of(chunks), up.calls[0].disconnected) == (499, TEXT, True)
    assert (row.outcome, row.billable, row.model) == (Outcome.CANCELLED, True, "m0")
    assert (row.input_tokens, row.output_tokens, row.estimated, row.cost) == (2, 3, True, COST)
    assert (reply.cost, await settled(world), len(up.calls)) == (COST, (COST, 5, 0), 1)


async def test_a_cut_stream_whose_usage_came_is_billed_by_it_and_not_by_an_estimate() -> None:
    counted = {**a_chunk("eam "), "usage": {"prompt_tokens": 70, "completion_tokens": 5, "total_tokens": 75}}
    stream = b"".join(b"data: %s\n\n" % orjson.dumps(each) for each in (*BEGUN[:2], counted))
    async with serving() as (world, up):
        up.script("m0", [Events([stream, a_chunk("late")], chunk_delay=60)])
        await ask(world)
        await world.records(world.names.replies, 3)
        await world.write(encode_cancel("a", world.names, world.clock.now_ms()))
        (row,) = await world.rows(1)
    assert (row.input_tokens, row.output_tokens, row.estimated) == (70, 5, False)
    assert row.cost == Decimal("0.00008")
    assert orjson.loads(row.raw_usage) == counted["usage"]


async def test_a_deadline_that_cuts_a_stream_is_a_504_that_is_billed_for_what_came() -> None:
    async with serving() as (world, up):
        up.script("m0", [SILENT])
        await ask(world, deadline=world.clock.now_ms() + 700)
        chunks, reply = await told(world)
        (row,) = await world.rows(1)
        await up.until(lambda: up.in_flight == 0)
    assert (reply.status, text_of(chunks), up.calls[0].disconnected) == (504, TEXT, True)
    assert reply.body()["error"]["message"].endswith("after 3 chunks of its stream")
    assert (row.outcome, row.billable, row.estimated, row.cost) == (Outcome.EXPIRED, True, True, COST)


@pytest.mark.parametrize("asked", [{"stream": False}, {"stream": True}], ids=repr)
async def test_a_cancelled_call_that_produced_nothing_we_know_of_has_no_known_cost(asked: dict[str, bool]) -> None:
    async with serving() as (world, up):
        up.script("m0", [Hang()])
        await ask(world, **asked)
        await up.until(lambda: len(up.calls) == 1)
        await world.write(encode_cancel("a", world.names, world.clock.now_ms()))
        _, reply = await told(world)
        (row,) = await world.rows(1)
    assert (reply.status, row.outcome, row.billable) == (499, Outcome.CANCELLED, True)
    assert (row.input_tokens, row.output_tokens, row.estimated, row.cost) == (0, 0, False, None)
