"""`broker status` on a real log and a real Redis, and what it tells when one of them is away."""

import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from broker.adapters.kafka import KafkaConsumer, KafkaProducer
from broker.adapters.kafka_admin import KafkaAdmin
from broker.adapters.redis_limits import RedisLimitStore
from broker.clock import SystemClock
from broker.config import Kafka, Redis
from broker.ports import Need, Units
from broker.records import Commit, OutRecord, Partition
from broker.topics import Lane, TopicNames, topic_specs
from tests.processes import run, write_config
from workers.snapshot import Identity, LaneNow, Meter, snapshot

pytestmark = pytest.mark.embedded

WRITTEN = 12
DONE = 5


@pytest.fixture
async def log(kafka_bootstrap: str, unique_prefix: str) -> Kafka:
    """Topics of one alias with 12 batch requests in one partition, 5 of them committed, and 2 dead letters."""
    kafka, names = Kafka(bootstrap_servers=kafka_bootstrap, topic_prefix=unique_prefix), TopicNames(unique_prefix)
    admin, producer = KafkaAdmin(kafka), KafkaProducer(kafka)
    await admin.start()
    for spec in topic_specs(names, ["chat"]):
        await admin.create(spec, replication_factor=1)
    await admin.stop()
    await producer.start()
    records = [OutRecord(names.batch("chat"), b"{}", partition=3) for _ in range(WRITTEN)]
    records += [OutRecord(names.dead, b"{}") for _ in range(2)]
    assert set(await producer.send_all(records)) == {None}
    await producer.stop()
    await commit(kafka, names, Partition(names.batch("chat"), 3), DONE)
    return kafka


async def commit(kafka: Kafka, names: TopicNames, partition: Partition, offset: int) -> None:
    consumer = KafkaConsumer(kafka, names.group("default"))
    await consumer.start([partition.topic])
    deadline = time.monotonic() + 30
    while partition not in consumer.assignment():
        assert time.monotonic() < deadline
        await consumer.poll([], max_records=1, timeout=0.05)
    await consumer.commit({partition: Commit(offset)}, timeout=10)
    await consumer.stop()


async def speak(redis_url: str, names: TopicNames) -> None:
    """One worker that runs 2 calls, and finished 30 requests of 100 tokens and a tenth of a cent within 10 seconds."""
    store = RedisLimitStore(Redis(url=SecretStr(redis_url)), names)
    meter = Meter(0.0)
    for _ in range(30):
        meter.finished("chat", Lane.BATCH, 100, 10**9)
    meter.roll(10.0)
    said = snapshot(
        Identity("worker-1", "default", "host", 1, 0, "0.1.0"),
        now_ms=SystemClock().now_ms(),
        in_flight=2,
        problems={},
        lanes={("chat", Lane.BATCH): LaneNow(12, 5, 2, 0, None)},
        meter=meter,
        deployments={"chat/0": 2},
    )
    await store.start()
    await store.exchange("worker-1", [Need("chat/0", {"rpm": 60}, running=2, first=Units(1), want=Units(2))])
    await store.publish("worker-1", said)
    await store.stop()


def config(folder: Path, kafka: Kafka, redis_url: str) -> Path:
    return write_config(
        folder, bootstrap=str(kafka.bootstrap_servers), redis_url=redis_url, prefix=kafka.topic_prefix,
        models={}, model_list=[{"model_name": "chat", "rpm": 60, "litellm_params": {"model": "openai/chat-0"}}],
    )  # fmt: skip


def lane(told: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in told["lanes"] if each["lane"] == name)
    return found


async def test_backlog_estimates_limits_and_workers_are_told(log: Kafka, redis_url: str, tmp_path: Path) -> None:
    await speak(redis_url, TopicNames(log.topic_prefix))
    path = config(tmp_path, log, redis_url)
    told = orjson.loads(await run("status", "--json", "--config", str(path)))
    batch, interactive = lane(told, "batch"), lane(told, "interactive")
    assert (batch["backlog"], interactive["backlog"]) == (WRITTEN - DONE, 0)
    assert (batch["estimated_tokens"], batch["estimated_dollars"]) == (700, "0.007000000000")
    assert (batch["finished_per_second"], batch["drain_seconds"]) == (3.0, 2.3)
    assert 0 <= batch["oldest_seconds"] < 120
    assert interactive["oldest_seconds"] is None
    assert told["parked"] == {"30s": 0, "2m": 0, "10m": 0}
    assert (told["dead_letters"], told["sink_lag"], told["missing"], told["idle_pools"]) == (2, 0, {}, [])
    (deployment,), (worker,) = told["deployments"], told["workers"]
    assert (deployment["deployment"], deployment["limits"], deployment["learned"]) == ("chat/0", {"rpm": 60}, {})
    assert deployment["running"] == 2
    assert 1 <= deployment["used"]["rpm"] <= 2
    assert (worker["worker"], worker["state"], worker["in_flight"]) == ("worker-1", "ready", 2)

    page = await run("status", "--config", str(path), "--alias", "chat")
    assert "dead letters 2" in page


async def test_without_redis_the_backlog_is_told_and_the_exit_code_is_1(log: Kafka, tmp_path: Path) -> None:
    path = config(tmp_path, log, "redis://127.0.0.1:1")
    told = orjson.loads(await run("status", "--json", "--config", str(path), expect=1))
    assert told["missing"].keys() == {"redis"}
    batch = lane(told, "batch")
    assert (batch["backlog"], batch["estimated_tokens"], batch["drain_seconds"]) == (WRITTEN - DONE, None, None)


async def test_without_kafka_the_workers_are_told_and_the_exit_code_is_1(
    redis_url: str, unique_prefix: str, tmp_path: Path
) -> None:
    await speak(redis_url, TopicNames(unique_prefix))
    kafka = Kafka(bootstrap_servers="127.0.0.1:1", topic_prefix=unique_prefix)
    told = orjson.loads(await run("status", "--json", "--config", str(config(tmp_path, kafka, redis_url)), expect=1))
    assert told["missing"].keys() == {"kafka"}
    assert lane(told, "batch")["backlog"] is None
    assert [worker["worker"] for worker in told["workers"]] == ["worker-1"]
