"""A worker process inside a test: real log, real Redis, a scripted upstream, and a caller that reads its replies."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
from pydantic import SecretStr

from broker.adapters.kafka import KafkaProducer, KafkaReader
from broker.adapters.kafka_admin import KafkaAdmin
from broker.config import Alias, Deployment, Kafka, Pool, Redis, Settings
from broker.envelope import NewRequest, Reply, encode_request, read_reply
from broker.records import OutRecord, Partition, Record
from broker.topics import TopicNames, TopicSpec, topic_specs
from schemas.usage import UsageEvent
from workers.pool import Parts, WorkerProcess

PARTITIONS = 2
PATIENCE = 30.0
"""Seconds a test waits for a record before it fails."""


def deployment(alias: str, url: str, number: int = 0, **fields: Any) -> Deployment:
    """One deployment of `alias` on a scripted upstream; its model is named `alias-number`."""
    values = {"name": f"{alias}/{number}", "model": f"{alias}-{number}", "api_key": SecretStr("sk-upstream-secret")}
    return Deployment(**{"alias": alias, "provider": "openai", "api_base": url, **values, **fields})


def alias(name: str, url: str, *, count: int = 1, limits: Mapping[str, Any] | None = None, **fields: Any) -> Alias:
    """An alias of `count` deployments on one upstream; `limits` go to each of them."""
    deployments = tuple(deployment(name, url, number, **(limits or {})) for number in range(count))
    return Alias(**{"name": name, "deployments": deployments, "num_retries": 2, "timeout": 20.0, **fields})


def settings_of(bootstrap: str, redis_url: str, prefix: str, *aliases: Alias, **fields: Any) -> Settings:
    """Settings of a worker that serves `aliases` from topics of its own."""
    return Settings(
        aliases={each.name: each for each in aliases},
        kafka=Kafka(bootstrap_servers=bootstrap, topic_prefix=prefix),
        redis=Redis(url=SecretStr(redis_url)),
        signing_key=SecretStr("test-signing-key"),
        **fields,
    )


class Caller:
    """Publishes requests and reads replies, usage events and dead letters of one topic prefix."""

    def __init__(self, settings: Settings, more: tuple[str, ...] = ()) -> None:
        self._more = more
        self.names = TopicNames(settings.kafka.topic_prefix)
        self.producer = KafkaProducer(settings.kafka)
        self._reader = KafkaReader(settings.kafka)
        self.seen: list[Record] = []

    async def start(self) -> None:
        await self.producer.start()
        await self._reader.start()
        positions: dict[Partition, int] = {}
        for topic in (self.names.replies, self.names.usage, self.names.dead, *self._more):
            bounds = await self._reader.bounds(topic)
            positions |= {partition: end for partition, (_, end) in bounds.items()}
        await self._reader.assign(positions)

    async def stop(self) -> None:
        await self._reader.stop()
        await self.producer.stop()

    async def publish(self, alias: str, body: object = None, **fields: Any) -> str:
        """Publish a chat request that wants its reply here; returns its id."""
        request_id = fields.pop("request_id", None) or f"r-{uuid.uuid4().hex}"
        chat = {"model": alias, "messages": [{"role": "user", "content": "Hello"}]}
        raw = body if isinstance(body, bytes) else orjson.dumps(chat if body is None else body)
        fields = {"reply_to": self.names.replies, "reply_partition": 0, **fields}
        request = NewRequest(alias=alias, body=raw, request_id=request_id, **fields)
        await self.write(encode_request(request, self.names))
        return str(request_id)

    async def write(self, *records: OutRecord) -> None:
        """Write records as they are."""
        assert [failure for failure in await self.producer.send_all(records) if failure is not None] == []

    async def until(self, topic: str, count: int, request_ids: set[str] | None = None) -> list[Record]:
        """Return the records of `topic` once there are `count` (of these requests); fails after `PATIENCE`."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            found = [
                record
                for record in self.seen
                if record.topic == topic and (request_ids is None or _request_id(record) in request_ids)
            ]
            if len(found) >= count:
                return found
            assert asyncio.get_running_loop().time() < deadline, f"{len(found)} of {count} records of {topic}"
            self.seen += await self._reader.poll(max_records=1_000, timeout=0.2)

    async def replies(self, *request_ids: str, patience: float = PATIENCE) -> list[Reply]:
        """Return the final replies of these requests, in this order, one each."""
        wanted = set(request_ids)
        deadline = asyncio.get_running_loop().time() + patience
        while True:
            replies = [reply for reply in map(read_reply, self._of(self.names.replies)) if reply is not None]
            final = {reply.request_id: reply for reply in replies if reply.final and reply.request_id in wanted}
            if len(final) == len(wanted):
                return [final[request_id] for request_id in request_ids]
            assert asyncio.get_running_loop().time() < deadline, f"no reply for {sorted(wanted - set(final))[:5]}"
            self.seen += await self._reader.poll(max_records=1_000, timeout=0.2)

    async def ask(self, alias: str, body: object = None, **fields: Any) -> Reply:
        """Publish one request and return its final reply."""
        return (await self.replies(await self.publish(alias, body, **fields)))[0]

    async def events(self, request_id: str, count: int) -> list[UsageEvent]:
        """Return the usage events of a request, by attempt, once there are `count`."""
        while True:
            events = [UsageEvent.model_validate_json(record.value or b"") for record in self._of(self.names.usage)]
            found = {event.usage_id: event for event in events if event.request_id == request_id}
            if len(found) >= count:
                return sorted(found.values(), key=lambda event: event.attempt)
            await self.until(self.names.usage, len(self._of(self.names.usage)) + 1)

    async def letters(self, count: int) -> list[Record]:
        """Return the dead letters once there are `count`."""
        return await self.until(self.names.dead, count)

    def _of(self, topic: str) -> list[Record]:
        return [record for record in self.seen if record.topic == topic]


def _request_id(record: Record) -> str:
    return (dict(record.headers).get("request-id") or b"").decode()


async def make_topics(settings: Settings, *, partitions: int = PARTITIONS, more: tuple[str, ...] = ()) -> None:
    """Create every topic of the settings' aliases, and of `more`, with few partitions: tests are short."""
    admin = KafkaAdmin(settings.kafka)
    await admin.start()
    try:
        names = TopicNames(settings.kafka.topic_prefix)
        for spec in topic_specs(names, [*settings.aliases, *more]):
            count = 1 if spec.name == names.control else partitions
            await admin.create(TopicSpec(spec.name, count, spec.settings), replication_factor=1)
    finally:
        await admin.stop()


@asynccontextmanager
async def calling(settings: Settings, *more: str) -> AsyncIterator[Caller]:
    """Open a caller; it reads the topics `more` as well."""
    caller = Caller(settings, more)
    await caller.start()
    try:
        yield caller
    finally:
        await caller.stop()


@asynccontextmanager
async def working(settings: Settings, **pool: Any) -> AsyncIterator[WorkerProcess]:
    """Run a worker process in this event loop; it drains when the context ends."""
    chosen = Pool(**{"name": "default", "in_flight": 200, "drain_seconds": 10.0, "commit_interval": 0.1, **pool})
    process = WorkerProcess(settings, chosen, Parts.real(settings, chosen))
    await process.start()
    try:
        yield process
    finally:
        await process.stop()


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition()` is true; for effects that announce themselves nowhere."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.01)
