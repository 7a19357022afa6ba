"""What every embedded part shares: a folder of data, a port, a child process, readiness, and errors in one line."""

import asyncio
import errno
import shutil
import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from broker.embedded.probe import Probe, port_is_free
from broker.embedded.process import Child
from broker.errors import BrokerError

HOST: Final = "127.0.0.1"
"""Embedded parts have no passwords, so they listen nowhere else."""

LEAST_FREE_BYTES: Final = 200 << 20
"""Below this the parts would start and then fail at their first larger write."""

POLL_S: Final = 0.03
"""Between two questions whether a part is ready."""


class PartError(BrokerError):
    """A part could not be started; the message is one line that names the part and what to do."""


def package_folder(package: str, *, part: str, needs: str | None = None) -> Path:
    """Return the folder of an installed package without importing it; raises `PartError` naming what to install."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise PartError(
            f"{part}: the package {needs or package} is not installed; run `make install`, "
            "or configure a real server (there are wheels for Linux x86-64 and arm64 and for macOS)"
        )
    return Path(spec.submodule_search_locations[0])


def make_folder(folder: Path, *, part: str) -> None:
    """Make a data folder; raises `PartError` where it cannot be written or the disk is full."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise PartError(f"{part}: cannot write {folder}: {reason}") from error
    if free < LEAST_FREE_BYTES:
        raise PartError(
            f"{part}: only {free >> 20} MB are free on the disk of {folder}; "
            f"make room for at least {LEAST_FREE_BYTES >> 20} MB"
        )


class Part:
    """One embedded server. Start it on the main thread; `async with` of a started part stops it at the end."""

    name: ClassVar[str]
    grace: ClassVar[float] = 10.0
    """Seconds it gets to save its data after SIGTERM."""
    patience: ClassVar[float] = 60.0
    """Seconds it gets to become ready."""
    end_with: ClassVar[signal.Signals] = signal.SIGTERM
    """What it is sent when this process is killed; SIGTERM lets it save its data."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self.port = 0

    def command(self, folder: Path, port: int) -> Sequence[str]:
        """Return the program and its arguments; raises `PartError` when what it needs is not installed."""
        raise NotImplementedError

    def address(self) -> str:
        """What clients are given to reach it."""
        return f"{HOST}:{self.port}"

    @property
    def probe(self) -> Probe:
        """The question that tells whether it serves."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """Process number of the running part."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.exit_code() is None

    async def start(self, data_dir: Path, port: int) -> str:
        """Start it with its data in `data_dir/name` and its log in `data_dir/name.log`, and wait until it serves.

        Returns its address. Raises `PartError`, one line naming the part and what to do: port in use, disk full,
        package missing, or the last line of its log when it ends or stays silent.
        """
        folder = data_dir / self.name
        make_folder(folder, part=self.name)
        if not port_is_free(port, HOST):
            raise PartError(
                f"{self.name}: port {port} on {HOST} is in use; stop what listens there, or choose other ports with "
                "--port-base"
            )
        command = self.command(folder, port)
        self.port = port
        self._child = Child(command, log=data_dir / f"{self.name}.log", end_with=self.end_with)
        try:
            await self._ready()
        except BaseException:
            await self.stop()
            raise
        return self.address()

    async def _ready(self) -> None:
        child = self._running()
        deadline = asyncio.get_running_loop().time() + self.patience
        while not await self.serves():
            code = child.exit_code()
            if code is not None:
                raise PartError(f"{self.name}: ended with code {code}: {self.why()}")
            if asyncio.get_running_loop().time() > deadline:
                raise PartError(f"{self.name}: not ready after {self.patience:g} s (log: {child.log})")
            await asyncio.sleep(POLL_S)

    async def serves(self) -> bool:
        """Whether it answers its probe now."""
        try:
            async with asyncio.timeout(2.0):
                return await self.probe(HOST, self.port)
        except (OSError, EOFError, TimeoutError):
            return False

    async def ended(self) -> None:
        """Wait until its process has ended."""
        await self._running().wait(poll=0.2)

    def why(self) -> str:
        """Return the last line of its log, and where the log is."""
        child = self._running()
        return f"{child.last_line()} (log: {child.log})"

    async def stop(self) -> None:
        """Stop it and wait until it is gone. Safe to call again, and before a start."""
        if self._child is not None:
            await self._child.stop(self.grace)

    def _running(self) -> Child:
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._child

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
