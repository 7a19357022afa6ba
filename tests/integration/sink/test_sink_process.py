"""The sink over a real log and real tables, stopped and cut off and started again; and what reads its rows."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from broker.adapters.clickhouse import ClickHouseLedger
from broker.adapters.kafka import KafkaConsumer, KafkaProducer
from broker.adapters.kafka_admin import KafkaAdmin
from broker.cli import clickhouse as clickhouse_command
from broker.cli import spend
from broker.clock import SystemClock
from broker.config import ClickHouse, Kafka
from broker.embedded.probe import free_port
from broker.ledger.attempt import Attempt, encode
from broker.metrics import Metrics
from broker.ports import OutRecord
from broker.topics import TopicNames, topic_specs
from schemas.usage import Outcome
from tests.processes import running
from workers.sinks.clickhouse import Sink

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(120)]

DEADLINE_S = 90.0
NOW_MS = int(datetime.now(UTC).timestamp() * 1000)


def event(number: int) -> bytes:
    return encode(
        Attempt(
            request_id=f"r{number}",
            attempt=1,
            tenant=f"tenant-{number % 3}",
            alias="local",
            model="m",
            endpoint="/v1/chat/completions",
            lane="interactive",
            outcome=Outcome.ANSWERED,
            billable=True,
            status=200,
            created_ms=NOW_MS,
            started_ms=NOW_MS,
            finished_ms=NOW_MS + 5,
            input_tokens=10,
            output_tokens=2,
            cost_pico=None if number % 10 == 0 else 1_000_000,
        )
    )


class Setup:
    """A topic, a database, a configuration file."""

    def __init__(self, folder: Path, bootstrap: str, dsn: str, prefix: str) -> None:
        self.folder = folder
        self.kafka = Kafka(bootstrap_servers=bootstrap, topic_prefix=prefix)
        self.names = TopicNames(prefix)
        self.clickhouse = ClickHouse(dsn=SecretStr(dsn))
        self.ledger = ClickHouseLedger(self.clickhouse)
        self.config = folder / "broker.yaml"
        content: dict[str, Any] = {
            "kafka": {"bootstrap_servers": bootstrap, "topic_prefix": prefix},
            "clickhouse": {"dsn": dsn, "batch_seconds": 0.2, "batch_rows": 700},
        }
        self.config.write_text(yaml.safe_dump(content))

    async def produce(self, numbers: range) -> None:
        producer = KafkaProducer(self.kafka)
        await producer.start()
        records = [OutRecord(self.names.usage, event(n), key=b"r%d" % n) for n in numbers]
        assert set(await producer.send_all(records)) == {None}
        await producer.stop()

    @asynccontextmanager
    async def sinking(self) -> AsyncIterator[asyncio.Task[None]]:
        """A sink in this process; at the end of the block it is stopped, or found cut off."""
        sink = Sink(
            consumer=KafkaConsumer(self.kafka, self.names.sink_group),
            producer=KafkaProducer(self.kafka),
            ledger=ClickHouseLedger(self.clickhouse),
            names=self.names,
            clock=SystemClock(),
            metrics=Metrics(CollectorRegistry()),
            batch_rows=700,
            batch_seconds=0.2,
        )
        await sink.start()
        task = asyncio.create_task(sink.run())
        yield task
        sink.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await sink.close()

    async def count(self, what: str = "count()") -> int:
        table = await self.ledger.query(f"SELECT {what} FROM attempts FINAL")  # noqa: S608 - our own text
        return int(table.rows[0][0])

    async def until(self, rows: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while await self.count() < rows:  # noqa: ASYNC110 - the rows are in another process
                await asyncio.sleep(0.05)


@pytest.fixture
def made(tmp_path: Path, kafka_bootstrap: str, clickhouse_dsn: str, unique_prefix: str) -> Setup:
    dsn = f"{clickhouse_dsn.rpartition('/')[0]}/t{uuid.uuid4().hex[:10]}"
    return Setup(tmp_path, kafka_bootstrap, dsn, unique_prefix)


@pytest.fixture
async def setup(made: Setup) -> AsyncIterator[Setup]:
    admin = KafkaAdmin(made.kafka)
    await admin.start()
    for spec in topic_specs(made.names, []):
        if spec.name in {made.names.usage, made.names.dead}:
            await admin.create(spec, replication_factor=1)
    await admin.stop()
    await made.ledger.start()
    await made.ledger.migrate()
    yield made
    await made.ledger.stop()


async def test_every_event_is_one_row_although_the_sink_is_stopped_and_started_again(setup: Setup) -> None:
    log = setup.folder / "sink.log"
    await setup.produce(range(3000))
    async with running("sink", "--config", str(setup.config), "--port", str(free_port()), log=log) as first:
        await setup.until(1)
        first.terminate()
        assert await asyncio.wait_for(first.wait(), 30) == 0
    await setup.produce(range(3000, 6000))
    port = free_port()
    async with running("sink", "--config", str(setup.config), "--port", str(port), log=log) as second:
        await setup.until(6000)
        async with httpx.AsyncClient() as http:
            ready = await http.get(f"http://127.0.0.1:{port}/ready")
            metrics = await http.get(f"http://127.0.0.1:{port}/metrics")
        second.terminate()
        assert await asyncio.wait_for(second.wait(), 30) == 0
    assert (await setup.count(), await setup.count("uniqExact(usage_id)")) == (6000, 6000)
    assert ready.json()["ready"] is True
    assert "broker_sink_rows_total" in metrics.text


@pytest.mark.parametrize("rows", [1, 700, 2000])
async def test_every_event_is_one_row_although_the_sink_is_cut_off_in_the_middle(setup: Setup, rows: int) -> None:
    """Cut off without writing, committing or waiting for the INSERT under way; but it leaves its group.

    A process that is killed does not: the embedded log waits for such a member for ever, which Kafka does for 30 s.
    """
    await setup.produce(range(2500))
    async with setup.sinking() as task:
        await setup.until(rows)
        task.cancel()
    await setup.produce(range(2500, 3000))
    async with setup.sinking():
        await setup.until(3000)
    assert (await setup.count(), await setup.count("uniqExact(usage_id)")) == (3000, 3000)


def test_migrate_says_what_it_applied_and_the_second_time_that_there_is_nothing(made: Setup) -> None:
    first, second = (
        CliRunner().invoke(clickhouse_command.command, ["migrate", "--config", str(made.config)]) for _ in range(2)
    )
    assert first.output.splitlines()[0] == "applied 0001_attempts.sql"
    assert second.output.startswith("nothing to apply")


async def test_spend_is_read_from_the_tables(setup: Setup) -> None:
    await setup.produce(range(90))
    async with running(
        "sink", "--config", str(setup.config), "--port", str(free_port()), log=setup.folder / "sink.log"
    ):
        await setup.until(90)
    result = await asyncio.to_thread(
        CliRunner().invoke, spend.command, ["--config", str(setup.config), "--by", "tenant,day", "--json"]
    )
    rows = json.loads(result.stdout)
    assert [row["tenant"] for row in rows] == ["tenant-0", "tenant-1", "tenant-2"]
    assert {row["cost"] for row in rows} == {"0.000027000000"}
    assert sum(row["unpriced"] for row in rows) == 9
    assert sum(row["requests"] for row in rows) == 90
