"""Each bad input of the wire contract, between good ones on one partition: those are answered, the bad one is told."""

import orjson
import pytest

from broker.envelope import headers
from broker.records import OutRecord
from tests.serving import Caller, alias, calling, make_topics, settings_of, working
from tests.upstream import Upstream

pytestmark = pytest.mark.embedded

GOOD = orjson.dumps({"model": "fast", "messages": [{"role": "user", "content": "Hello"}]})
NESTED = b'{"model":"fast","messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}"


def record(caller: Caller, request_id: str, value: bytes | None, **fields: object) -> OutRecord:
    """One request on partition 0 that wants its reply here."""
    pairs = [
        (headers.REQUEST_ID, request_id.encode()),
        (headers.REPLY_TO, caller.names.replies.encode()),
        (headers.REPLY_PARTITION, b"0"),
        *fields.get("more", ()),  # type: ignore[misc]
    ]
    key = fields.get("key")
    assert key is None or isinstance(key, bytes)
    return OutRecord(caller.names.requests("fast"), value, key, pairs, 0)


POISON = {
    "undecodable-header": {"value": GOOD, "more": [(headers.TRACEPARENT, b"\xff\xfe")]},
    "null-value": {"value": None},
    "key-not-utf8": {"value": GOOD, "key": b"\xff\xfe\xfd"},
    "nested-json": {"value": NESTED},
    "not-json": {"value": b"hello"},
    "not-an-object": {"value": b"[1, 2]"},
}

WRONG = {
    "no-messages": ({"value": b'{"model":"fast"}'}, "messages"),
    "empty-messages": ({"value": b'{"model":"fast","messages":[]}'}, "messages"),
    "bad-temperature": (
        {"value": orjson.dumps({"messages": [{"role": "user", "content": "x"}], "temperature": "hot"})},
        "temperature",
    ),
    "bad-priority": ({"value": GOOD, "more": [(headers.PRIORITY, b"ten")]}, "priority"),
    "bad-deadline": ({"value": GOOD, "more": [(headers.DEADLINE, b"tomorrow")]}, "deadline"),
    "bad-tags": ({"value": GOOD, "more": [(headers.TAGS, b"[1]")]}, "tags"),
    "unknown-endpoint": ({"value": GOOD, "more": [(headers.ENDPOINT, b"/v1/nothing")]}, "endpoint"),
}


@pytest.mark.parametrize("name", POISON)
async def test_poison_between_two_good_requests_is_replied_and_dead_lettered(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str, name: str
) -> None:
    fields = dict(POISON[name])
    value = fields.pop("value")
    async with Upstream() as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("fast", up.url))
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            bad = record(caller, "bad", value, **fields)  # type: ignore[arg-type]
            await caller.write(record(caller, "before", GOOD), bad, record(caller, "after", GOOD))
            before, reply, after = await caller.replies("before", "bad", "after")
            (letter,) = await caller.letters(1)
    assert (before.status, reply.status, after.status) == (200, 400, 200)
    assert reply.body()["error"]["code"] == "invalid_request"
    assert (letter.value, letter.key) == (bad.value, bad.key)
    assert dict(letter.headers)[headers.DEAD_ORIGIN].decode().startswith(bad.topic)


async def test_a_body_above_the_limit_is_replied_and_dead_lettered(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("fast", up.url))
        small = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"max_message_bytes": 1 << 20})})
        await make_topics(settings)
        async with calling(settings) as caller, working(small):
            value = orjson.dumps({"messages": [{"role": "user", "content": "x" * (3 << 20)}]})
            await caller.write(record(caller, "big", value), record(caller, "after", GOOD))
            reply, after = await caller.replies("big", "after")
    assert (reply.status, after.status) == (400, 200)
    assert "3145" in reply.body()["error"]["message"]


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_field_is_named_in_the_reply(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str, name: str
) -> None:
    fields, param = WRONG[name]
    fields = dict(fields)
    value = fields.pop("value")
    async with Upstream() as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("fast", up.url))
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            await caller.write(record(caller, "bad", value, **fields), record(caller, "after", GOOD))  # type: ignore[arg-type]
            reply, after = await caller.replies("bad", "after")
    assert (reply.status, after.status) == (400, 200)
    assert reply.body()["error"]["param"] == param


async def test_a_reply_topic_outside_ours_is_refused_and_answered_by_id(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("fast", up.url))
        await make_topics(settings)
        async with calling(settings) as caller, working(settings) as process:
            request_id = await caller.publish("fast", reply_to="somebody.elses.topic")
            (event,) = await caller.events(request_id, 1)
            stored = await process.parts.journal.outcome(request_id)
    assert event.status == 400
    assert stored is not None
    assert b"reply-to must start with" in stored.body
