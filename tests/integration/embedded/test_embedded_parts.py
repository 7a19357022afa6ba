"""Each embedded part: it serves, keeps its data, ends with its parent, and fails in one line."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import TopicPartition
from clickhouse_connect import get_client
from redis.asyncio import Redis

from broker.embedded import part as part_module
from broker.embedded.clickhouse_part import ClickHousePart
from broker.embedded.kafka_part import KafkaPart
from broker.embedded.model_part import MODEL_NAME
from broker.embedded.part import Part, PartError
from broker.embedded.probe import free_port, port_is_free
from broker.embedded.redis_part import RedisPart

pytestmark = pytest.mark.embedded

PARTS = [KafkaPart, RedisPart, ClickHousePart]


async def test_the_log_keeps_its_records_across_a_stop(tmp_path: Path) -> None:
    partition = TopicPartition("kept", 0)
    async with KafkaPart() as part:
        address = await part.start(tmp_path, free_port())
        admin = AIOKafkaAdminClient(bootstrap_servers=address)
        await admin.start()
        await admin.create_topics([NewTopic("kept", 1, 1)])
        await admin.close()
        async with AIOKafkaProducer(bootstrap_servers=address, acks="all") as producer:
            await producer.send_and_wait("kept", b"value", headers=[("a", b"b")])

    async with KafkaPart() as part:
        address = await part.start(tmp_path, free_port())
        from aiokafka import AIOKafkaConsumer  # noqa: PLC0415 - beside its only use

        async with AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest") as consumer:
            consumer.assign([partition])
            record = await consumer.getone(partition)

    assert (record.value, record.headers) == (b"value", (("a", b"b"),))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_redis_keeps_its_keys_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    part = RedisPart()
    async with Redis.from_url(await part.start(tmp_path, free_port())) as redis:
        await redis.set("key", "value")
    os.kill(part.pid, number)
    await part.ended()

    async with RedisPart() as again, Redis.from_url(await again.start(tmp_path, free_port())) as redis:
        assert await redis.get("key") == b"value"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_clickhouse_keeps_its_rows_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    part = ClickHousePart()
    with get_client(dsn=await part.start(tmp_path, free_port())) as client:
        client.command("CREATE TABLE kept (id UInt64) ENGINE = MergeTree ORDER BY id")
        client.insert("kept", [[7]])
    os.kill(part.pid, number)
    await part.ended()

    async with ClickHousePart() as again:
        with get_client(dsn=await again.start(tmp_path, free_port())) as client:
            assert client.query("SELECT id FROM kept").result_rows == [(7,)]


@pytest.mark.parametrize("kind", PARTS)
async def test_a_port_in_use_is_one_clear_line(tmp_path: Path, kind: type[Part]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(PartError) as caught:
            await kind().start(tmp_path, port)

    assert str(caught.value) == (
        f"{kind.name}: port {port} on 127.0.0.1 is in use; "
        "stop what listens there, or choose other ports with --port-base"
    )


@pytest.mark.parametrize("kind", PARTS)
async def test_a_missing_package_is_named(tmp_path: Path, kind: type[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_module, "find_spec", lambda name: None)  # noqa: ARG005 - find_spec's own shape

    with pytest.raises(PartError, match=r"^\w+: the package [\w-]+ is not installed; run `make install`"):
        await kind().start(tmp_path, free_port())


async def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_module, "LEAST_FREE_BYTES", 1 << 60)

    with pytest.raises(PartError, match=r"^redis: only \d+ MB are free on the disk of "):
        await RedisPart().start(tmp_path, free_port())


async def test_a_part_that_ends_at_once_tells_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "redis" / "appendonlydir").mkdir(parents=True)
    (tmp_path / "redis" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")

    with pytest.raises(PartError, match=r"^redis: ended with code 1: .*AOF manifest.* \(log: .*redis\.log\)$"):
        await RedisPart().start(tmp_path, free_port())


async def test_a_stop_before_a_start_and_a_second_stop_are_harmless(tmp_path: Path) -> None:
    part = RedisPart()
    await part.stop()
    await part.start(tmp_path, free_port())

    await part.stop()
    await part.stop()

    assert not part.alive
    assert port_is_free(part.port)


PARENT = """
import asyncio, os, pathlib, sys
from broker.embedded.redis_part import RedisPart

async def main():
    part = RedisPart()
    await part.start(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
    print(part.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the tie to the parent is Linux's")
async def test_a_part_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    port = free_port()
    with subprocess.Popen(  # noqa: ASYNC220 - the test reads one line of it
        [sys.executable, "-c", PARENT, str(tmp_path), str(port)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        await asyncio.to_thread(parent.stdout.readline)
        assert not port_is_free(port)

        parent.kill()

        async with asyncio.timeout(20):
            while not port_is_free(port):  # noqa: ASYNC110 - the end of another process's child is no event of ours
                await asyncio.sleep(0.02)


@pytest.mark.model
async def test_the_local_model_answers_like_openai(model_url: str) -> None:
    body = {"model": "x", "messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 8}

    async with httpx.AsyncClient(timeout=60) as client:
        answer = (await client.post(f"{model_url}/chat/completions", json=body)).json()

    assert answer["model"] == MODEL_NAME
    assert answer["choices"][0]["message"]["content"].strip()
    assert 0 < answer["usage"]["completion_tokens"] <= 8
