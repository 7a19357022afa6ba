"""One run of the bench: a fresh log with the requests already in it, one contender, and what it took to serve them."""

import asyncio
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import yaml

from broker.adapters.kafka import KafkaProducer, KafkaReader
from broker.adapters.kafka_admin import KafkaAdmin
from broker.config import Kafka
from broker.embedded.kafka_part import KafkaPart
from broker.embedded.probe import free_port
from broker.envelope import NewRequest, encode_request, read_reply
from broker.topics import TopicNames, TopicSpec, topic_specs

ALIAS = "bench"
NAMES = TopicNames()
SAMPLE_SECONDS = 0.05
STUCK_SECONDS = 60.0
SEND_RECORDS = 2_000
BODY = orjson.dumps(
    {"model": ALIAS, "messages": [{"role": "user", "content": "All work and no play. " * 22}], "temperature": 0}
)
"""About 500 bytes, as in speed.md."""
PROC = Path("/proc")


@dataclass(frozen=True)
class Scenario:
    """What a contender has to do: `requests` of them at an upstream that answers after `delay` seconds."""

    name: str
    title: str
    delay: float
    in_flight: int
    requests: int


@dataclass(frozen=True)
class Stand:
    """What both contenders use. Without `bootstrap` every run gets an embedded log of its own."""

    upstream: str
    redis: str
    bootstrap: str | None


@dataclass(frozen=True)
class Figures:
    """What a run took. CPU is of the contender's process, µs a request; memory its peak in MB; None where not Linux."""

    rate: float
    cpu_us: float | None
    rss_mb: float | None


class RunError(Exception):
    """A run that did not serve every request once; the message holds the end of the contender's log."""


@asynccontextmanager
async def child(*command: str, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process of this project and stop it at the end."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=output
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
                await process.wait()


@asynccontextmanager
async def upstream(delay: float, folder: Path) -> AsyncIterator[str]:
    """Run the stub; gives its base URL."""
    async with child("-m", "tests.bench.stub", "--delay", str(delay), log=folder / "stub.log") as process:
        assert process.stdout is not None
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
        yield ready["url"]


@asynccontextmanager
async def fresh_log(folder: Path, bootstrap: str | None) -> AsyncIterator[str]:
    """Start an embedded log with nothing in it, or use the servers given. A log that fills up would slow later runs."""
    if bootstrap:
        yield bootstrap
        return
    part = KafkaPart()
    address = await part.start(folder, free_port())
    try:
        yield address
    finally:
        os.kill(part.pid, signal.SIGKILL)  # what it would save first is of no use to anybody
        await part.stop()


async def preload(kafka: Kafka, names: TopicNames, count: int) -> None:
    """Make the topics and write the requests."""
    admin, producer = KafkaAdmin(kafka), KafkaProducer(kafka)
    await admin.start()
    for spec in topic_specs(names, [ALIAS]):
        partitions = 1 if spec.name == names.replies else spec.partitions
        await admin.create(TopicSpec(spec.name, partitions, spec.settings), replication_factor=1)
    await admin.stop()
    await producer.start()
    run = uuid.uuid4().hex[:8]  # the journal remembers the requests of earlier runs
    requests = [
        encode_request(
            NewRequest(alias=ALIAS, body=BODY, request_id=f"{run}-{number}", reply_to=names.replies, reply_partition=0),
            names,
        )
        for number in range(count)
    ]
    for start in range(0, count, SEND_RECORDS):
        failures = [failure for failure in await producer.send_all(requests[start : start + SEND_RECORDS]) if failure]
        if failures:
            raise RunError(f"the requests could not be written: {failures[0].reason}")
    await producer.stop()


def bare_command(kafka: Kafka, scenario: Scenario, stand: Stand, folder: Path) -> list[str]:
    """Command line of the bare pipeline."""
    del folder
    names = TopicNames(kafka.topic_prefix)
    options = {
        "bootstrap": str(kafka.bootstrap_servers),
        "requests": names.requests(ALIAS),
        "replies": names.replies,
        "upstream": stand.upstream,
        "group": names.group("bare"),
        "in-flight": str(scenario.in_flight),
    }
    return ["-m", "tests.bench.bare", *(word for name, value in options.items() for word in (f"--{name}", value))]


def product_command(kafka: Kafka, scenario: Scenario, stand: Stand, folder: Path) -> list[str]:
    """Command line of one worker process with a priced deployment and no limits."""
    params = {"model": "openai/gpt-4o-mini", "api_base": stand.upstream, "api_key": "sk-bench"}
    config = {
        "model_list": [{"model_name": ALIAS, "litellm_params": params}],
        "general_settings": {"signing_key": "bench"},
        "kafka": {"bootstrap_servers": kafka.bootstrap_servers, "topic_prefix": kafka.topic_prefix},
        "redis": {"url": stand.redis},
        "workers": {"pools": {"default": {"in_flight": scenario.in_flight, "drain_seconds": 5}}},
    }
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(config))
    return [
        "-m", "broker", "worker", "--config", str(path), "--processes", "1", "--port", str(free_port()),
        "--log-level", "warning",
    ]  # fmt: skip


CONTENDERS = {"bare": bare_command, "product": product_command}


def cpu_seconds(pid: int) -> float | None:
    """User and system time of a process so far."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float | None:
    """Peak resident memory of a process."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


@dataclass
class _Sample:
    count: int
    cpu: float | None


def tail(log: Path) -> str:
    """The end of a contender's log."""
    return log.read_text(errors="replace")[-2000:]


async def watch(
    reader: KafkaReader, names: TopicNames, process: asyncio.subprocess.Process, requests: int, log: Path
) -> tuple[list[_Sample], float | None]:
    """Sample the process from its first reply to its last; returns the samples and its peak memory."""
    samples: list[_Sample] = []
    last, moved = 0, time.monotonic()
    while last < requests:
        await asyncio.sleep(SAMPLE_SECONDS)
        count = sum(end for _, end in (await reader.bounds(names.replies)).values())
        if count:
            samples.append(_Sample(count, cpu_seconds(process.pid)))
        if count > last:
            last, moved = count, time.monotonic()
        if process.returncode is not None or time.monotonic() - moved > STUCK_SECONDS:
            raise RunError(f"{last} of {requests} replies came\n{tail(log)}")
    return samples, peak_mb(process.pid)


async def replied_at(reader: KafkaReader, names: TopicNames, requests: int) -> tuple[int, int]:
    """Unix milliseconds of the first and the last reply; fails unless every request was answered once, with 200."""
    await reader.assign({place: first for place, (first, _) in (await reader.bounds(names.replies)).items()})
    ids: set[str] = set()
    first, last, read = 1 << 62, 0, 0
    while read < requests:
        for record in await reader.poll(max_records=5_000, timeout=5):
            reply = read_reply(record)
            if reply is None or not reply.final or reply.status != 200:
                raise RunError(f"a reply that is none: {record.headers} {(record.value or b'')[:300]!r}")
            read += 1
            ids.add(reply.request_id)
            first, last = min(first, record.timestamp), max(last, record.timestamp)
    if len(ids) != requests:
        raise RunError(f"{requests - len(ids)} requests were answered twice and as many not at all")
    return first, last


async def run(contender: str, scenario: Scenario, stand: Stand, folder: Path) -> Figures:
    """Serve a scenario once with one contender; what it leaves behind is in `folder`. Raises `RunError`."""
    names = TopicNames(f"{folder.parent.name}.{folder.name}.") if stand.bootstrap else NAMES
    async with fresh_log(folder, stand.bootstrap) as address:
        kafka = Kafka(bootstrap_servers=address, topic_prefix=names.prefix)
        await preload(kafka, names, scenario.requests)
        reader = KafkaReader(kafka)
        await reader.start()
        log = folder / "contender.log"
        command = CONTENDERS[contender](kafka, scenario, stand, folder)
        try:
            async with child(*command, log=log) as process:
                samples, rss = await watch(reader, names, process, scenario.requests, log)
            first, last = await replied_at(reader, names, scenario.requests)
        finally:
            await reader.stop()
    # The first reply came `delay` after the first call, and nothing was served before that.
    seconds = (last - first) / 1000 + scenario.delay
    return Figures(rate=scenario.requests / seconds, cpu_us=_cpu_us(samples), rss_mb=rss)


def _cpu_us(samples: list[_Sample]) -> float | None:
    """CPU a request between the first and the last sample: what starting took is not in it."""
    first, last = samples[0], samples[-1]
    if first.cpu is None or last.cpu is None or last.count == first.count:
        return None
    return (last.cpu - first.cpu) * 1e6 / (last.count - first.count)
