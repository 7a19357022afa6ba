"""The worker as a process: stopped, killed, and with two thousand calls in flight."""

import asyncio
import signal
from pathlib import Path

import httpx
import pytest

from tests.processes import running, upstream_process, write_config
from tests.serving import alias, calling, eventually, make_topics, settings_of
from tests.upstream import Ok, Upstream

pytestmark = pytest.mark.embedded

REQUESTS = 300


async def test_two_thousand_calls_of_one_second_are_in_flight_at_once_in_one_process(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str, tmp_path: Path
) -> None:
    async with upstream_process("--delay", "1") as url:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("slow", url))
        await make_topics(settings, partitions=12)
        config = write_config(
            tmp_path,
            bootstrap=kafka_bootstrap,
            redis_url=redis_url,
            prefix=unique_prefix,
            models={"slow": url},
            workers={"pools": {"default": {"in_flight": 2_500}}},
        )
        async with calling(settings) as caller:
            requests = await asyncio.gather(*(caller.publish("slow") for _ in range(2_000)))
            arguments = ("worker", "--config", str(config), "--port", "0", "--processes", "1")
            async with running(*arguments, log=tmp_path / "worker.log"):
                replies = await caller.replies(*requests)
        async with httpx.AsyncClient() as http:
            stats = (await http.get(url.removesuffix("/v1") + "/-/stats")).json()
    assert {reply.status for reply in replies} == {200}
    assert stats["calls"] == 2_000
    assert stats["peak"] >= 1_900


async def test_sigterm_finishes_running_calls_and_the_next_worker_does_the_rest_once(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str, tmp_path: Path
) -> None:
    with Upstream(default=Ok(delay=0.2)) as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("slow", up.url))
        await make_topics(settings)
        config = write_config(
            tmp_path,
            bootstrap=kafka_bootstrap,
            redis_url=redis_url,
            prefix=unique_prefix,
            models={"slow": up.url},
            workers={"pools": {"default": {"in_flight": 20}}},
        )
        arguments = ("worker", "--config", str(config), "--port", "0")
        async with calling(settings) as caller:
            requests = await asyncio.gather(*(caller.publish("slow") for _ in range(REQUESTS)))
            async with running(*arguments, log=tmp_path / "first.log") as first:
                await _calls(up, 60)
                first.send_signal(signal.SIGTERM)
                code = await asyncio.wait_for(first.wait(), 30)
            made = len(up.calls)
            async with running(*arguments, log=tmp_path / "second.log"):
                replies = await caller.replies(*requests)
    assert code == 0
    assert 60 <= made < REQUESTS
    assert {reply.status for reply in replies} == {200}
    assert len(up.calls) == REQUESTS


async def test_sigkill_loses_nothing_and_repeats_only_what_was_in_flight(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str, tmp_path: Path
) -> None:
    with Upstream(default=Ok(delay=0.2)) as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("slow", up.url))
        await make_topics(settings)
        config = write_config(
            tmp_path,
            bootstrap=kafka_bootstrap,
            redis_url=redis_url,
            prefix=unique_prefix,
            models={"slow": up.url},
            workers={"pools": {"default": {"in_flight": 20, "commit_interval": 0.1}}},
        )
        arguments = ("worker", "--config", str(config), "--port", "0", "--instance", "one")
        async with calling(settings) as caller:
            requests = await asyncio.gather(*(caller.publish("slow") for _ in range(REQUESTS)))
            async with running(*arguments, log=tmp_path / "first.log") as first:
                await _calls(up, 100)
                first.kill()
                await first.wait()
            async with running(*arguments, log=tmp_path / "second.log"):
                replies = await caller.replies(*requests)
    assert {reply.status for reply in replies} == {200}
    # Those in flight at the kill, and those of the wave before whose outcome had not been stored yet (a few ms).
    assert len(up.calls) - REQUESTS <= 2 * 20


async def _calls(up: Upstream, count: int) -> None:
    await eventually(lambda: len(up.calls) >= count, f"{count} calls are made")
