"""`broker dead` on a real log."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import pytest

from broker.adapters.kafka import KafkaProducer, KafkaReader
from broker.adapters.kafka_admin import KafkaAdmin
from broker.config import Kafka
from broker.envelope import headers as h
from broker.records import OutRecord
from broker.topics import TopicNames, topic_specs
from tests.processes import run, write_config

pytestmark = pytest.mark.embedded

Dead = Callable[..., Awaitable[str]]


def letter(names: TopicNames, request_id: str, topic: str, at: int) -> OutRecord:
    return OutRecord(
        names.dead, b'{"messages": "none"}', request_id.encode(),
        [
            (h.REQUEST_ID, request_id.encode()), (h.AUTHORIZATION, b"Bearer sk-secret"),
            (h.DEAD_REASON, b"messages: a list is needed"), (h.DEAD_CODE, b"invalid_request"),
            (h.DEAD_ORIGIN, f"{topic}-0-{at}".encode()), (h.DEAD_AT, b"%d" % (1_700_000_000_000 + at)),
        ],
    )  # fmt: skip


async def test_letters_are_listed_shown_and_replayed(kafka_bootstrap: str, unique_prefix: str, tmp_path: Path) -> None:
    kafka, names = Kafka(bootstrap_servers=kafka_bootstrap, topic_prefix=unique_prefix), TopicNames(unique_prefix)
    config = write_config(
        tmp_path, bootstrap=kafka_bootstrap, redis_url="redis://127.0.0.1:1", prefix=unique_prefix,
        models={"chat": "http://127.0.0.1:1/v1", "other": "http://127.0.0.1:1/v1"},
    )  # fmt: skip
    admin, producer = KafkaAdmin(kafka), KafkaProducer(kafka)
    await admin.start()
    for spec in topic_specs(names, ["chat", "other"]):
        await admin.create(spec, replication_factor=1)
    await admin.stop()
    await producer.start()
    made = [letter(names, f"r{number}", names.requests("chat"), number) for number in range(5)]
    made.append(letter(names, "x", names.requests("other"), 5))
    assert set(await producer.send_all(made)) == {None}
    await producer.stop()

    async def dead(*arguments: str, expect: int = 0) -> str:
        return await run("dead", *arguments, "--config", str(config), expect=expect)

    listed = orjson.loads(await dead("list", "--alias", "chat", "--limit", "2", "--json"))
    assert (listed["matched"], [row["request_id"] for row in listed["letters"]]) == (5, ["r4", "r3"])
    table = await dead("list")
    assert "6 of 6 dead letters" in table
    assert "sk-secret" not in table

    shown = await dead("show", "r1")
    assert "messages: a list is needed" in shown
    assert '{"messages": "none"}' in shown
    assert "sk-secret" not in shown
    await dead("show", "nobody", expect=1)

    await dead("replay", expect=2)
    plan = orjson.loads(await dead("replay", "--alias", "chat", "--dry-run", "--json"))
    assert (plan["requests"], plan["by_alias"]) == (5, {"chat": 5})
    done = orjson.loads(await dead("replay", "--alias", "chat", "--yes", "--json"))
    assert (done["sent"], done["failed"]) == ({names.requests("chat"): 5}, [])
    assert await replayed(kafka, names.requests("chat"), 5) == [f"r{number}" for number in range(5)]
    assert await replayed(kafka, names.requests("other"), 0) == []


async def replayed(kafka: Kafka, topic: str, count: int) -> list[str]:
    """Ids of the records of a topic, after `count` were read; there are no more."""
    reader = KafkaReader(kafka)
    await reader.start()
    try:
        bounds = await reader.bounds(topic)
        assert sum(end - first for first, end in bounds.values()) == count
        await reader.assign({partition: first for partition, (first, _) in bounds.items()})
        ids: list[str] = []
        while len(ids) < count:
            for record in await reader.poll(max_records=100, timeout=1):
                headers = dict(record.headers)
                assert h.DEAD_CODE not in headers
                ids.append(headers[h.REQUEST_ID].decode())
        return sorted(ids)
    finally:
        await reader.stop()
