"""Looks at topics in Kafka and makes them: the port `LogAdmin`. Never shrinks, never deletes."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from broker.adapters.kafka_closing import close_quietly, stop_consumer
from broker.adapters.kafka_consumer import committed
from broker.adapters.kafka_errors import CLIENT_ERRORS, unavailable
from broker.adapters.kafka_options import connect_limit, connection_options
from broker.config.models import Kafka
from broker.errors import Unavailable
from broker.ports import Partition, TopicState
from broker.topics import TopicSpec

SHOWN_LIMIT_S: Final = 5.0
"""How long a change may take to show; it is made either way."""

_LOOK_AGAIN_S: Final = 0.02

_TOPIC_SOURCE: Final = 1
"""Source of a setting that was given to the topic itself, in Kafka's DescribeConfigs answer."""


class KafkaAdmin:
    """Administers topics; see `LogAdmin`."""

    def __init__(self, kafka: Kafka, *, client_id: str = "broker-admin") -> None:
        self._options = connection_options(kafka, client_id)
        self._address = self._options["bootstrap_servers"]
        self._timeout = kafka.request_timeout
        self._connect_limit = connect_limit(kafka)
        self._admin: AIOKafkaAdminClient | None = None

    async def start(self) -> None:
        """Connect. Raises `Unavailable` naming the address."""
        admin = AIOKafkaAdminClient(**self._options)
        try:
            async with asyncio.timeout(self._connect_limit):
                await admin.start()
        except BaseException as exc:
            await close_quietly(admin.close())
            if isinstance(exc, CLIENT_ERRORS):
                raise unavailable(exc, "connect", self._address) from exc
            raise
        self._admin = admin

    async def topics(self, prefix: str) -> Mapping[str, TopicState]:
        """Return the topics whose names start with `prefix`, with all their settings, defaults included."""
        async with self._asking("list topics") as admin:
            listed = await admin.describe_topics()
            counts = {t["topic"]: len(t["partitions"]) for t in listed if t["topic"].startswith(prefix)}
            settings = {name: values for name, (values, _) in (await self._settings(admin, list(counts))).items()}
        return {name: TopicState(name, count, settings.get(name, {})) for name, count in counts.items()}

    async def create(self, spec: TopicSpec, *, replication_factor: int) -> None:
        """Create a topic; one that exists is no error."""
        topic = NewTopic(spec.name, spec.partitions, replication_factor, topic_configs=dict(spec.settings))
        async with self._asking(f"create topic {spec.name}") as admin:
            answer = await admin.create_topics([topic])
            for _, code, *message in answer.topic_errors:
                _check(code, message, allowed=TopicAlreadyExistsError)
                if for_code(code) is NoError:
                    await self._until(spec.name, spec.partitions, dict(spec.settings))

    async def grow(self, topic: str, partitions: int) -> None:
        """Add partitions up to `partitions`."""
        async with self._asking(f"grow topic {topic}") as admin:
            await admin.create_partitions({topic: NewPartitions(partitions)})
            await self._until(topic, partitions, {})

    async def alter(self, topic: str, settings: Mapping[str, str]) -> None:
        """Change settings by their Kafka names, leaving the others as they are."""
        async with self._asking(f"alter topic {topic}") as admin:
            # The only call aiokafka has replaces all of a topic's own settings: send back the ones that are there.
            own = (await self._settings(admin, [topic])).get(topic, ({}, {}))[1]
            resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs=own | dict(settings))
            for answer in await admin.alter_configs([resource]):
                for code, message, *_ in answer.resources:
                    _check(code, [message])
            await self._until(topic, 0, settings)

    async def lags(self, group: str) -> Mapping[Partition, tuple[int, int]]:
        """Committed offset and end offset of each partition the group has committed."""
        async with self._asking(f"lag of group {group}") as admin:
            commits = await committed(admin, group, None, limit=self._timeout, address=self._address)
            ends = await self._ends([TopicPartition(*tp) for tp in commits]) if commits else {}
        return {tp: (commit.offset, ends[tp]) for tp, commit in commits.items() if tp in ends}

    async def stop(self) -> None:
        """Close."""
        if self._admin is not None:
            admin, self._admin = self._admin, None
            await close_quietly(admin.close())

    async def _until(self, topic: str, partitions: int, settings: Mapping[str, str]) -> None:
        """Wait until the brokers show a change they have accepted: they learn of it a little later (KRaft)."""
        end = time.monotonic() + SHOWN_LIMIT_S
        while time.monotonic() < end:
            state = None
            with suppress(Unavailable):  # one broker lists it, another does not know its settings yet
                state = (await self.topics(topic)).get(topic)
            if state and state.partitions >= partitions and settings.items() <= state.settings.items():
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    @asynccontextmanager
    async def _asking(self, what: str) -> AsyncIterator[AIOKafkaAdminClient]:
        if self._admin is None:
            raise Unavailable("the admin client is not started")
        try:
            async with asyncio.timeout(self._timeout):
                yield self._admin
        except CLIENT_ERRORS as exc:
            raise unavailable(exc, what, self._address) from exc

    async def _ends(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        consumer = AIOKafkaConsumer(group_id=None, enable_auto_commit=False, **self._options)
        try:
            await consumer.start()
            ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        finally:
            await close_quietly(stop_consumer(consumer))
        return ends

    async def _settings(
        self, admin: AIOKafkaAdminClient, names: list[str]
    ) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
        """Return all settings and the topic's own ones, by topic."""
        if not names:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        found = {}
        for answer in await admin.describe_configs(resources):
            for code, message, _, name, entries in answer.resources:
                _check(code, [message])
                effective = {entry[0]: entry[1] or "" for entry in entries}
                # Version 0 of the answer has `is_default` where later ones have the source.
                own = {e[0]: e[1] for e in entries if e[1] is not None and _is_own(answer.API_VERSION, e[3])}
                found[name] = effective, own
        return found


def _is_own(version: int, field: int) -> bool:
    return not field if version == 0 else field == _TOPIC_SOURCE


def _check(code: int, message: list[str | None], *, allowed: type[Exception] | None = None) -> None:
    error = for_code(code)
    if error not in {NoError, allowed}:
        raise error(*(part for part in message if part))
