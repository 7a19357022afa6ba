"""Keeps programs running: starts each, starts it again when it ends, and ends all of them in order."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker.embedded.part import HOST, POLL_S, Part, PartError
from broker.embedded.probe import http_status
from broker.embedded.process import Child

Event = Callable[[str, dict[str, Any]], None]
"""Told of everything that happens: the event's name and its fields, ready for JSON."""

FIRST_RESTART_S: Final = 0.5
LAST_RESTART_S: Final = 15.0
STEADY_S: Final = 30.0
"""A program that ran this long starts again after the first pause, not the next longer one."""

READY_S: Final = 60.0
"""How long a program may take until it is ready for the first time."""

OK: Final = 200


@dataclass(frozen=True, slots=True)
class Program:
    """One of our own processes: it serves /health, /ready and /metrics on `port`."""

    name: str
    command: Sequence[str]
    port: int
    log: Path
    env: dict[str, str]
    grace: float
    """Seconds it may drain after SIGTERM."""

    async def status(self, path: str) -> int:
        """Return the HTTP status its own page answers now; 0 when it does not answer within 2 s."""
        try:
            async with asyncio.timeout(2.0):
                return await http_status(HOST, self.port, path)
        except (OSError, EOFError, TimeoutError):
            return 0


class Pause:
    """How long to wait before the next start: doubled each time, from the first again after a steady run."""

    def __init__(self) -> None:
        self._next = FIRST_RESTART_S

    def after(self, lived: float) -> float:
        """Return the pause in seconds after a run of `lived` seconds."""
        if lived >= STEADY_S:
            self._next = FIRST_RESTART_S
        pause = self._next
        self._next = min(LAST_RESTART_S, pause * 2)
        return pause


class KeptProgram:
    """A program that is started again whenever it ends."""

    def __init__(self, program: Program, tell: Event) -> None:
        self.program = program
        self._tell = tell
        self._child = self._spawn()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Process number of the current run."""
        return self._child.pid

    def _spawn(self) -> Child:
        child = Child(self.program.command, log=self.program.log, env=self.program.env)
        self._tell("started", {"name": self.program.name, "pid": child.pid, "port": self.program.port})
        return child

    async def ready(self) -> None:
        """Wait for its first readiness; raises `PartError` when it ends before, or is not ready in time."""
        deadline = asyncio.get_running_loop().time() + READY_S
        while await self.program.status("/ready") != OK:
            code = self._child.exit_code()
            if code is not None:
                raise PartError(f"{self.program.name} ended with code {code}: {self._why()}")
            if asyncio.get_running_loop().time() > deadline:
                raise PartError(f"{self.program.name}: not ready after {READY_S:g} s (log: {self.program.log})")
            await asyncio.sleep(POLL_S)

    def keep(self) -> None:
        """From now on start it again whenever it ends."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        pause = Pause()
        while True:
            began = loop.time()
            code = await self._child.wait(poll=0.2)
            seconds = pause.after(loop.time() - began)
            self._tell("ended", {"name": self.program.name, "code": code, "why": self._why(), "restart_in_s": seconds})
            await asyncio.sleep(seconds)
            self._child = self._spawn()

    def _why(self) -> str:
        return f"{self._child.last_line()} (log: {self.program.log})"

    async def stop(self) -> None:
        """End it, after it drained, and do not start it again."""
        await _end(self._keeper)
        await self._child.stop(self.program.grace)

    def kill(self) -> None:
        """End it now; a `stop` that waits for it returns."""
        if self._keeper is not None:
            self._keeper.cancel()
        self._child.kill()


class KeptPart:
    """An embedded part that is started again, on its port and its data, whenever it ends."""

    def __init__(self, part: Part, data_dir: Path, port: int, tell: Event) -> None:
        self.part = part
        self._data_dir = data_dir
        self._port = port
        self._tell = tell
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Start it and keep it running; raises `PartError`, returns its address."""
        address = await self.part.start(self._data_dir, self._port)
        self._tell("started", {"name": self.part.name, "pid": self.part.pid, "address": address})
        self._keeper = asyncio.get_running_loop().create_task(self._keep())
        return address

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        pause = Pause()
        began = loop.time()
        while True:
            await self.part.ended()
            seconds = pause.after(loop.time() - began)
            self._tell("ended", {"name": self.part.name, "why": self.part.why(), "restart_in_s": seconds})
            await asyncio.sleep(seconds)
            began = loop.time()
            try:
                await self.part.start(self._data_dir, self._port)
            except PartError as error:
                self._tell("failed", {"name": self.part.name, "why": str(error)})
            else:
                self._tell("started", {"name": self.part.name, "pid": self.part.pid, "address": self.part.address()})

    async def stop(self) -> None:
        """Stop it, after it saved its data, and do not start it again."""
        await _end(self._keeper)
        await self.part.stop()


async def _end(keeper: asyncio.Task[None] | None) -> None:
    """End a keeper, so that what ends next is not started again."""
    if keeper is not None:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
