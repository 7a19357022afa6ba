"""No secret in a log line, a reply, a row, a dead letter, a metric or a repr: a worker with marked ones is searched."""

import hashlib
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Final

import pytest
from prometheus_client import generate_latest
from pydantic import SecretStr

from broker.adapters.clickhouse import ClickHouseLedger
from broker.adapters.kafka import KafkaProducer
from broker.adapters.memory_log import MemoryLog
from broker.adapters.redis_journal import RedisJournal
from broker.config import ClickHouse, Settings, VirtualKey
from broker.config.views import masked
from broker.envelope import open_record
from broker.keys import KeyRing
from broker.logs import QUIET, setup
from broker.records import OutRecord
from broker.topics import Lane, TopicNames
from tests.serving import Caller, alias, calling, make_topics, settings_of, working
from tests.upstream import Drop, Hang, Html, Status, Step, Upstream

pytestmark = pytest.mark.embedded

API_KEY: Final = "sk-marked-api-key"
HEADER: Final = "marked-header-of-a-deployment"
VIRTUAL: Final = "vk-marked-virtual-key"
UNKNOWN: Final = "vk-marked-unknown-key"
SIGNING: Final = "marked-signing-key"
REDIS: Final = "marked-redis-password"
SASL: Final = "marked-sasl-password"
CLICKHOUSE: Final = "marked-clickhouse-password"
MARKS: Final = (API_KEY, HEADER, VIRTUAL, UNKNOWN, SIGNING, REDIS, SASL, CLICKHOUSE)

LEAKY = Status(401, body={"error": {"message": f"Incorrect API key provided: {API_KEY}", "code": "invalid_api_key"}})
"""An upstream that repeats the credential it was given."""


@pytest.fixture
def logged() -> Iterator[StringIO]:
    """What a worker with `--log-level debug` logs."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in QUIET}
    stream = StringIO()
    setup("debug", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def configured(bootstrap: str, redis_url: str, prefix: str, url: str) -> Settings:
    digest = hashlib.sha256(VIRTUAL.encode()).hexdigest()
    secret = {"api_key": SecretStr(API_KEY), "headers": {"x-team": SecretStr(HEADER)}}
    aliases = [
        alias("first", url, limits=secret, num_retries=0, fallbacks=("second",), timeout=1.0),
        alias("second", url, limits=secret, num_retries=0),
        alias("busy", url, limits=secret, num_retries=0),
    ]
    settings = settings_of(
        bootstrap, redis_url, prefix, *aliases,
        keys={digest: VirtualKey(hash=digest, key_id="k1", tenant="acme")}, anonymous_tenant=None,
    )  # fmt: skip
    kafka = settings.kafka.model_copy(update={"sasl_username": "u", "sasl_password": SecretStr(SASL)})
    return settings.model_copy(update={"kafka": kafka, "signing_key": SecretStr(SIGNING)})


def found_in(*places: object) -> list[str]:
    text = "\n".join(place if isinstance(place, str) else repr(place) for place in places)
    return [mark for mark in MARKS if mark in text]


async def ask_for_everything(caller: Caller, up: Upstream) -> None:
    """Good and failing calls, a reroute, a park, refusals, poison."""
    steps: dict[str, list[Step]] = {
        "good": [], "leaky": [LEAKY, LEAKY], "rerouted": [Status(500)], "hang": [Hang()], "drop": [Drop(), Drop()],
        "html": [Html(), Html()],
    }  # fmt: skip
    for name, script in steps.items():
        up.script_request(name, script)
        await caller.publish("first", request_id=name, key=VIRTUAL)
    await caller.publish("first", b"poison", request_id="poison", key=VIRTUAL)
    await caller.publish("first", request_id="unknown", key=UNKNOWN)
    await caller.replies(*steps, "poison", "unknown")
    await caller.letters(1)
    up.script_request("parked", [Status(429, 300)])
    await caller.publish("busy", request_id="parked", key=VIRTUAL)
    await caller.until(caller.names.delay("2m"), 1)


async def test_a_worker_with_marked_secrets_shows_none_of_them(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str, logged: StringIO
) -> None:
    names = TopicNames(unique_prefix)
    more = (names.requests("second"), names.delay("2m"))
    async with Upstream() as up:
        settings = configured(kafka_bootstrap, redis_url, unique_prefix, up.url)
        await make_topics(settings)
        async with calling(settings, *more) as caller, working(settings) as process:
            await ask_for_everything(caller, up)
            stored = [await process.parts.journal.outcome(name) for name in ("good", "leaky", "poison", "unknown")]
            metrics = generate_latest(process.metrics.registry).decode()
            parts = [vars(process.parts), vars(process), vars(process.inference)]
    records = [(record.topic, record.key, record.value, record.headers) for record in caller.seen]
    assert {topic for topic, *_ in records} == {
        caller.names.replies, caller.names.usage, caller.names.dead,
        caller.names.delay("2m"), caller.names.requests("second"),
    }  # fmt: skip
    assert "DEBUG" in logged.getvalue()
    assert found_in(logged.getvalue()) == []
    assert found_in(metrics) == []
    assert found_in(*records, *stored) == []
    assert found_in(*parts) == []


def test_no_repr_and_no_view_of_the_settings_shows_a_secret() -> None:
    url, dsn = f"redis://u:{REDIS}@localhost:6379/0", f"clickhouse://u:{CLICKHOUSE}@localhost:8123/broker"
    settings = configured("localhost:9092", url, "llm.", "http://localhost/v1")
    settings = settings.model_copy(update={"clickhouse": ClickHouse(dsn=SecretStr(dsn))})
    names = TopicNames(settings.kafka.topic_prefix)
    parts = [KafkaProducer(settings.kafka), RedisJournal(settings.redis, names), ClickHouseLedger(settings.clickhouse)]
    assert found_in(settings, str(settings), settings.model_dump(), masked(settings)) == []
    assert found_in(*parts, KeyRing(settings)) == []


def test_a_job_does_not_show_the_key_it_was_sent_with() -> None:
    pairs = [("request-id", b"a"), ("authorization", f"Bearer {VIRTUAL}".encode())]
    written = OutRecord("llm.requests.first", b"{}", None, pairs)
    record = MemoryLog({written.topic: 1}).append(written, 0)
    job = open_record(
        record, alias="first", lane=Lane.INTERACTIVE, replies_topic="llm.replies", secret=b"s", max_body_bytes=100
    )
    assert found_in(job, written) == []
