"""Calls that end before anything goes out: files that are fetched, tokens that are waited for, credentials that fail.

Over the real provider client and the scripted upstream; log, journal and limits are twins.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import orjson
import pytest

from broker.clock import Clock
from broker.config import Alias, Deployment, Media
from broker.envelope import NewRequest, encode_cancel, encode_request
from schemas.usage import Outcome
from tests.unit.workers.world import World
from tests.upstream import Hang, Raw, Status, Upstream
from workers.providers.base import Outbound
from workers.providers.catalog import ResolvedDeployment
from workers.providers.client import HttpProviderClient
from workers.providers.credential import Credential
from workers.providers.media import MediaFetcher
from workers.providers.registry import CREDENTIALS
from workers.providers.transport import Transport, make_transport

TOKEN_FORM = ""
"""The model that a form names, as the scripted upstream knows requests."""
COMPLETION = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi!"}, "finish_reason": "stop"}]}
FREE = Decimal(0)
PICTURE = [{"type": "image_url", "image_url": {"url": "http://pictures.example/x.png"}}]


def azure(up: Upstream, name: str = "fast/0") -> Deployment:
    where = up.url.removesuffix("/v1")
    application = {"tenant_id": "t", "client_id": "app", "client_secret": "very-secret", "authority": where}
    fields: dict[str, Any] = {"model": "chat", "api_base": where, "azure": application}
    return Deployment(name=name, alias="fast", provider="azure", **fields)


@asynccontextmanager
async def serving(*more: Deployment) -> AsyncIterator[tuple[World, Upstream]]:
    """A worker whose alias `fast` is a deployment of Azure that needs a token, and `more`."""
    async with Upstream(default=Raw(json.dumps(COMPLETION))) as up:
        alias = Alias(name="fast", deployments=(azure(up), *more), num_retries=0)
        world = World(alias)
        world.provider = HttpProviderClient(make_transport(256))  # type: ignore[assignment] # the same port
        async with world.worker(in_flight=200) as process:
            yield world, up
            await world.until(lambda: process.dispatcher.running == 0)


async def ask(world: World, *ids: str, seconds: float = 60.0, content: Any = "Hello") -> None:
    body = orjson.dumps({"model": "fast", "messages": [{"role": "user", "content": content}]})
    fields: dict[str, Any] = {"deadline": world.clock.now_ms() + round(seconds * 1000), "reply_partition": 0}
    fields = {"alias": "fast", "body": body, "reply_to": world.names.replies, **fields}
    await world.write(*(encode_request(NewRequest(request_id=each, **fields), world.names) for each in ids))


async def test_a_token_service_that_hangs_keeps_no_request_past_its_deadline() -> None:
    ids = [f"r{number}" for number in range(100)]
    async with serving() as (world, up):
        up.script(TOKEN_FORM, [Hang()])
        await ask(world, *ids, seconds=0.8)
        async with asyncio.timeout(5):
            replies = await world.replies(len(ids))
        rows = await world.rows(len(ids))
        assert {reply.status for reply in replies.values()} == {504}
        assert {(row.outcome, row.billable, row.cost) for row in rows} == {(Outcome.EXPIRED, True, FREE)}
        assert (len(rows), len(up.calls)) == (100, 1)


async def test_a_request_that_is_cancelled_while_a_token_is_waited_for_ends_at_once_and_costs_nothing() -> None:
    async with serving() as (world, up):
        up.script(TOKEN_FORM, [Hang()])
        await ask(world, "a")
        await world.until(lambda: len(up.calls) == 1)
        await world.write(encode_cancel("a", world.names, world.clock.now_ms()))
        replies = await world.replies(1)
        (row,) = await world.rows(1)
        assert (replies["a"].status, row.outcome, row.billable, row.cost) == (499, Outcome.CANCELLED, True, FREE)


class Breaking:
    """A credential that fails in a way nobody thought of."""

    async def headers(self, out: Outbound) -> tuple[tuple[str, str], ...]:
        del out
        raise KeyError("a-secret")

    def refused(self) -> None: ...


@pytest.mark.parametrize("when", ["made", "asked"])
async def test_a_credential_that_fails_in_any_way_ends_the_call_and_names_its_deployment(
    monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def make(target: ResolvedDeployment, transport: Transport, clock: Clock) -> Credential:
        del target, transport, clock
        if when == "made":
            raise ImportError("No module named 'signer'")
        return Breaking()

    monkeypatch.setitem(dict_of(CREDENTIALS), "azure", make)
    async with serving() as (world, _):
        await ask(world, "a")
        reply = (await world.replies(1))["a"]
        (row,) = await world.rows(1)
        message = orjson.loads(reply.value)["error"]["message"]
        assert (reply.status, row.cost, "deployment fast/0" in message) == (502, FREE, True)
        assert ("signer" in message, "a-secret" in message) == (when == "made", False)


def dict_of(found: object) -> dict[str, Any]:
    assert isinstance(found, dict)
    return found


async def test_a_refusal_before_the_call_is_no_proof_that_a_deployment_is_well() -> None:
    async with Upstream() as up:
        server = Deployment(name="fast/0", alias="fast", provider="hosted_vllm", model="m", api_base=up.url)
        alias = Alias(name="fast", deployments=(server,), num_retries=0, allowed_fails=0, cooldown_time=0.05)
        world = World(alias, media=Media(fetch_for=("hosted_vllm",)))
        fetcher = MediaFetcher(world.settings.media)
        world.provider = HttpProviderClient(make_transport(4), media=fetcher)  # type: ignore[assignment] # the same port
        async with world.worker() as process:
            ((member,),) = process.router.members().values()
            up.script("m", [Status(500)])
            await ask(world, "a")
            await world.replies(1)
            assert not member.health.healthy
            await ask(world, "b", content=PICTURE)
            reply = (await world.replies(2))["b"]
            assert (reply.status, len(up.calls), member.health.healthy) == (400, 1, False)
            await ask(world, "c")
            await world.replies(3)
            assert (len(up.calls), member.health.healthy) == (2, True)
