"""`make parked`: 10,000 parked requests that come due within a few seconds, through `broker relay`: early or late?

Printed, never asserted in a test. `KAFKA_BOOTSTRAP` measures on a real cluster instead of the embedded log.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import click
import httpx

from broker.adapters.kafka import KafkaProducer, KafkaReader
from broker.adapters.kafka_admin import KafkaAdmin
from broker.config import Kafka
from broker.embedded.probe import free_port
from broker.envelope import headers as h
from broker.records import OutRecord
from broker.topics import TopicNames, TopicSpec, topic_specs
from tests.bench.contest import fresh_log
from tests.processes import running, write_config

COUNT = 10_000
LEAD_MS = 15_000
SPREAD_MS = 5_000
PATIENCE = 120.0


async def measure(folder: Path, count: int) -> dict[str, Any]:
    """Park, start the relay, wait until all are back; returns the figures."""
    async with fresh_log(folder, os.environ.get("KAFKA_BOOTSTRAP")) as address:
        prefix = f"p{uuid.uuid4().hex[:8]}."
        kafka, names = Kafka(bootstrap_servers=address, topic_prefix=prefix), TopicNames(prefix)
        admin, producer, reader = KafkaAdmin(kafka), KafkaProducer(kafka), KafkaReader(kafka)
        await admin.start()
        for spec in topic_specs(names, ["local"]):
            partitions = 6 if spec.name.startswith(names.delay("30s")) else 1
            await admin.create(TopicSpec(spec.name, partitions, spec.settings), replication_factor=1)
        await admin.stop()
        await producer.start()
        await reader.start()
        target = names.requests("local")
        await reader.assign({place: end for place, (_, end) in (await reader.bounds(target)).items()})
        first = round(time.time() * 1000) + LEAD_MS
        due = {number: first + number * SPREAD_MS // count for number in range(count)}
        parked = [
            OutRecord(names.delay("30s"), b"{}" * 250, b"%d" % number,
                      [(h.REQUEST_ID, b"%d" % number), (h.NOT_BEFORE, b"%d" % due[number]),
                       (h.TARGET, target.encode())])
            for number in due
        ]  # fmt: skip
        if any(await producer.send_all(parked)):
            raise RuntimeError("the requests could not be parked")
        config = write_config(folder, bootstrap=address, redis_url="redis://127.0.0.1:1", prefix=prefix,
                              models={"local": "http://127.0.0.1:1/v1"})  # fmt: skip
        late: list[int] = []
        port = free_port()
        async with running("relay", "--config", str(config), "--port", str(port), log=folder / "relay.log"):
            deadline = time.monotonic() + PATIENCE
            while len(late) < count and time.monotonic() < deadline:
                records = await reader.poll(max_records=2_000, timeout=0.2)
                late += [found.timestamp - due[int(dict(found.headers)[h.REQUEST_ID])] for found in records]
            async with httpx.AsyncClient() as http:
                ready = (await http.get(f"http://127.0.0.1:{port}/ready")).json()
        await reader.stop()
        await producer.stop()
    late.sort()
    return {
        "parked": count,
        "back": len(late),
        "earliest_ms": late[0],
        "median_late_ms": late[len(late) // 2],
        "latest_ms": late[-1],
        "ready": ready,
    }


@click.command()
@click.option("--count", type=click.IntRange(1), default=COUNT, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(count: int, *, as_json: bool) -> None:
    """Measure how early or late parked requests come back; exit code 1 where one is early, lost or over 1 s late."""
    with tempfile.TemporaryDirectory(prefix="parked-") as folder:
        told = asyncio.run(measure(Path(folder), count))
    if as_json:
        click.echo(json.dumps(told))
    else:
        click.echo(
            f"{told['back']:,} of {told['parked']:,} came back; earliest {told['earliest_ms']} ms after its time, "
            f"median {told['median_late_ms']} ms, latest {told['latest_ms']} ms (bar: 0 … 1,000)"
        )
    good = told["back"] == count and told["earliest_ms"] >= 0 and told["latest_ms"] <= 1_000
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
