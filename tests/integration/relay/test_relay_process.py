"""`broker relay` as a process of its own on a real log."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from broker.adapters.kafka import KafkaProducer, KafkaReader
from broker.adapters.kafka_admin import KafkaAdmin
from broker.config import Kafka
from broker.embedded.probe import free_port
from broker.envelope import headers as h
from broker.records import OutRecord, Record
from broker.topics import TopicNames, topic_specs
from tests.processes import PATIENCE, running, write_config

pytestmark = pytest.mark.embedded

COUNT = 200
WAIT_MS = 3_000


async def ready(port: int) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE
    async with httpx.AsyncClient() as http:
        while asyncio.get_running_loop().time() < deadline:
            try:
                answer = await http.get(f"http://127.0.0.1:{port}/ready")
            except httpx.TransportError:
                await asyncio.sleep(0.05)  # the process has no other way to say that it listens
            else:
                assert answer.status_code == 200
                return
    raise AssertionError("the relay never listened")


async def test_parked_requests_come_back_within_a_second_of_their_time_and_once_through_a_restart(
    kafka_bootstrap: str, unique_prefix: str, tmp_path: Path
) -> None:
    kafka = Kafka(bootstrap_servers=kafka_bootstrap, topic_prefix=unique_prefix)
    names = TopicNames(unique_prefix)
    config = write_config(
        tmp_path, bootstrap=kafka_bootstrap, redis_url="redis://127.0.0.1:1", prefix=unique_prefix,
        models={"local": "http://127.0.0.1:1/v1"},
    )  # fmt: skip
    admin, producer, reader = KafkaAdmin(kafka), KafkaProducer(kafka), KafkaReader(kafka)
    await admin.start()
    for spec in topic_specs(names, ["local"]):
        await admin.create(spec, replication_factor=1)
    await admin.stop()
    await producer.start()
    await reader.start()
    target = names.requests("local")
    await reader.assign({place: end for place, (_, end) in (await reader.bounds(target)).items()})

    due = round(time.time() * 1000) + WAIT_MS
    parked = [
        OutRecord(
            names.delay("30s"), b"{}", b"%d" % number,
            [(h.REQUEST_ID, b"%d" % number), (h.NOT_BEFORE, b"%d" % due), (h.TARGET, target.encode())],
        )
        for number in range(COUNT)
    ]  # fmt: skip
    assert set(await producer.send_all(parked)) == {None}

    found: list[Record] = []
    log = tmp_path / "relay.log"
    for stop_after in (1, COUNT):
        port = free_port()
        async with running("relay", "--config", str(config), "--port", str(port), log=log) as process:
            await ready(port)
            deadline = asyncio.get_running_loop().time() + PATIENCE
            while len(found) < stop_after:
                assert asyncio.get_running_loop().time() < deadline, f"{len(found)} came back\n{log.read_text()}"
                found += await reader.poll(max_records=1_000, timeout=0.2)
        assert process.returncode == 0, log.read_text()
    found += await reader.poll(max_records=1_000, timeout=0.2)
    await reader.stop()
    await producer.stop()

    ids = sorted(int(dict(record.headers)[h.REQUEST_ID]) for record in found)
    assert ids == list(range(COUNT))
    assert min(record.timestamp for record in found) >= due
    assert "Traceback" not in log.read_text()
