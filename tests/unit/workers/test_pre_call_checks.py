"""`enable_pre_call_checks` in a worker: what is not called, where it goes instead, what its rows and replies say."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from broker.config import Alias, Capabilities, Deployment
from broker.envelope import headers as h
from broker.errors import ContextLengthExceeded, UpstreamError
from broker.records import Partition
from broker.topics import Lane
from schemas.usage import Outcome
from tests.unit.workers.world import World, make_alias

BLIND = Capabilities(supports_vision=False)
SEEING = Capabilities(supports_vision=True)
SHORT = Capabilities(max_input_tokens=100)
LONG = Capabilities(max_input_tokens=10_000)
PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}]
NOVEL = [{"role": "user", "content": "word " * 500}]


def able(name: str, *cans: Capabilities, checks: bool = True, **fields: Any) -> Alias:
    """An alias with one deployment for each of `cans`; fields named `limits` go to each of them."""
    limits = fields.pop("limits", {})
    deployments = tuple(
        Deployment(name=f"{name}/{number}", alias=name, provider="custom", model="m", model_info=can, **limits)
        for number, can in enumerate(cans)
    )
    return Alias(name=name, deployments=deployments, enable_pre_call_checks=checks, **fields)


def called(world: World) -> list[str]:
    return [call.deployment.name for call in world.provider.calls]


async def test_only_deployments_that_can_serve_a_request_are_called() -> None:
    world = World(able("mixed", BLIND, SEEING))
    async with world.worker():
        await world.publish("mixed", *map(str, range(8)), messages=PICTURE)
        replies = await world.replies(8)
    assert {reply.served_by for reply in replies.values()} == {"mixed/1"}
    assert called(world) == ["mixed/1"] * 8


async def test_an_alias_that_cannot_serve_a_request_sends_it_on_without_a_call() -> None:
    world = World(able("blind", BLIND, fallbacks=("seeing",)), able("seeing", SEEING))
    async with world.worker():
        await world.publish("blind", "a", messages=PICTURE)
        reply = (await world.replies(1))["a"]
        skipped, answered = await world.rows(2)
    assert (reply.status, reply.served_by, reply.alias, reply.fallbacks) == (200, "seeing/0", "blind", 1)
    assert called(world) == ["seeing/0"]
    assert (skipped.outcome, skipped.status, skipped.error_code) == (Outcome.REROUTED, 400, "invalid_request")
    assert (skipped.alias, skipped.deployment, skipped.billable) == ("blind", "", False)
    assert skipped.cost == Decimal(0)
    assert (answered.outcome, answered.alias, answered.billable) == (Outcome.ANSWERED, "seeing", True)


async def test_what_is_too_long_goes_to_the_larger_window() -> None:
    world = World(
        able("short", SHORT, context_window_fallbacks=("long",), fallbacks=("other",)),
        able("long", LONG),
        able("other", LONG),
    )
    async with world.worker():
        await world.publish("short", "a", messages=NOVEL)
        await world.publish("short", "b")
        replies = await world.replies(2)
        rows = await world.rows(3)
    assert {key: reply.served_by for key, reply in replies.items()} == {"a": "long/0", "b": "short/0"}
    assert [row.error_code for row in rows if row.outcome is Outcome.REROUTED] == ["context_length_exceeded"]


async def test_with_a_larger_window_in_the_alias_nothing_is_rerouted() -> None:
    world = World(able("mixed", SHORT, LONG, context_window_fallbacks=("other",)), able("other", LONG))
    async with world.worker():
        await world.publish("mixed", *map(str, range(5)), messages=NOVEL)
        replies = await world.replies(5)
    assert {reply.served_by for reply in replies.values()} == {"mixed/1"}


async def test_when_no_fallback_can_serve_it_either_the_reply_names_the_parameter_and_nothing_is_called() -> None:
    world = World(able("blind", BLIND, fallbacks=("dark",)), able("dark", BLIND))
    async with world.worker() as process:
        await world.publish("blind", "a", messages=PICTURE)
        reply = (await world.replies(1))["a"]
        (row,) = await world.rows(1)
        tracker = process.committer.trackers[Partition("llm.requests.blind", 0)]
        await world.until(lambda: tracker.in_flight == 0)
    error = reply.body()["error"]
    assert (reply.status, error["code"], error["param"]) == (400, "invalid_request", "messages[0].content[0]")
    assert error["message"] == "no deployment of alias blind can take images"
    assert (row.outcome, row.billable, row.status) == (Outcome.REFUSED, True, 400)
    assert row.cost == Decimal(0)
    assert called(world) == []


async def test_what_fits_no_window_is_refused_with_the_numbers() -> None:
    world = World(able("short", SHORT))
    async with world.worker():
        await world.publish("short", "a", messages=NOVEL)
        reply = (await world.replies(1))["a"]
    error = reply.body()["error"]
    assert (reply.status, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
    assert error["message"] == "the input has about 629 tokens; the largest context window of alias short takes 100"
    assert called(world) == []


async def test_without_the_setting_everything_is_called_as_before() -> None:
    world = World(able("blind", BLIND, checks=False, fallbacks=("seeing",)), able("seeing", SEEING))
    async with world.worker():
        await world.publish("blind", "a", messages=PICTURE)
        reply = (await world.replies(1))["a"]
    assert (reply.status, reply.served_by) == (200, "blind/0")


async def test_a_request_does_not_come_back_to_the_alias_that_sent_it_on_without_a_call() -> None:
    left = able("left", BLIND, fallbacks=("right",))
    right = able("right", SEEING, num_retries=0, fallbacks=("left",))
    world = World(left, right)
    world.provider.errors = [UpstreamError("down", status=503)]
    async with world.worker():
        await world.publish("left", "a", messages=PICTURE)
        reply = (await world.replies(1))["a"]
    assert (reply.status, called(world)) == (503, ["right/0"])


async def test_a_failed_call_is_rerouted_past_a_fallback_that_cannot_serve_it() -> None:
    world = World(
        able("first", SEEING, num_retries=0, fallbacks=("blind", "seeing")),
        able("blind", BLIND),
        able("seeing", SEEING),
    )
    world.provider.errors = [UpstreamError("down", status=503)]
    async with world.worker():
        await world.publish("first", "a", messages=PICTURE)
        reply = (await world.replies(1))["a"]
    assert (reply.served_by, called(world)) == ("seeing/0", ["first/0", "seeing/0"])


async def test_a_request_is_repeated_only_where_it_can_be_served() -> None:
    world = World(able("mixed", BLIND, SEEING, SEEING))
    world.provider.errors = [UpstreamError("down", status=503)] * 2
    async with world.worker():
        await world.publish("mixed", "a", messages=PICTURE)
        reply = (await world.replies(1))["a"]
    assert reply.status == 200
    assert "mixed/0" not in called(world)
    assert set(called(world)[:2]) == {"mixed/1", "mixed/2"}


async def test_the_providers_own_400_still_leads_to_the_fallback() -> None:
    world = World(able("short", Capabilities(), context_window_fallbacks=("long",)), able("long", LONG))
    world.provider.errors = [ContextLengthExceeded("too long")]
    async with world.worker():
        await world.publish("short", "a", messages=NOVEL)
        reply = (await world.replies(1))["a"]
    assert (reply.status, called(world)) == (200, ["short/0", "long/0"])


@pytest.mark.parametrize(
    ("asked", "status", "served_by"),
    [({"fallbacks": ["other"]}, 200, "other/0"), ({"disable_fallbacks": True}, 400, "")],
)
async def test_a_request_may_name_its_own_fallbacks_or_none(asked: dict[str, Any], status: int, served_by: str) -> None:
    world = World(able("blind", BLIND, fallbacks=("seeing",)), able("seeing", SEEING), able("other", SEEING))
    async with world.worker():
        await world.publish("blind", "a", messages=PICTURE, **asked)
        reply = (await world.replies(1))["a"]
    assert (reply.status, reply.served_by) == (status, served_by)


async def test_what_waits_for_the_one_deployment_that_can_serve_it_holds_up_nothing_else() -> None:
    world = World(able("mixed", BLIND, SEEING, limits={"max_parallel_requests": 1}))
    world.provider.hold = asyncio.Event()
    async with world.worker() as process:
        await world.publish("mixed", "p1", "p2", "p3", messages=PICTURE)
        await world.until(lambda: called(world) == ["mixed/1"])
        await world.publish("mixed", "t1", "t2")
        await world.until(lambda: len(world.provider.calls) == 2)
        text = [call.request_id for call in world.provider.calls if call.deployment.name == "mixed/0"]
        waiting = process.dispatcher.waiting()["mixed", Lane.INTERACTIVE]
        calls, _, _ = process.dispatcher.demand()["mixed"]
        world.provider.hold.set()
        replies = await world.replies(5)
    assert text == ["t1"]
    assert (waiting, calls) == (3, 3)
    assert {reply.served_by for key, reply in replies.items() if key.startswith("p")} == {"mixed/1"}


async def test_a_cancelled_work_that_stands_apart_is_let_go() -> None:
    world = World(able("mixed", BLIND, SEEING, limits={"max_parallel_requests": 1}))
    world.provider.hold = asyncio.Event()
    async with world.worker() as process:
        await world.publish("mixed", "p1", "p2", messages=PICTURE)
        await world.until(lambda: process.dispatcher.waiting().get(("mixed", Lane.INTERACTIVE)) == 1)
        process.inference.cancel("p2")
        left = process.dispatcher.waiting()["mixed", Lane.INTERACTIVE]
        world.provider.hold.set()
        replies = await world.replies(2)
    assert left == 0
    assert (replies["p1"].status, replies["p2"].status) == (200, 499)


async def test_a_reroute_without_a_call_is_signed_and_its_request_sent_again_runs_once() -> None:
    world = World(able("blind", BLIND, fallbacks=("seeing",)), able("seeing", SEEING))
    async with world.worker():
        await world.publish("blind", "a", messages=PICTURE)
        await world.replies(1)
        record = (await world.records("llm.requests.seeing", 1))[0]
        await world.publish("blind", "a", messages=PICTURE)
        replies = await world.records(world.names.replies, 2)
    headers = dict(record.headers)
    assert headers[h.VISITED] == b"blind"
    assert h.SIGNATURE in headers
    assert len({reply.value for reply in replies}) == 1
    assert called(world) == ["seeing/0"]


async def test_an_alias_that_serves_on_without_a_journal_checks_too() -> None:
    world = World(able("blind", BLIND, fallbacks=("seeing",), fail_open=True), able("seeing", SEEING, fail_open=True))
    async with world.worker():
        world.journal.down = True
        await world.publish("blind", "a", messages=PICTURE)
        reply = (await world.replies(1))["a"]
    assert (reply.status, called(world)) == (200, ["seeing/0"])


async def test_aliases_without_anything_known_are_served_with_checks_on() -> None:
    plain = make_alias("fast", enable_pre_call_checks=True)
    world = World(plain)
    async with world.worker():
        await world.publish("fast", "a", messages=PICTURE, tools=[{"type": "function", "function": {"name": "f"}}])
        reply = (await world.replies(1))["a"]
    assert reply.status == 200
