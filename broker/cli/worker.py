"""`broker worker`: serve requests of a pool, in one process or several."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from broker.cli.common import load_settings, process_options, run_async
from broker.config import Pool, Settings
from broker.errors import ConfigError
from broker.logs import setup

log = logging.getLogger(__name__)

RESTART_SECONDS: Final = 1.0
WRONG_USE: Final = 2
"""Exit code of a configuration that cannot be used: starting again would not help."""


@click.command()
@process_options(4010)
@click.option("--pool", default="default", show_default=True, help="Pool of the configuration to serve.")
@click.option(
    "--processes", type=click.IntRange(1, 256), default=None, help="How many; the pool's own number if absent."
)
def command(
    config: Path | None,
    pool: str,
    processes: int | None,
    instance: str | None,
    host: str | None,
    port: int,
    log_level: str,
) -> None:
    """Serve requests of a pool until SIGTERM or Ctrl-C.

    Running calls are finished first; a second signal cuts them off.
    """
    setup(level=log_level)
    settings = load_settings(config)
    chosen = settings.pools.get(pool)
    if chosen is None:
        raise ConfigError(f"workers.pools: no pool is named {pool}; there are: {', '.join(sorted(settings.pools))}")
    for key in settings.unacted:
        log.warning("%s is understood but not acted on yet", key)
    count = processes or chosen.processes
    if count == 1:
        run_async(_serve(settings, chosen, host or settings.server.host, port, instance))
        return
    arguments = ["--pool", pool, "--processes", "1", "--log-level", log_level]
    arguments += ["--config", str(config)] if config is not None else []
    arguments += ["--host", host] if host is not None else []
    sys.exit(run_async(_supervise(count, port, instance, arguments)))


async def _serve(settings: Settings, pool: Pool, host: str, port: int, instance: str | None) -> None:
    from workers.pool import run_worker  # noqa: PLC0415 - the core does not import workers; its commands join both

    stop = asyncio.Event()
    _on_signals(stop.set)
    await run_worker(settings, pool, host=host, port=port, stop=stop, instance=instance)


def _on_signals(action: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, action)


async def _supervise(count: int, port: int, instance: str | None, arguments: list[str]) -> int:
    """Run `count` worker processes, start again one that dies, pass signals on; return the worst exit code."""
    stopping = asyncio.Event()
    children: dict[int, asyncio.subprocess.Process] = {}

    def stop() -> None:
        stopping.set()
        for child in children.values():
            if child.returncode is None:
                child.terminate()

    _on_signals(stop)

    async def keep(index: int) -> int:
        while True:
            own = ["--port", str(port + index if port else 0)]
            own += ["--instance", f"{instance}-{index}"] if instance is not None else []
            child = await asyncio.create_subprocess_exec(sys.executable, "-m", "broker", "worker", *arguments, *own)
            children[index] = child
            code = await child.wait()
            if stopping.is_set() or code == WRONG_USE:
                return code
            log.warning("worker process %d ended with %d; starting it again", index, code)
            await asyncio.sleep(RESTART_SECONDS)

    codes = await asyncio.gather(*(keep(index) for index in range(count)))
    return max(abs(code) for code in codes)
