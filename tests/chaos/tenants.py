"""`make tenants`: lanes and tenants for real. 100,000 batch requests of one tenant, then ten interactive of another.

One real broker, one worker, a provider with five slots. Prints how long each interactive request waited beside how
often a slot comes free, and the tokens of two batch tenants of weight 3:1. Exit code 1 where limits.md is missed.
"""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import orjson
import yaml
from rich.console import Console

from broker.adapters.kafka import KafkaProducer, KafkaReader
from broker.config import Kafka
from broker.embedded.probe import free_port
from broker.embedded.redis_part import RedisPart
from broker.envelope import NewRequest, encode_request, read_reply
from broker.topics import Lane, TopicNames
from schemas.usage import UsageEvent
from tests.bench.contest import upstream
from tests.chaos.__main__ import CANNOT_RUN, INTERRUPTED, JARS
from tests.chaos.brokers import KafkaCluster
from tests.chaos.maven import Interrupted, MavenMissing, fetch_jars, run_to_end
from tests.chaos.run import folder_of
from tests.chaos.stand import Process
from tests.processes import run

SLOTS: Final = 5
CALL_S: Final = 0.05
QUEUED: Final = 100_000
INTERACTIVE: Final = 10
RIVALS: Final = 12_000
"""Requests of each of the two batch tenants, in turn in the log."""
STARTED: Final = 6_000
"""Starts over which their tokens are compared."""
FREE_MS: Final = CALL_S * 1000 / SLOTS
SEND: Final = 2_000


@dataclass
class Told:
    """What was measured."""

    waits_ms: list[int]
    batch_between: int
    tokens: dict[str, int]

    @property
    def ratio(self) -> float:
        """Tokens of the heavy tenant over those of the light one."""
        return self.tokens["heavy"] / self.tokens["light"]

    @property
    def good(self) -> bool:
        """Whether the bars are met: the next free slot, a batch that goes on, 3:1 ± 5 %."""
        return max(self.waits_ms) <= CALL_S * 1000 + 50 and self.batch_between > 0 and abs(self.ratio - 3) <= 0.15


class Queues:
    """Writes requests and reads the usage topic, where each served request stands with its tenant and tokens."""

    def __init__(self, kafka: Kafka) -> None:
        self._names = TopicNames(kafka.topic_prefix)
        self._producer, self._reader = KafkaProducer(kafka), KafkaReader(kafka)
        self._number = 0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Queues"]:
        """Connect, and read what comes from now on."""
        await self._producer.start()
        await self._reader.start()
        try:
            places: dict[Any, int] = {}
            for topic in (self._names.usage, self._names.replies):
                places |= {place: end for place, (_, end) in (await self._reader.bounds(topic)).items()}
            await self._reader.assign(places)
            yield self
        finally:
            await self._reader.stop()
            await self._producer.stop()

    async def write(self, alias: str, lane: Lane, *tenants: str, count: int, words: int = 20) -> None:
        """Queue `count` requests of each tenant, in turn; no two have the same number of tokens."""
        for _ in range(0, count, SEND):
            requests = []
            for _ in range(min(SEND, count)):
                for tenant in tenants:
                    self._number += 1
                    text = "word " * (words + self._number % 50)
                    body = orjson.dumps({"max_tokens": 50, "messages": [{"role": "user", "content": text}]})
                    requests.append(
                        NewRequest(alias=alias, body=body, request_id=f"{tenant}-{self._number}", key=f"sk-{tenant}",
                                   lane=lane, reply_to=self._names.replies, reply_partition=0)
                    )  # fmt: skip
            failed = await self._producer.send_all([encode_request(each, self._names) for each in requests])
            if any(failed):
                raise RuntimeError(f"not queued: {next(filter(None, failed))}")

    async def events(self) -> AsyncIterator[UsageEvent]:
        """Yield usage events as they come, for ever."""
        while True:
            for record in await self._reader.poll(max_records=2_000, timeout=0.5):
                if record.topic == self._names.usage:
                    yield UsageEvent.model_validate_json(record.value or b"")

    async def waits(self, count: int) -> tuple[list[int], int]:
        """Send interactive requests one by one; return their `queue-ms`, and how many others ended meanwhile."""
        waits: list[int] = []
        others = 0
        for _ in range(count):
            await self.write("chat", Lane.INTERACTIVE, "b", count=1)
            deadline = time.monotonic() + 60
            answered = False
            while not answered:
                if time.monotonic() > deadline:
                    raise RuntimeError("an interactive request was not answered within 60 s")
                for record in await self._reader.poll(max_records=2_000, timeout=0.5):
                    reply = read_reply(record) if record.topic == self._names.replies else None
                    if reply is None:
                        others += record.topic == self._names.usage
                    elif reply.request_id.startswith("b-"):
                        waits.append(reply.queue_ms)
                        answered = True
        return waits, others

    async def tokens(self, count: int) -> dict[str, int]:
        """Add up what the next `count` requests took, by tenant, in the order in which they ended."""
        found: Counter[str] = Counter()
        async for event in self.events():
            if event.alias == "rivals":
                found[event.tenant] += event.input_tokens + event.output_tokens
                count -= 1
                if count == 0:
                    return dict(found)
        raise AssertionError


def write_config(folder: Path, kafka: str, redis: str, url: str) -> Path:
    """Write the configuration; returns its path."""
    params = {"api_base": url, "api_key": "sk-tenants", "max_parallel_requests": SLOTS}
    names = ("a", "b", "heavy", "light")
    content = {
        "model_list": [
            {"model_name": alias, "litellm_params": {"model": f"openai/{alias}", **params}}
            for alias in ("chat", "rivals")
        ],
        "general_settings": {"signing_key": "tenants"},
        "kafka": {"bootstrap_servers": kafka},
        "redis": {"url": redis},
        "keys": [{"key": f"sk-{name}", "tenant": name} for name in names],
        "tenants": {"policies": {"heavy": {"weight": 3}}},
    }
    path = folder / "tenants.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


async def tenants(folder: Path, console: Console) -> Told:
    """Run once."""
    cluster, redis = KafkaCluster(folder / "kafka", await fetch_jars(JARS), brokers=1), RedisPart()
    try:
        await cluster.start()
        address = await redis.start(folder, free_port())
        async with upstream(CALL_S, folder) as url:
            config = write_config(folder, cluster.bootstrap, address, url)
            await run("topics", "apply", "--config", str(config))
            worker = Process(folder, "worker", "worker", "--config", str(config), "--processes", "1")
            async with Queues(Kafka(bootstrap_servers=cluster.bootstrap)).opened() as queues:
                await queues.write("chat", Lane.BATCH, "a", count=QUEUED)
                await queues.write("rivals", Lane.BATCH, "heavy", "light", count=RIVALS)
                console.print(f"{QUEUED:,} batch requests of tenant a queued, {RIVALS:,} each of heavy and light")
                await worker.start()
                try:
                    await queues.tokens(SLOTS * 20)
                    waits, between = await queues.waits(INTERACTIVE)
                    return Told(waits, between, await queues.tokens(STARTED))
                finally:
                    await worker.stop()
    finally:
        await redis.stop()
        await cluster.stop()


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where data and logs go.")
def main(folder: Path | None, *, as_json: bool) -> None:
    """Show who waits for whom on real parts."""
    logging.basicConfig(level=logging.ERROR)
    console = Console(stderr=as_json)
    where = folder_of(folder)
    try:
        told = run_to_end(tenants(where, console))
    except MavenMissing as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(CANNOT_RUN)
    except Interrupted:
        sys.exit(INTERRUPTED)
    if as_json:
        click.echo(json.dumps({"waits_ms": told.waits_ms, "batch_between": told.batch_between, "tokens": told.tokens}))
    else:
        click.echo(
            f"a slot comes free every {FREE_MS:.0f} ms; {INTERACTIVE} interactive requests waited {told.waits_ms} ms,"
        )
        click.echo(f"while {told.batch_between} batch requests went on; tokens of 3:1 tenants: {told.ratio:.2f}:1")
    sys.exit(0 if told.good else 1)


if __name__ == "__main__":
    main()
