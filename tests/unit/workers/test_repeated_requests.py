"""The same request again: by id, by idempotency key, by a stranger. One call, one answer, told to nobody else."""

import hashlib
from decimal import Decimal

import orjson

from broker.config import VirtualKey
from broker.envelope import NewRequest, encode_request, read_reply
from broker.envelope import headers as h
from broker.records import OutRecord, Partition
from schemas.usage import Outcome
from tests.unit.workers.world import BODY, World, make_alias

FAST = Partition("llm.requests.fast", 0)
CHAT = orjson.dumps({"model": "fast", "messages": [{"role": "user", "content": "Hello"}]})


async def test_a_client_that_restarts_and_sends_the_same_id_again_gets_the_stored_answer(world: World) -> None:
    async with world.worker():
        await world.publish("fast", "a")
        await world.replies(1)
        await world.publish("fast", "a")
        records = await world.records(world.names.replies, 2)
        found = await world.rows(1)
    assert world.calls() == {"a": 1}
    assert [dict(record.headers).get(h.REPLAY_OF) for record in records] == [None, b"a"]
    assert {record.value for record in records} == {BODY}
    assert len(found) == 1


async def test_two_requests_with_one_idempotency_key_get_one_call_and_one_answer(world: World) -> None:
    def request(request_id: str) -> OutRecord:
        return encode_request(
            NewRequest(
                alias="fast",
                body=CHAT,
                request_id=request_id,
                reply_to=world.names.replies,
                reply_partition=0,
                idempotency_key="order-17",
            ),
            world.names,
        )

    async with world.worker():
        await world.write(request("a"))
        await world.replies(1)
        await world.write(request("b"))
        replies = [read_reply(record) for record in await world.records(world.names.replies, 2)]
        found = await world.rows(2)
    assert sum(world.calls().values()) == 1
    assert [reply.request_id for reply in replies if reply is not None] == ["a", "b"]
    assert [(row.request_id, row.outcome, row.billable, row.cost) for row in found][1] == (
        "b",
        Outcome.CACHED,
        True,
        Decimal(0),
    )


def key_of(tenant: str) -> VirtualKey:
    digest = hashlib.sha256(f"sk-{tenant}".encode()).hexdigest()
    return VirtualKey(hash=digest, key_id=tenant, tenant=tenant)


async def test_another_tenant_with_the_same_request_id_reads_nothing_and_replaces_nothing() -> None:
    keys = {key.hash: key for key in (key_of("mine"), key_of("other"))}
    world = World(make_alias("fast"), keys=keys)

    def request(tenant: str) -> OutRecord:
        return encode_request(
            NewRequest(
                alias="fast",
                body=CHAT,
                request_id="a",
                reply_to=world.names.replies,
                reply_partition=0,
                key=f"sk-{tenant}",
            ),
            world.names,
        )

    async with world.worker():
        await world.write(request("mine"))
        await world.replies(1)
        await world.write(request("other"))
        records = await world.records(world.names.replies, 2)
        found = await world.rows(2)
        stored = await world.journal.outcome("a")
    assert [dict(record.headers)[h.STATUS] for record in records] == [b"200", b"409"]
    assert stored is not None
    assert stored.status == 200
    assert {(row.tenant, row.usage_id == "a:1") for row in found} == {("mine", True), ("other", False)}


async def test_a_request_without_a_good_key_reads_nothing_and_replaces_nothing() -> None:
    world = World(make_alias("fast"), keys={key_of("mine").hash: key_of("mine")}, anonymous_tenant=None)

    def request(key: str) -> OutRecord:
        return encode_request(
            NewRequest(
                alias="fast", body=CHAT, request_id="a", reply_to=world.names.replies, reply_partition=0, key=key
            ),
            world.names,
        )

    async with world.worker():
        await world.write(request("sk-mine"))
        await world.replies(1)
        await world.write(request("sk-guessed"))
        records = await world.records(world.names.replies, 2)
        found = await world.rows(2)
        stored = await world.journal.outcome("a")
    assert [dict(record.headers)[h.STATUS] for record in records] == [b"200", b"401"]
    assert stored is not None
    assert stored.status == 200
    assert {(row.tenant, row.usage_id == "a:1") for row in found} == {("mine", True), ("", False)}
