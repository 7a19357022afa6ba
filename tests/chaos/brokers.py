"""Apache Kafka brokers on this machine: KRaft, each a broker and a controller, with data that outlives a kill.

Every broker has a second listener whose advertised address is a proxy's, so that a client that starts there meets the
brokers through proxies only.
"""

import asyncio
import contextlib
import os
import secrets
import signal
from pathlib import Path
from typing import Final

from broker.embedded.probe import free_port, kafka_serves
from tests.chaos.network import CutProxy

HEAP: Final = ("-Xms256m", "-Xmx512m")
READY_S: Final = 90.0
STOP_S: Final = 30.0
MOST_BYTES: Final = 4 << 20


class BrokerFailed(Exception):
    """A broker did not start; the message holds the end of its log."""


class Kafka:
    """One broker process."""

    def __init__(self, folder: Path, jars: Path, number: int) -> None:
        self.number = number
        self.port, self.controller, self.cut_port, self.proxy_port = (free_port() for _ in range(4))
        self.proxy = CutProxy("127.0.0.1", self.cut_port)
        self._folder = folder / f"broker-{number}"
        self._log = folder / f"broker-{number}.log"
        self._properties = self._folder / "server.properties"
        self._java = [
            "java",
            *HEAP,
            "-XX:+UseG1GC",
            "-cp",
            f"{jars}/*",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        ]
        self._process: asyncio.subprocess.Process | None = None

    async def format(self, voters: str, cluster: str, brokers: int) -> None:
        """Write its configuration and make its data folder."""
        self._folder.mkdir(parents=True)
        replicas, least = min(3, brokers), min(2, brokers)
        settings = {
            "node.id": self.number,
            "process.roles": "broker,controller",
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAIN",
            "listeners": f"PLAIN://127.0.0.1:{self.port},CUT://127.0.0.1:{self.cut_port},"
            f"CONTROLLER://127.0.0.1:{self.controller}",
            "advertised.listeners": f"PLAIN://127.0.0.1:{self.port},CUT://127.0.0.1:{self.proxy_port}",
            "listener.security.protocol.map": "PLAIN:PLAINTEXT,CUT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": self._folder / "data",
            "default.replication.factor": replicas,
            "min.insync.replicas": least,
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": 12,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": least,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": least,
            "group.initial.rebalance.delay.ms": 0,
            "auto.create.topics.enable": "false",
            "unclean.leader.election.enable": "false",
            "message.max.bytes": MOST_BYTES,
            "replica.fetch.max.bytes": MOST_BYTES,
            "broker.session.timeout.ms": 6_000,
            "replica.lag.time.max.ms": 10_000,
            "num.network.threads": 2,
            "num.io.threads": 4,
            "log.segment.bytes": 256 << 20,
        }
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self._java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._properties),
                stdout=log, stderr=log,
            )  # fmt: skip
        if await process.wait() != 0:
            raise BrokerFailed(f"formatting broker {self.number}: {self._said()}")

    async def start(self) -> None:
        """Start the process; `until_ready` waits for it."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._java, "kafka.Kafka", str(self._properties), stdout=log, stderr=log
            )

    async def until_ready(self) -> None:
        """Wait until it answers. Raises `BrokerFailed`."""
        try:
            async with asyncio.timeout(READY_S):
                while not await self._serves():
                    if self._process is None or self._process.returncode is not None:
                        raise BrokerFailed(f"broker {self.number} ended: {self._said()}")
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise BrokerFailed(f"broker {self.number} is not ready after {READY_S:g} s: {self._said()}") from None

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL where that takes too long."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_S)
            await self.kill()
        await self.proxy.stop()

    async def _serves(self) -> bool:
        try:
            async with asyncio.timeout(2.0):
                return await kafka_serves("127.0.0.1", self.port)
        except (OSError, EOFError, TimeoutError):
            return False

    def _said(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        return " | ".join(lines[-3:])[-600:]


class KafkaCluster:
    """`brokers` of them, replicated three times with two in sync where there are three."""

    def __init__(self, folder: Path, jars: Path, brokers: int = 3) -> None:
        self.brokers = [Kafka(folder, jars, number) for number in range(brokers)]

    @property
    def bootstrap(self) -> str:
        """Addresses of all brokers."""
        return ",".join(f"127.0.0.1:{broker.port}" for broker in self.brokers)

    @property
    def cut_bootstrap(self) -> str:
        """Addresses of the proxies in front of them."""
        return ",".join(f"127.0.0.1:{broker.proxy_port}" for broker in self.brokers)

    async def start(self) -> None:
        """Format and start all, and wait until they serve. Raises `BrokerFailed`."""
        voters = ",".join(f"{broker.number}@127.0.0.1:{broker.controller}" for broker in self.brokers)
        cluster = secrets.token_urlsafe(16)
        count = len(self.brokers)
        await asyncio.gather(*(broker.format(voters, cluster, count) for broker in self.brokers))
        for broker in self.brokers:
            await broker.start()
            await broker.proxy.start(broker.proxy_port)
        await asyncio.gather(*(broker.until_ready() for broker in self.brokers))

    async def stop(self) -> None:
        """Stop all."""
        await asyncio.gather(*(broker.stop() for broker in self.brokers))

    async def kill(self, number: int) -> None:
        """SIGKILL one."""
        await self.brokers[number].kill()

    async def restart(self, number: int) -> None:
        """Start one again with the data it had."""
        await self.brokers[number].start()
        await self.brokers[number].until_ready()

    def cut(self) -> None:
        """Cut every proxy."""
        for broker in self.brokers:
            broker.proxy.cut()

    def heal(self) -> None:
        """Let every proxy forward again."""
        for broker in self.brokers:
            broker.proxy.heal()
