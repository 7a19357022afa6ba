"""Commands of the product as child processes of a test, and the configuration files they read."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

PATIENCE = 60.0


def write_config(
    folder: Path, *, bootstrap: str, redis_url: str, prefix: str, models: dict[str, str], **more: Any
) -> Path:
    """Write a configuration whose aliases each have one deployment on the upstream given; returns its path."""
    path = folder / "broker.yaml"
    content = {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {"model": f"openai/{name}-0", "api_base": url, "api_key": "sk-upstream-secret"},
            }
            for name, url in models.items()
        ],
        "general_settings": {"signing_key": "test-signing-key"},
        "kafka": {"bootstrap_servers": bootstrap, "topic_prefix": prefix},
        "redis": {"url": redis_url, "lease_seconds": 3},
        **more,
    }
    path.write_text(yaml.safe_dump(content))
    return path


@asynccontextmanager
async def running(*arguments: str, log: Path, cwd: Path | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `broker …` until the context ends; it is then told to stop, and killed if it does not listen."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "broker", *arguments, stdout=output, stderr=output, cwd=cwd
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), PATIENCE)
            except TimeoutError:
                process.kill()
                await process.wait()


@asynccontextmanager
async def upstream_process(*arguments: str) -> AsyncIterator[str]:
    """Run the scripted upstream as a process of its own; yields its base URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.upstream", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
        yield str(json.loads(line)["url"])
    finally:
        process.kill()
        await process.wait()


async def run(*arguments: str, cwd: Path | None = None, expect: int = 0) -> str:
    """Run `broker …` to its end, check its exit code and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "broker",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == expect, f"{' '.join(arguments)}: {process.returncode}\n{out.decode()}\n{err.decode()}"
    return out.decode()
