"""Everything a chaos run needs, each part a process that can be killed.

Log, Redis, ledger, provider, workers, sink, relay. The log is a real Apache Kafka of three brokers; worker 3 reaches it
through proxies that can be cut.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import httpx
import yaml
from pydantic import SecretStr

from broker.adapters.clickhouse import ClickHouseLedger
from broker.config import ClickHouse, Kafka
from broker.embedded.clickhouse_part import ClickHousePart
from broker.embedded.probe import free_port
from broker.embedded.redis_part import RedisPart
from tests.chaos.brokers import KafkaCluster
from tests.processes import run

log = logging.getLogger(__name__)

ALIAS: Final = "steady"
FRAIL: Final = "frail"
"""Fails always and falls back to `steady`."""
WORKERS: Final = 4
CUT_WORKER: Final = 3
LEASE_SECONDS: Final = 30.0
READY_S: Final = 90.0
STOP_S: Final = 60.0


class Process:
    """One command of the product, started again on the same port and under the same name in its group."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.name = name
        self.port = free_port()
        self._log = folder / f"{name}.log"
        self._command = [sys.executable, "-m", "broker", *arguments, "--port", str(self.port)]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Process id of the running process."""
        assert self._process is not None
        return self._process.pid

    async def start(self, *, ready: bool = True) -> None:
        """Start it, and wait until it is ready."""
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(*self._command, stdout=output, stderr=output)
        if ready:
            await self.until_ready()

    async def until_ready(self) -> None:
        """Wait until `/ready` says so."""
        async with asyncio.timeout(READY_S):
            while (await self.told())[0] != httpx.codes.OK:
                if self._process is not None and self._process.returncode is not None:
                    # A watchdog or a start beside a broken part may end it; whoever runs it in earnest starts it again.
                    log.warning("%s ended with %d; started again", self.name, self._process.returncode)
                    await self.start(ready=False)
                await asyncio.sleep(0.2)

    async def told(self, timeout: float = 3.0) -> tuple[int, dict[str, Any]]:
        """Return status and body of `/ready`; status 0 while nobody answers."""
        try:
            async with httpx.AsyncClient(timeout=timeout) as http:
                answer = await http.get(f"http://127.0.0.1:{self.port}/ready")
                return answer.status_code, dict(answer.json())
        except (httpx.HTTPError, ValueError):
            return 0, {}

    async def calls(self) -> int:
        """Return the calls it says it has in flight. Raises `RuntimeError` where it does not say."""
        status, said = await self.told(timeout=20.0)
        if "in_flight" not in said:
            raise RuntimeError(f"{self.name} does not say what it has in flight: {status} {said}")
        return int(said["in_flight"])

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; it may have ended by itself."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self.signal(signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, as an orchestrator stops it; SIGKILL where it does not listen."""
        if self._process is None or self._process.returncode is not None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_S)
        except TimeoutError:
            log.warning("%s did not stop within %g s", self.name, STOP_S)
            await self.kill()


class Stand:
    """`async with` starts everything and stops it."""

    def __init__(self, folder: Path, jars: Path, *, in_flight: int, seed: int) -> None:
        self.folder = folder
        self.cluster = KafkaCluster(folder / "kafka", jars, brokers=3)
        self.redis = RedisPart()
        self.clickhouse = ClickHousePart()
        self.workers: list[Process] = []
        self._beside: list[Process] = []
        self.kafka = Kafka()
        self._seed = seed
        self._in_flight = in_flight
        self._provider: asyncio.subprocess.Process | None = None
        self._redis_port, self._clickhouse_port = free_port(), free_port()
        self._http = httpx.AsyncClient(timeout=30.0)
        self._stats = ""
        self._broken: set[str] = set()

    @contextlib.contextmanager
    def victims(self, rng: random.Random, count: int = 1) -> Iterator[list[Process]]:
        """Choose workers that no other fault has chosen, for as long as the context lasts."""
        chosen = rng.sample([worker for worker in self.workers if worker.name not in self._broken], count)
        self._broken |= {worker.name for worker in chosen}
        try:
            yield chosen
        finally:
            self._broken -= {worker.name for worker in chosen}

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(process.stop() for process in self._processes()))
        if self._provider is not None and self._provider.returncode is None:
            self._provider.kill()
            await self._provider.wait()
        await self._http.aclose()
        await self.clickhouse.stop()
        await self.redis.stop()
        await self.cluster.stop()

    def _processes(self) -> list[Process]:
        return [*self.workers, *self._beside]

    async def _start(self) -> None:
        parts = self.folder / "parts"
        redis, clickhouse, url, _ = await asyncio.gather(
            self.redis.start(parts, self._redis_port),
            self.clickhouse.start(parts, self._clickhouse_port),
            self._start_provider(),
            self.cluster.start(),
        )
        self.kafka = Kafka(bootstrap_servers=self.cluster.bootstrap)
        self.ledger = ClickHouseLedger(ClickHouse(dsn=SecretStr(clickhouse)))
        config = self._write("chaos.yaml", self.cluster.bootstrap, redis, clickhouse, url)
        cut = self._write("cut.yaml", self.cluster.cut_bootstrap, redis, clickhouse, url)
        await run("topics", "apply", "--config", str(config))
        await run("clickhouse", "migrate", "--config", str(config))
        await self.ledger.start()
        self.sink = Process(self.folder, "sink", "sink", "--config", str(config), "--instance", "sink-0")
        self.relay = Process(self.folder, "relay", "relay", "--config", str(config), "--instance", "relay-0")
        self.workers = [
            Process(
                self.folder,
                f"worker-{number}",
                *("worker", "--config", str(cut if number == CUT_WORKER else config)),
                *("--processes", "1", "--instance", f"worker-{number}"),
            )
            for number in range(WORKERS)
        ]
        self._beside = [self.sink, self.relay]
        await asyncio.gather(*(process.start() for process in self._processes()))

    def _write(self, name: str, bootstrap: str, redis: str, clickhouse: str, upstream: str) -> Path:
        def model(alias: str, number: int) -> dict[str, Any]:
            params = {"model": f"openai/{alias}-{number}", "api_base": upstream, "api_key": "sk-chaos"}
            prices = {"input_cost_per_token": 0.000001, "output_cost_per_token": 0.000002}
            return {"model_name": alias, "litellm_params": {**params, **prices}}

        content = {
            "model_list": [model(ALIAS, 0), model(ALIAS, 1), model(FRAIL, 0)],
            "router_settings": {"fallbacks": [{FRAIL: [ALIAS]}], "num_retries": 2},
            "aliases": {FRAIL: {"num_retries": 0, "cooldown_time": 0}},
            "general_settings": {"signing_key": "chaos"},
            "kafka": {"bootstrap_servers": bootstrap, "replication_factor": 3, "request_timeout": 10},
            "redis": {"url": redis, "lease_seconds": LEASE_SECONDS},
            "clickhouse": {"dsn": clickhouse},
            "workers": {"pools": {"default": {"in_flight": self._in_flight, "drain_seconds": 30}}},
        }
        path = self.folder / name
        path.write_text(yaml.safe_dump(content))
        return path

    async def _start_provider(self) -> str:
        """Simulate one that takes 3 to 6 s a call and fails now and then, and `FRAIL` always.

        Every answer has a text of its own: two calls of one request can be told from one answer published twice.
        """
        with (self.folder / "provider.log").open("ab") as output:
            self._provider = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "broker", "simulate", "--port", "0", "--json", "--seed", str(self._seed)),
                *("--latency", "3-6", "--fault", "500=0.01", "--model-fault", f"{FRAIL}*=500", "--numbered"),
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
            )
        assert self._provider.stdout is not None
        bases = json.loads(await asyncio.wait_for(self._provider.stdout.readline(), 30))
        self._stats = bases["stats"].removesuffix("stats") + "totals"
        return str(bases["openai"])

    async def paid(self) -> dict[str, Any]:
        """Return what the provider has counted."""
        return dict((await self._http.get(self._stats)).json())

    async def redis_dies(self, *, empty: bool) -> None:
        """SIGKILL Redis and start it on the same port, with its data or without."""
        os.kill(self.redis.pid, signal.SIGKILL)
        await self.redis.ended()
        await self.redis.stop()
        if empty:
            shutil.rmtree(self.folder / "parts" / "redis")
        await self.redis.start(self.folder / "parts", self._redis_port)

    async def clickhouse_leaves(self) -> None:
        """Stop the ledger's engine."""
        await self.clickhouse.stop()

    async def clickhouse_comes_back(self) -> None:
        """Start it again on the same port, with its data."""
        await self.clickhouse.start(self.folder / "parts", self._clickhouse_port)
