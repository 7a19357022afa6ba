"""The virtual key on what the broker writes: never in clear, and yet the request goes on as the same caller's."""

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from broker.cli.doctor_checks import State, check_config
from broker.config import Settings, VirtualKey
from broker.envelope import headers as h
from broker.envelope.dead import read_dead
from broker.errors import ConfigError, UpstreamError
from broker.records import OutRecord, Record
from tests.unit.workers.world import World, make_alias

TOKEN = "vk-marked-virtual-key"
ASKED = orjson.dumps({"messages": [{"role": "user", "content": "Hello"}]})


def keyed(*, anonymous: str | None = None) -> World:
    """Two aliases of which the first falls back to the second, and one key; without it a request is 401."""
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    key = VirtualKey(hash=digest, key_id="k1", tenant="acme", team="red", rpm_limit=100)
    first = make_alias("first", num_retries=0, fallbacks=("second",))
    busy = make_alias("busy", num_retries=0)
    return World(first, busy, make_alias("second"), keys={digest: key}, anonymous_tenant=anonymous)


def asked(world: World, alias: str, *more: tuple[str, bytes], request_id: str = "a", body: bytes = ASKED) -> OutRecord:
    pairs = [(h.REQUEST_ID, request_id.encode()), (h.REPLY_TO, world.names.replies.encode()), (h.REPLY_PARTITION, b"0")]
    return OutRecord(world.names.requests(alias), body, None, [*pairs, *more], 0)


def bearer(name: str = h.AUTHORIZATION) -> tuple[str, bytes]:
    return name, f"Bearer {TOKEN}".encode()


def shows_key(record: Record) -> bool:
    return TOKEN in repr(record.headers) or TOKEN.encode() in (record.value or b"")


def event(record: Record) -> dict[str, Any]:
    decoded: dict[str, Any] = orjson.loads(record.value or b"")
    return decoded


async def test_a_rerouted_request_goes_on_as_its_callers_and_without_the_key() -> None:
    world = keyed()
    async with world.worker():
        world.provider.errors = [UpstreamError("down", status=500)]
        await world.write(asked(world, "first", bearer(), bearer("Authorization")))
        replies = await world.replies(1)
        (again,) = await world.records(world.names.requests("second"), 1)
        events = [event(record) for record in await world.records(world.names.usage, 2)]
    assert (replies["a"].status, replies["a"].served_by) == (200, "second/0")
    assert not shows_key(again)
    assert [(each["tenant"], each["key_id"]) for each in events] == [("acme", "k1")] * 2


async def test_a_parked_request_carries_no_key() -> None:
    world = keyed()
    async with world.worker():
        world.provider.errors = [UpstreamError("slow down", status=429, retry_after=300)]
        await world.write(asked(world, "busy", bearer()))
        (parked,) = await world.records(world.names.delay("2m"), 1)
    assert not shows_key(parked)
    assert h.CALLER in dict(parked.headers)


async def test_a_dead_letter_carries_no_key_and_its_replay_is_its_callers() -> None:
    world = keyed()
    async with world.worker():
        world.provider.errors = [ZeroDivisionError("a defect")]
        await world.write(asked(world, "second", bearer()))
        (record,) = await world.records(world.names.dead, 1)
        letter = read_dead(record)
        assert letter is not None
        again = letter.replayed(letter.origin_topic)
        await world.write(OutRecord(again.topic, again.value, again.key, again.headers, 0))
        await world.replies(2)
        events = [event(record) for record in await world.records(world.names.usage, 2)]
    assert not shows_key(record)
    assert [(each["outcome"], each["tenant"]) for each in events] == [("failed", "acme"), ("answered", "acme")]


async def test_a_letter_of_an_unknown_key_is_not_replayed_as_anonymous() -> None:
    world = keyed(anonymous="anyone")
    async with world.worker():
        await world.write(asked(world, "second", (h.AUTHORIZATION, b"Bearer \xff\xfe")))
        (record,) = await world.records(world.names.dead, 1)
        letter = read_dead(record)
        assert letter is not None
        again = letter.replayed(letter.origin_topic)
        await world.write(OutRecord(again.topic, again.value, again.key, again.headers, 0))
        replies = [dict(each.headers)[h.STATUS] for each in await world.records(world.names.replies, 2)]
    assert replies == [b"400", b"401"]


SEAL = h.seal_caller(b"test-key", "a", ASKED, h.fingerprint(f"Bearer {TOKEN}")).encode()
OTHER = orjson.dumps({"messages": [{"role": "user", "content": "Something of my own"}]})


@pytest.mark.parametrize(
    ("request_id", "body", "header", "status"),
    [
        ("a", ASKED, SEAL, 200),
        ("b", ASKED, SEAL, 401),
        ("a", OTHER, SEAL, 401),
        ("a", ASKED, h.fingerprint(f"Bearer {TOKEN}").encode(), 401),
        ("a", ASKED, b"\xff:\xfe", 401),
    ],
    ids=["as written", "another request", "another body", "unsigned", "not text"],
)
async def test_a_caller_header_is_believed_only_on_the_request_it_was_written_for(
    request_id: str, body: bytes, header: bytes, status: int
) -> None:
    world = keyed()
    async with world.worker():
        await world.write(asked(world, "second", (h.CALLER, header), request_id=request_id, body=body))
        replies = await world.replies(1)
    assert replies[request_id].status == status


async def test_a_key_of_the_record_outranks_the_caller_header() -> None:
    world = keyed()
    async with world.worker():
        await world.write(asked(world, "second", (h.CALLER, SEAL), (h.AUTHORIZATION, b"Bearer vk-unknown")))
        replies = await world.replies(1)
    assert replies["a"].status == 401


async def test_a_forged_caller_header_is_not_sent_on() -> None:
    world = keyed(anonymous="anyone")
    async with world.worker():
        world.provider.errors = [UpstreamError("down", status=500)]
        await world.write(asked(world, "first", (h.CALLER, b"forged:forged")))
        await world.replies(1)
        (again,) = await world.records(world.names.requests("second"), 1)
    assert h.CALLER not in dict(again.headers)


def without_signing_key(settings: Settings) -> Settings:
    return settings.model_copy(update={"signing_key": None})


async def test_keys_need_a_signing_key_that_every_worker_has() -> None:
    world = keyed()
    world.settings = without_signing_key(world.settings)
    with pytest.raises(ConfigError, match="signing_key"):
        async with world.worker():
            pass
    problems: Sequence[str] = [f.found for f in check_config(world.settings, 0) if f.state is State.FAILED]
    assert problems == ["none is set; with keys no worker starts without"]
