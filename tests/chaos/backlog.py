"""`make backlog`: a million queued requests drain in constant memory, with Redis and then ClickHouse away on the way.

One real broker, one worker process, one sink, an instant provider. Prints the worker's resident memory every 100,000
replies; exit code 0 where all are answered and billed once and memory stayed flat, 1 where not, 2 without Maven.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click
import yaml
from pydantic import SecretStr
from rich.console import Console

from broker.adapters.clickhouse import ClickHouseLedger
from broker.adapters.kafka import KafkaReader
from broker.config import ClickHouse, Kafka
from broker.embedded.clickhouse_part import ClickHousePart
from broker.embedded.probe import free_port
from broker.embedded.redis_part import RedisPart
from broker.errors import Unavailable
from broker.topics import TopicNames
from tests.bench.contest import ALIAS, preload, upstream
from tests.chaos.__main__ import CANNOT_RUN, INTERRUPTED, JARS
from tests.chaos.brokers import KafkaCluster
from tests.chaos.maven import Interrupted, MavenMissing, fetch_jars, run_to_end
from tests.chaos.run import folder_of
from tests.chaos.stand import Process
from tests.processes import run

AWAY_S: Final = 90.0
STUCK_S: Final = 180.0
STEP: Final = 100_000
FLAT_MB: Final = 40.0
"""How much more memory than at the first step a flat line may take."""
PROC: Final = Path("/proc")


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def errors_in(log: Path) -> int:
    """Lines of a log that are warnings or worse."""
    lines = log.read_text(errors="replace").splitlines()
    return sum(" WARNING " in line or " ERROR " in line for line in lines)


@dataclass
class Seen:
    """What was measured."""

    memory: list[float] = field(default_factory=list)
    replies: int = 0
    rows: int = 0

    @property
    def flat(self) -> bool:
        """Whether memory stayed where it was after the first steps."""
        return max(self.memory) - min(self.memory[:3]) <= FLAT_MB


class Backlog:
    """The stand and what is read from it."""

    def __init__(self, folder: Path, requests: int, console: Console) -> None:
        self.folder, self.requests, self.console = folder, requests, console
        self.redis, self.clickhouse = RedisPart(), ClickHousePart()
        self._ports = free_port(), free_port()
        self.seen = Seen()
        self._kafka = Kafka()
        self._moved = time.monotonic()

    @contextlib.asynccontextmanager
    async def stand(self, cluster: KafkaCluster, url: str) -> AsyncIterator[None]:
        """Start parts, queue the requests, start worker and sink."""
        await cluster.start()
        redis = await self.redis.start(self.folder, self._ports[0])
        clickhouse = await self.clickhouse.start(self.folder, self._ports[1])
        self._kafka = Kafka(bootstrap_servers=cluster.bootstrap)
        self.ledger = ClickHouseLedger(ClickHouse(dsn=SecretStr(clickhouse)))
        began = time.monotonic()
        await preload(self._kafka, TopicNames(), self.requests)
        self.console.print(f"{self.requests:,} requests queued in {time.monotonic() - began:.0f} s")
        params = {"model": "openai/gpt-4o-mini", "api_base": url, "api_key": "sk-backlog"}
        config = self.folder / "backlog.yaml"
        content = {
            "model_list": [{"model_name": ALIAS, "litellm_params": params}],
            "general_settings": {"signing_key": "backlog"},
            "kafka": {"bootstrap_servers": cluster.bootstrap},
            "redis": {"url": redis, "answer_ttl": 60},
            "clickhouse": {"dsn": clickhouse},
            "workers": {"pools": {"default": {"in_flight": 256, "drain_seconds": 5}}},
        }
        config.write_text(yaml.safe_dump(content))
        await run("clickhouse", "migrate", "--config", str(config))
        await self.ledger.start()
        self.worker = Process(self.folder, "worker", "worker", "--config", str(config), "--processes", "1")
        self.sink = Process(self.folder, "sink", "sink", "--config", str(config))
        try:
            await asyncio.gather(self.worker.start(), self.sink.start())
            yield
        finally:
            await asyncio.gather(self.worker.stop(), self.sink.stop())

    async def stop(self) -> None:
        """Stop the parts."""
        await self.clickhouse.stop()
        await self.redis.stop()

    async def drain(self) -> None:
        """Watch until every request is answered and has a row; take parts away on the way."""
        reader = KafkaReader(self._kafka)
        await reader.start()
        began = time.monotonic()
        outage: asyncio.Task[None] | None = None
        away = [(self.requests // 4, self._redis_away), (self.requests // 2, self._clickhouse_away)]
        try:
            while self.seen.replies < self.requests or (outage is not None and not outage.done()):
                before = self.seen.replies
                bounds = await reader.bounds(TopicNames().replies)
                self.seen.replies = sum(end for _, end in bounds.values())
                for _ in range(before // STEP, self.seen.replies // STEP):
                    self._note(began)
                if away and self.seen.replies >= away[0][0] and (outage is None or outage.done()):
                    outage = asyncio.create_task(away.pop(0)[1]())
                self._check(before)
                await asyncio.sleep(0.2)
        finally:
            await reader.stop()
        await self._rows()
        spent = time.monotonic() - began
        self.console.print(f"{self.seen.replies:,} replies, {self.seen.rows:,} billable rows, {spent:.0f} s")

    def _note(self, began: float) -> None:
        memory = resident_mb(self.worker.pid)
        self.seen.memory.append(memory)
        self.console.print(
            f"{len(self.seen.memory) * STEP:>11,} replies  {time.monotonic() - began:6.0f} s  worker {memory:6.1f} MB  "
            f"sink {resident_mb(self.sink.pid):6.1f} MB",
            highlight=False,
        )

    def _check(self, before: int) -> None:
        if self.seen.replies > before:
            self._moved = time.monotonic()
        if time.monotonic() - self._moved > STUCK_S + AWAY_S:
            raise RuntimeError(f"nothing was answered for {STUCK_S + AWAY_S:g} s")

    async def _redis_away(self) -> None:
        log, before = self.folder / "worker.log", resident_mb(self.worker.pid)
        noise = errors_in(log)
        self.console.print(f"Redis goes away for {AWAY_S:g} s")
        os.kill(self.redis.pid, signal.SIGKILL)
        await self.redis.ended()
        await self.redis.stop()
        await asyncio.sleep(AWAY_S)
        during = resident_mb(self.worker.pid)
        lines = errors_in(log) - noise
        await self.redis.start(self.folder, self._ports[0])
        self.console.print(
            f"Redis is back; worker {before:.1f} → {during:.1f} MB, {lines} lines of warnings meanwhile",
            highlight=False,
        )

    async def _clickhouse_away(self) -> None:
        log, before = self.folder / "sink.log", resident_mb(self.sink.pid)
        noise = errors_in(log)
        self.console.print(f"ClickHouse goes away for {AWAY_S:g} s")
        await self.clickhouse.stop()
        await asyncio.sleep(AWAY_S)
        during = resident_mb(self.sink.pid)
        lines = errors_in(log) - noise
        await self.clickhouse.start(self.folder, self._ports[1])
        self.console.print(
            f"ClickHouse is back; sink {before:.1f} → {during:.1f} MB, {lines} lines of warnings meanwhile",
            highlight=False,
        )

    async def _rows(self) -> None:
        deadline = time.monotonic() + STUCK_S
        while self.seen.rows < self.requests and time.monotonic() < deadline:
            with contextlib.suppress(Unavailable):
                table = await self.ledger.query("SELECT uniqExact(request_id), count() FROM attempts WHERE billable")
                self.seen.rows = int(table.rows[0][0])
            await asyncio.sleep(1)


async def backlog(requests: int, folder: Path, console: Console) -> Seen:
    """Run once."""
    jars = await fetch_jars(JARS)
    cluster = KafkaCluster(folder / "kafka", jars, brokers=1)
    here = Backlog(folder, requests, console)
    try:
        async with upstream(0.0, folder) as url, here.stand(cluster, url):
            await here.drain()
    finally:
        await here.stop()
        await cluster.stop()
    return here.seen


@click.command()
@click.option("--requests", type=click.IntRange(STEP), default=1_000_000, show_default=True)
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where data and logs go.")
def main(requests: int, folder: Path | None) -> None:
    """Drain a long queue and watch the worker's memory."""
    logging.basicConfig(level=logging.ERROR)
    console = Console()
    where = folder_of(folder)
    console.print(f"data and logs in {where}", soft_wrap=True)
    try:
        seen = run_to_end(backlog(requests, where, console))
    except MavenMissing as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(CANNOT_RUN)
    except Interrupted:
        console.print("interrupted; everything is stopped")
        sys.exit(INTERRUPTED)
    good = seen.flat and seen.rows == seen.replies == requests
    low, high = min(seen.memory), max(seen.memory)
    click.echo(
        f"memory {low:.1f} … {high:.1f} MB: {'flat' if seen.flat else 'NOT FLAT'}; {'good' if good else 'BROKEN'}"
    )
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
