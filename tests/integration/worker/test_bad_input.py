"""Each bad input of the wire contract, between good ones on one partition: those are answered, the bad one is told."""

from typing import NamedTuple

import orjson
import pytest

from broker.envelope import headers
from broker.records import OutRecord
from tests.serving import Caller, alias, calling, make_topics, settings_of, working
from tests.upstream import Upstream

pytestmark = pytest.mark.embedded

GOOD = orjson.dumps({"model": "fast", "messages": [{"role": "user", "content": "Hello"}]})
NESTED = b'{"model":"fast","messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}"


class Bad(NamedTuple):
    """What is wrong with a record: its value, a header, or its key."""

    value: bytes | None = GOOD
    header: tuple[str, bytes] | None = None
    key: bytes | None = None


def record(caller: Caller, request_id: str, bad: Bad) -> OutRecord:
    """One request on partition 0 that wants its reply here."""
    pairs = [
        (headers.REQUEST_ID, request_id.encode()),
        (headers.REPLY_TO, caller.names.replies.encode()),
        (headers.REPLY_PARTITION, b"0"),
    ]
    pairs += [bad.header] if bad.header is not None else []
    return OutRecord(caller.names.requests("fast"), bad.value, bad.key, pairs, 0)


POISON = {
    "undecodable-header": Bad(header=(headers.TRACEPARENT, b"\xff\xfe")),
    "null-value": Bad(value=None),
    "key-not-utf8": Bad(key=b"\xff\xfe\xfd"),
    "nested-json": Bad(NESTED),
    "not-json": Bad(b"hello"),
    "not-an-object": Bad(b"[1, 2]"),
}

HOT = orjson.dumps({"messages": [{"role": "user", "content": "x"}], "temperature": "hot"})
WRONG = {
    "no-messages": (Bad(b'{"model":"fast"}'), "messages"),
    "empty-messages": (Bad(b'{"model":"fast","messages":[]}'), "messages"),
    "bad-temperature": (Bad(HOT), "temperature"),
    "bad-priority": (Bad(header=(headers.PRIORITY, b"ten")), "priority"),
    "bad-deadline": (Bad(header=(headers.DEADLINE, b"tomorrow")), "deadline"),
    "bad-tags": (Bad(header=(headers.TAGS, b"[1]")), "tags"),
    "long-tags": (Bad(header=(headers.TAGS, b'{"a":"' + b"x" * 20_000 + b'"}')), "tags"),
    "long-metadata": (Bad(header=(headers.METADATA, b"x" * 70_000)), "metadata"),
    "unknown-endpoint": (Bad(header=(headers.ENDPOINT, b"/v1/nothing")), "endpoint"),
}


@pytest.mark.parametrize("name", POISON)
async def test_poison_between_two_good_requests_is_replied_and_dead_lettered(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str, name: str
) -> None:
    async with Upstream() as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("fast", up.url))
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            bad = record(caller, "bad", POISON[name])
            await caller.write(record(caller, "before", Bad()), bad, record(caller, "after", Bad()))
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
            await caller.write(record(caller, "big", Bad(value)), record(caller, "after", Bad()))
            reply, after = await caller.replies("big", "after")
    assert (reply.status, after.status) == (400, 200)
    assert "3145" in reply.body()["error"]["message"]


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_field_is_named_in_the_reply(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str, name: str
) -> None:
    bad, param = WRONG[name]
    async with Upstream() as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("fast", up.url))
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            await caller.write(record(caller, "bad", bad), record(caller, "after", Bad()))
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
