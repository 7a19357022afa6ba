"""Runs one worker process until it is told to stop: what a command of the shell starts. A composition root."""

import asyncio
import gc
import logging
import resource
import sys
from typing import Final

from broker.config import Pool, Settings
from broker.edge.health import HealthServer
from workers.pool.parts import Parts
from workers.pool.process import Stuck, WorkerProcess
from workers.watchdog import EXIT_STUCK, LoopGuard

log = logging.getLogger(__name__)

OPEN_FILES: Final = 65_536
CLOSE_SECONDS: Final = 120.0
"""After the drain: publishing, committing, leaving, each with a bound of its own; then the process is ended."""


def _calm_collector() -> None:
    """Let the cyclic collector leave what was imported alone and look at young objects less often.

    Thousands of requests are alive at once and almost none is part of a cycle: 5-10 % of the CPU of a request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def _allow_connections() -> None:
    """Raise the soft limit of open files: each call in flight is a connection, and systems start with 256 or 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def run_worker(  # noqa: PLR0913 - what a process is told
    settings: Settings, pool: Pool, *, host: str, port: int, stop: asyncio.Event, instance: str | None = None
) -> None:
    """Serve until `stop` is set, then drain; set again (cleared by us) it stops at once.

    A process that cannot read any more ends with `EXIT_STUCK`, its calls in flight finished.
    """
    _calm_collector()
    _allow_connections()
    process = WorkerProcess(settings, pool, Parts.real(settings, pool, instance))
    health = HealthServer(host, port, process.metrics.registry, process.ready)
    guard = LoopGuard(process.parts.clock)
    await health.start()
    guard.start()
    try:
        await process.start()
        stopping = asyncio.get_running_loop().create_task(stop.wait())
        serving = asyncio.get_running_loop().create_task(process.wait())
        await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        guard.allow(pool.drain_seconds + CLOSE_SECONDS)
        stop.clear()
        again = asyncio.get_running_loop().create_task(stop.wait())
        draining = asyncio.get_running_loop().create_task(process.stop())
        await asyncio.wait({again, draining}, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            log.warning("stopping at once; running calls are cut off and will be made again")
            process.abort()
        await draining
        for task in (stopping, again):
            task.cancel()
        if serving.done() and (error := serving.exception()) is not None:
            if isinstance(error, Stuck):
                sys.exit(EXIT_STUCK)
            raise error
    finally:
        guard.stop()
        await health.stop()
