"""The whole stack on one machine: embedded parts where no real server is configured, our programs, a status page."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from broker.config import Pool, Settings
from broker.embedded import runfile
from broker.embedded.clickhouse_part import ClickHousePart
from broker.embedded.kafka_part import KafkaPart
from broker.embedded.model_part import ModelPart
from broker.embedded.part import HOST, Part, PartError
from broker.embedded.probe import port_is_free
from broker.embedded.redis_part import RedisPart
from broker.embedded.status import StatusPage
from broker.embedded.supervisor import Event, KeptPart, KeptProgram, Program

PORTS: Final[dict[str, int]] = {"status": 0, "kafka": 1, "redis": 2, "model": 3, "clickhouse": 4, "programs": 10}
"""Distance of each port from the first one; programs take as many as there are, from theirs on."""

GRACE_S: Final = 5.0
"""What a program gets beyond its own drain before it is killed."""

SINK_GRACE_S: Final = 30.0
"""The sink writes what it has read before it ends."""

WORKER: Final = "worker-"
"""Head of the names of worker programs."""

Prepare = Callable[[Settings], Awaitable[None]]
"""Makes topics and tables once the servers answer; given settings that name every server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to start, and where. `config` is the file the programs load; None when there is none."""

    settings: Settings
    config: Path | None
    folder: Path
    """Data, logs, lock and run file: `.broker` of the current folder."""
    port_base: int
    with_model: bool = True


class Stack:
    """`async with Stack(plan, prepare=…, tell=…) as stack`: everything answers inside the block and is gone after it.

    Start it on the main thread. `tell` hears of every start, unexpected end and restart.
    """

    def __init__(self, plan: Plan, *, prepare: Prepare, tell: Event) -> None:
        self._plan = plan
        self._prepare = prepare
        self._tell = tell
        self._parts: list[KeptPart] = []
        self._programs: list[KeptProgram] = []
        self._resources = AsyncExitStack()
        self.started = False
        """Whether everything answers; false again once it stops."""
        self.settings = plan.settings
        """The given settings; once started, with the addresses of the embedded parts."""
        self.addresses: dict[str, str] = {}
        """What listens where, once started: `health`, `kafka`, `redis`, `model`, `clickhouse`, programs by name."""

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._resources.aclose()
            raise
        self.started = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._resources.aclose()

    def kill(self) -> None:
        """End the programs at once instead of waiting until they drained; the stop that runs goes on from there."""
        self._tell("killed", {})
        for kept in self._programs:
            kept.kill()

    def pids(self) -> dict[str, int]:
        """Return the process number of everything that runs, by name."""
        return {kept.part.name: kept.part.pid for kept in self._parts} | {
            kept.program.name: kept.pid for kept in self._programs
        }

    def port(self, name: str) -> int:
        """Port of an entry of `PORTS`."""
        return self._plan.port_base + PORTS[name]

    async def _start(self) -> None:
        plan = self._plan
        self._resources.enter_context(runfile.Lock(plan.folder))
        runfile.remove(plan.folder)
        programs = self._plan_programs()
        self._check_ports(programs)
        await self._start_parts()
        await self._prepare(self.settings)
        self._resources.push_async_callback(self._stop_programs)
        self._programs += [KeptProgram(self._with_environment(program), self._tell) for program in programs]
        for kept in self._programs:
            await kept.ready()
            kept.keep()
            self.addresses[kept.program.name] = f"http://{HOST}:{kept.program.port}"
        await self._resources.enter_async_context(StatusPage(self._members).serving(self.port("status")))
        self.addresses = {"health": f"http://{HOST}:{self.port('status')}", **self.addresses}
        self._resources.callback(runfile.remove, plan.folder)
        runfile.write(plan.folder, self._run_file())

    def _check_ports(self, programs: Sequence[Program]) -> None:
        """Name a port in use before anything has started; a part names its own."""
        taken = {"the status page": self.port("status")} | {program.name: program.port for program in programs}
        for name, port in taken.items():
            if not port_is_free(port, HOST):
                raise PartError(
                    f"{name}: port {port} on {HOST} is in use; stop what listens there, or choose other ports with "
                    "--port-base"
                )

    def _needed(self) -> list[Part]:
        settings = self.settings
        parts: list[Part] = []
        if settings.kafka.bootstrap_servers is None:
            parts.append(KafkaPart())
        if settings.redis.url is None:
            parts.append(RedisPart())
        if settings.clickhouse.dsn is None:
            parts.append(ClickHousePart())
        if self._plan.with_model:
            parts.append(ModelPart())
        return parts

    async def _start_parts(self) -> None:
        # Before the start, so that parts which did start are stopped when a later one fails.
        self._resources.push_async_callback(self._stop_parts)
        for part in self._needed():
            kept = KeptPart(part, self._plan.folder, self.port(part.name), self._tell)
            self._parts.append(kept)
            self.addresses[part.name] = await kept.start()
        self.settings = runfile.with_addresses(self.settings, self.addresses)

    async def _stop_parts(self) -> None:
        await asyncio.gather(*(kept.stop() for kept in self._parts))

    async def _stop_programs(self) -> None:
        """Stop the workers, all at once; then the relay, then the sink, which writes the workers' last events."""
        workers = [kept for kept in self._programs if kept.program.name.startswith(WORKER)]
        others = [kept for kept in self._programs if kept not in workers]
        await asyncio.gather(*(kept.stop() for kept in workers))
        for kept in reversed(others):
            await kept.stop()

    def _plan_programs(self) -> list[Program]:
        pools = [pool for pool in self.settings.pools.values() if self._serves_something(pool)]
        rows = [("sink", ["sink"], SINK_GRACE_S), ("relay", ["relay"], SINK_GRACE_S)]
        for pool in pools:
            arguments = ["worker", "--pool", pool.name, "--processes", "1"]
            grace = pool.drain_seconds + GRACE_S
            names = [f"{WORKER}{pool.name}-{index}" for index in range(pool.processes)]
            rows += [(name, arguments, grace) for name in names]
        return [
            Program(
                name=name,
                command=[
                    *(sys.executable, "-m", "broker", *arguments, "--port", str(self.port("programs") + index)),
                    *self._instance(name),
                ],
                port=self.port("programs") + index,
                log=self._plan.folder / f"{name}.log",
                env={},
                grace=grace,
            )
            for index, (name, arguments, grace) in enumerate(rows)
        ]

    def _instance(self, name: str) -> list[str]:
        # The embedded log never notices that a member died: one started again has to come back under its own name.
        return ["--instance", name] if self._plan.settings.kafka.bootstrap_servers is None else []

    def _serves_something(self, pool: Pool) -> bool:
        aliases = self.settings.aliases
        return bool(aliases) and ("*" in pool.aliases or any(alias in aliases for alias in pool.aliases))

    def _with_environment(self, program: Program) -> Program:
        settings = self.settings
        env = {} if self._plan.config is None else {"BROKER_CONFIG": str(self._plan.config.resolve())}
        if settings.kafka.bootstrap_servers is not None:
            env["BROKER_KAFKA_BOOTSTRAP_SERVERS"] = settings.kafka.bootstrap_servers
        for name, secret in (
            ("BROKER_REDIS_URL", settings.redis.url),
            ("BROKER_CLICKHOUSE_DSN", settings.clickhouse.dsn),
        ):
            if secret is not None:
                env[name] = secret.get_secret_value()
        if settings.signing_key is None:
            env["BROKER_SIGNING_KEY"] = runfile.signing_key(self._plan.folder)
        return replace(program, env=env)

    def _members(self) -> tuple[list[Part], list[Program]]:
        return [kept.part for kept in self._parts], [kept.program for kept in self._programs]

    def _run_file(self) -> dict[str, Any]:
        embedded = {kept.part.name: kept.part.address() for kept in self._parts}
        config = None if self._plan.config is None else str(self._plan.config.resolve())
        drawn = self.settings.signing_key is None
        key = str((self._plan.folder / runfile.KEY_FILE).resolve()) if drawn else None
        return {"config": config, "signing_key_file": key, "health": self.addresses["health"], **embedded}
