"""CPU of a provider call: the bare engines against the stub, and what the provider client adds to them.

`python -m tests.bench.provider_calls --calls 20000 --in-flight 256` prints a line per case, medians of `--rounds`.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import uvloop

from broker.config import Deployment
from workers.providers.base import Call
from workers.providers.client import HttpProviderClient
from workers.providers.transport import Engine, make_transport

CHAT: Final = {"model": "alias", "messages": [{"role": "user", "content": "x" * 450}], "temperature": 0.2}
BODY: Final = json.dumps(CHAT).encode()
ENDPOINT: Final = "/v1/chat/completions"
HEADERS: Final = [("content-type", "application/json"), ("authorization", "Bearer sk-of-the-bench")]


async def run(one: Callable[[], Awaitable[object]], calls: int, in_flight: int) -> tuple[float, float]:
    """Return calls per second and CPU microseconds of this process per call."""
    left = iter(range(calls))

    async def work() -> None:
        for _ in left:
            await one()

    await asyncio.gather(*(one() for _ in range(in_flight)))
    before, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return calls / (time.perf_counter() - started), (time.process_time() - before) / calls * 1e6


async def measure(url: str, case: str, calls: int, in_flight: int) -> tuple[float, float]:
    """Measure one case: an engine by its name, or `client`, which is the client on the first engine."""
    engine: Engine = "httpx" if case.startswith("httpx") else "pyreqwest"
    transport = make_transport(in_flight, prefer=engine)
    client = HttpProviderClient(transport)
    deployment = Deployment(
        name="a/0", alias="a", provider="openai", model="m", api_base=url, api_key="sk-of-the-bench"
    )
    call = Call(deployment, ENDPOINT, CHAT, 60.0, "request-id")
    address = url + ENDPOINT.removeprefix("/v1")
    try:
        if "client" in case:
            return await run(lambda: client.call(call), calls, in_flight)
        return await run(lambda: transport.post(address, headers=HEADERS, body=BODY, timeout=60.0), calls, in_flight)
    finally:
        await client.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.stub"], stdout=subprocess.PIPE, env=dict(os.environ)
    ) as stub:
        assert stub.stdout is not None
        url = json.loads(stub.stdout.readline())["url"]
        found: dict[str, list[tuple[float, float]]] = {"pyreqwest": [], "client": [], "httpx": []}
        for _ in range(options.rounds):
            for case, seen in found.items():
                calls = options.calls // 20 if case == "httpx" else options.calls
                seen.append(uvloop.run(measure(url, case, calls, options.in_flight)))
        stub.terminate()
    for case, seen in found.items():
        rate, cpu = (statistics.median(values) for values in zip(*seen, strict=True))
        print(f"{case:12} {rate:8.0f} calls/s {cpu:8.1f} µs CPU a call")  # noqa: T201 - what it is for
    print(f"peak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")  # noqa: T201 - as above


if __name__ == "__main__":
    main()
