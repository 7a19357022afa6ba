"""A worker process on twins: a log, a journal and a provider in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from pydantic import SecretStr

from broker.adapters.memory_journal import MemoryJournal
from broker.adapters.memory_log import MemoryAdmin, MemoryConsumer, MemoryLog, MemoryProducer, MemoryReader
from broker.clock import SystemClock
from broker.config import Alias, Deployment, Pool, Settings
from broker.envelope import NewRequest, Reply, encode_request, read_reply
from broker.records import OutRecord, Partition, Record
from broker.topics import TopicNames, topic_specs
from workers.pool import Parts, WorkerProcess
from workers.providers.base import Call, CallResult, OnChunk, Usage

BODY = orjson.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}]})
PATIENCE = 10.0

Step = Callable[[Call], CallResult]


class ScriptedProvider:
    """Answers every call at once, unless `answer` raises or `hold` is set."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.errors: list[Exception] = []
        self.hold: asyncio.Event | None = None
        self.closed = False

    async def call(self, call: Call, on_chunk: OnChunk | None = None) -> CallResult:
        del on_chunk
        self.calls.append(call)
        if self.errors:
            raise self.errors.pop(0)
        if self.hold is not None:
            await self.hold.wait()
        return CallResult(BODY, "model", Usage(3, 0, 0, 2))

    async def close(self) -> None:
        self.closed = True


class World:
    """The log, journal and provider that worker processes of one test share."""

    def __init__(self, *aliases: Alias, **settings: Any) -> None:
        self.settings = Settings(
            aliases={alias.name: alias for alias in aliases}, signing_key=SecretStr("test-key"), **settings
        )
        self.names = TopicNames()
        self.log = MemoryLog({spec.name: 1 for spec in topic_specs(self.names, list(self.settings.aliases))})
        self.clock = SystemClock()
        self.journal = MemoryJournal(clock=self.clock)
        self.provider = ScriptedProvider()
        self.producer = MemoryProducer(self.log)

    def process(self, pool: Pool) -> WorkerProcess:
        """Return a worker process that has not started."""
        parts = Parts(
            consumer=MemoryConsumer(self.log, self.names.group(pool.name)),
            producer=MemoryProducer(self.log),
            reader=MemoryReader(self.log),
            admin=MemoryAdmin(self.log),
            journal=self.journal,
            provider=self.provider,
            clock=self.clock,
        )
        return WorkerProcess(self.settings, pool, parts)

    @asynccontextmanager
    async def worker(self, **pool: Any) -> AsyncIterator[WorkerProcess]:
        """Run one worker process."""
        chosen = Pool(**{"name": "default", "in_flight": 50, "drain_seconds": 1.0, "commit_interval": 0.02, **pool})
        process = self.process(chosen)
        await process.start()
        try:
            yield process
        finally:
            await process.stop()

    async def publish(self, alias: str, *request_ids: str, **fields: Any) -> None:
        """Publish chat requests that want their replies."""
        await self.producer.start()
        body = orjson.dumps({"model": alias, "messages": [{"role": "user", "content": "Hello"}], **fields})
        records = [
            encode_request(
                NewRequest(alias=alias, body=body, request_id=each, reply_to=self.names.replies, reply_partition=0),
                self.names,
            )
            for each in request_ids
        ]
        await self.write(*records)

    async def write(self, *records: OutRecord) -> None:
        await self.producer.start()
        assert [failure for failure in await self.producer.send_all(records) if failure is not None] == []

    async def records(self, topic: str, count: int) -> list[Record]:
        """Return the records of partition 0 of `topic` once there are `count`."""
        reader = MemoryReader(self.log)
        await reader.start()
        await reader.assign({Partition(topic, 0): 0})
        found: list[Record] = []
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                found += await reader.poll(max_records=1_000, timeout=0.05)
        await reader.stop()
        return found

    async def replies(self, count: int) -> dict[str, Reply]:
        """Return the final replies by request id once there are `count` records."""
        read = [read_reply(record) for record in await self.records(self.names.replies, count)]
        return {reply.request_id: reply for reply in read if reply is not None and reply.final}

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for an effect that announces itself nowhere."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - the twins have no event for it
                await asyncio.sleep(0.005)


def make_alias(name: str, count: int = 1, **fields: Any) -> Alias:
    """An alias whose deployments nobody calls for real."""
    deployments = tuple(
        Deployment(name=f"{name}/{number}", alias=name, provider="openai", model=f"{name}-{number}")
        for number in range(count)
    )
    return Alias(name=name, deployments=deployments, **fields)
