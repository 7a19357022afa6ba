"""One child process: its log file, its end when the parent ends, and a stop that always succeeds."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

TAIL_BYTES: Final = 4096
"""How much of a log's end is read for its last line."""

HARMLESS: Final = ("weak version `GLIBC",)
"""Lines of a log that are never the reason of a failure: the loader's note on a symbol the binary can do without."""

LAUNCHER: Final = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, int(sys.argv[1]))\n"  # PR_SET_PDEATHSIG is 1 and outlives execv
    "if os.getppid() != int(sys.argv[2]): sys.exit(0)\n"  # the parent died before the line above
    "os.execvp(sys.argv[3], sys.argv[3:])\n"
)
"""Ties a program's life to its parent's, then becomes the program. A fork hook would do the same, but is unsafe with
threads."""


def tied_to_parent(command: Sequence[str], end_with: signal.Signals) -> list[str]:
    """Return `command` so that the kernel sends it `end_with` when this process dies, where the kernel can (Linux).

    The tie is to the calling thread: call from the main thread.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", LAUNCHER, str(int(end_with)), str(os.getpid()), *command]


class Child:
    """A running child process. It writes to `log`, leads a process group of its own, and so hears no Ctrl-C."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        end_with: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Start `command`; `env` is added to this process's environment, `end_with` is sent when this process dies."""
        self.log = log
        with log.open("ab") as sink:
            self._popen = subprocess.Popen(  # noqa: S603 - the commands are our own
                tied_to_parent(command, end_with),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The operating system's number of the process."""
        return self._popen.pid

    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; one that comes too late is no error."""
        self._popen.send_signal(number)

    async def wait(self, timeout: float | None = None, *, poll: float = 0.02) -> int | None:
        """Return the exit code, or None when it still runs after `timeout` seconds; looks every `poll` seconds."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while (code := self.exit_code()) is None:
            if deadline is not None and loop.time() >= deadline:
                return None
            await asyncio.sleep(poll)
        return code

    async def stop(self, grace: float) -> None:
        """End it: SIGTERM, and SIGKILL when it still runs after `grace` seconds. Safe to call again."""
        if self.exit_code() is None:
            self.signal(signal.SIGTERM)
            if await self.wait(grace) is None:
                self.kill()
                await self.wait()

    def kill(self) -> None:
        """End it at once; one that has ended is no error."""
        self._popen.kill()

    def last_line(self) -> str:
        """Last line of the log that says anything; empty when there is none."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
            said = [line.strip() for line in lines if line.strip() and not any(note in line for note in HARMLESS)]
            # A program that follows its error with a hint means the error.
            errors = [line for line in said if line.startswith("error:")]
            return (errors or said or [""])[-1]
        return ""
