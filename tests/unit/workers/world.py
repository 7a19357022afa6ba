"""A worker process on twins: a log, a journal and a provider in memory."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from pydantic import SecretStr

from broker.adapters.memory_callers import MemoryCallerStore
from broker.adapters.memory_journal import MemoryJournal
from broker.adapters.memory_limits import MemoryLimitStore
from broker.adapters.memory_log import MemoryAdmin, MemoryConsumer, MemoryLog, MemoryProducer, MemoryReader
from broker.clock import SystemClock
from broker.config import Alias, Deployment, Pool, Redis, Settings
from broker.envelope import NewRequest, Reply, encode_request, read_reply
from broker.ports import LogProducer
from broker.records import OutRecord, Partition, Record
from broker.topics import TopicNames, topic_specs
from schemas.usage import UsageEvent
from workers.pool import Parts, WorkerProcess
from workers.providers.base import Call, CallResult, OnChunk, Usage

BODY = orjson.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}]})
PATIENCE = 10.0

LEASE_SECONDS = 1.0

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
        settings.setdefault("redis", Redis(lease_seconds=LEASE_SECONDS))
        self.settings = Settings(
            aliases={alias.name: alias for alias in aliases}, signing_key=SecretStr("test-key"), **settings
        )
        self.names = TopicNames()
        self.log = MemoryLog({spec.name: 1 for spec in topic_specs(self.names, list(self.settings.aliases))})
        self.clock = SystemClock()
        self.journal = MemoryJournal(clock=self.clock, lease_seconds=LEASE_SECONDS)
        self.callers = MemoryCallerStore(clock=self.clock)
        self.limits = MemoryLimitStore(clock=self.clock)
        self.provider = ScriptedProvider()
        self.producer = MemoryProducer(self.log)
        self.crashed: set[str] = set()
        self.consumers: dict[str, list[MemoryConsumer]] = {}

    def process(self, pool: Pool, producer: LogProducer | None = None) -> WorkerProcess:
        """Return a worker process that has not started."""
        consumers: list[MemoryConsumer] = []

        def make_consumer() -> MemoryConsumer:
            consumers.append(MemoryConsumer(self.log, self.names.group(pool.name)))
            return consumers[-1]

        parts = Parts(
            make_consumer=make_consumer,
            producer=producer or MemoryProducer(self.log),
            make_reader=lambda: MemoryReader(self.log),
            admin=MemoryAdmin(self.log),
            journal=self.journal,
            callers=self.callers,
            limits=self.limits,
            provider=self.provider,
            clock=self.clock,
        )
        process = WorkerProcess(self.settings, pool, parts)
        self.consumers[process.name] = consumers
        return process

    @asynccontextmanager
    async def worker(self, producer: LogProducer | None = None, **pool: Any) -> AsyncIterator[WorkerProcess]:
        """Run one worker process; one that crashed meanwhile is left alone."""
        chosen = Pool(**{"name": "default", "in_flight": 50, "drain_seconds": 1.0, "commit_interval": 0.02, **pool})
        process = self.process(chosen, producer)
        await process.start()
        try:
            yield process
        finally:
            if process.name not in self.crashed:
                await process.stop()

    async def crash(self, process: WorkerProcess) -> None:
        """End a process as SIGKILL does: nothing is drained, published, committed, given up or told to the group."""
        self.crashed.add(process.name)
        self.consumers[process.name][-1].kill()
        rooms = (
            process,
            process.watchdog,
            process.exchange,
            process.leases,
            process.admission,
            process.outbox,
            process.committer,
            process.callers,
        )
        tasks = {task for room in rooms for task in _tasks(room)} | set(process.inference.running)
        process.dispatcher.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await process.control.stop()

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

    def calls(self) -> Counter[str]:
        """Calls to the provider by request id."""
        return Counter(call.request_id for call in self.provider.calls)

    async def rows(self, count: int) -> list[UsageEvent]:
        """The rows the ledger would hold, once there are `count`: the last event of each usage id, in their order."""
        found: dict[str, UsageEvent] = {}
        seen = 0
        while len(found) < count:
            records = await self.records(self.names.usage, seen + 1)
            seen = len(records)
            events = [UsageEvent.model_validate_json(record.value or b"") for record in records]
            found = {event.usage_id: event for event in events}
        return sorted(found.values(), key=lambda event: event.usage_id)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for an effect that announces itself nowhere."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - the twins have no event for it
                await asyncio.sleep(0.005)


def _tasks(room: object) -> Iterator[asyncio.Task[Any]]:
    """Yield the tasks a room holds in its attributes, which is where all of them are."""
    for value in vars(room).values():
        for each in value if isinstance(value, set | list | dict) else (value,):
            if isinstance(each, asyncio.Task):
                yield each


def make_alias(name: str, count: int = 1, **fields: Any) -> Alias:
    """An alias whose deployments nobody calls for real."""
    deployments = tuple(
        Deployment(name=f"{name}/{number}", alias=name, provider="openai", model=f"{name}-{number}")
        for number in range(count)
    )
    return Alias(name=name, deployments=deployments, **fields)
