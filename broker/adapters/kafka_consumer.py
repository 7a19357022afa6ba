"""A member of a consumer group on Kafka: the port `LogConsumer`, with the settings of the delivery page."""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from broker.adapters.kafka_assignor import assignor
from broker.adapters.kafka_closing import close_quietly, stop_consumer
from broker.adapters.kafka_commit import commit_offsets
from broker.adapters.kafka_errors import CLIENT_ERRORS, unavailable
from broker.adapters.kafka_options import connect_limit, connection_options
from broker.adapters.kafka_pace import FETCH_WAIT_MS, pace
from broker.adapters.kafka_poll import Poller
from broker.adapters.kafka_rescue import Rescue
from broker.config.models import Kafka
from broker.errors import Unavailable
from broker.ports import AssignmentListener, Commit, Partition, Record

PARTITION_FETCH_BYTES: Final = 4 << 20
FETCH_BYTES: Final = 16 << 20
SESSION_MS: Final = 30_000
HEARTBEAT_S: Final = 3.0
REBALANCE_MS: Final = 20_000
MAX_POLL_MS: Final = 3_600_000
"""One hour: the worker's own watchdog is what notices a loop that stands still."""

COMMITTED_LIMIT_S: Final = 10.0
"""How long `committed` tries: it is asked inside the assignment callback, which must end well within 20 s."""

RETRY_S: Final = 0.1


class _Bridge(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Tells the poller and our listener of aiokafka's rebalances, and knows what is ours meanwhile."""

    def __init__(self, poller: Poller, listener: AssignmentListener | None) -> None:
        self._poller = poller
        self._listener = listener
        self.owned: frozenset[Partition] = frozenset()

    async def on_partitions_revoked(self, revoked: Iterable[tuple[str, int]]) -> None:
        self._poller.unsettle()
        try:
            if self._listener is not None and (partitions := _partitions(revoked)):
                await self._listener.on_revoked(partitions)
        finally:
            self.owned = frozenset()

    async def on_partitions_assigned(self, assigned: Iterable[tuple[str, int]]) -> None:
        self.owned = _partitions(assigned)
        try:
            if self._listener is not None:
                await self._listener.on_assigned(self.owned)
        finally:
            self._poller.settle()


class _Parts(NamedTuple):
    consumer: AIOKafkaConsumer
    admin: AIOKafkaAdminClient
    poller: Poller
    rescue: Rescue
    bridge: _Bridge


def _partitions(found: Iterable[tuple[str, int]]) -> frozenset[Partition]:
    return frozenset(Partition(topic, partition) for topic, partition in found)


class KafkaConsumer:
    """One member of the consumer group `group`; see `LogConsumer`.

    `instance` makes it a static member (KIP-345): one that starts again under the same name takes its partitions over
    at once, also after a kill. Two members alive under one name fence each other. A member hears of a rebalance
    within `heartbeat` seconds.
    """

    def __init__(
        self,
        kafka: Kafka,
        group: str,
        *,
        client_id: str = "broker",
        instance: str | None = None,
        heartbeat: float = HEARTBEAT_S,
    ) -> None:
        self._options = connection_options(kafka, client_id)
        self._address = self._options["bootstrap_servers"]
        self._timeout = kafka.request_timeout
        self._connect_limit = connect_limit(kafka)
        self._fetch_bytes = max(PARTITION_FETCH_BYTES, kafka.max_message_bytes)
        self._group = group
        self._heartbeat = heartbeat
        self._instance = instance
        self._parts: _Parts | None = None

    async def start(self, topics: Sequence[str], listener: AssignmentListener | None = None) -> None:
        """Join the group and subscribe; absent topics are looked for every 30 s. Raises `Unavailable`."""
        consumer = self._consumer()
        admin = AIOKafkaAdminClient(**self._options)
        try:
            async with asyncio.timeout(self._connect_limit):
                await consumer.start()
                await admin.start()
        except BaseException as exc:
            await close_quietly(stop_consumer(consumer), admin.close())
            if isinstance(exc, CLIENT_ERRORS):
                raise unavailable(exc, "connect", self._address) from exc
            raise
        rescue = Rescue(self._options, fetch_bytes=self._fetch_bytes)
        poller = Poller(consumer, rescue, address=self._address, settled=False)
        self._parts = _Parts(consumer, admin, poller, rescue, _Bridge(poller, listener))
        self.subscribe(topics)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Change the subscription; the listener hears of what follows."""
        parts = self._started()
        parts.poller.unsettle()
        if topics:
            parts.consumer.subscribe(list(topics), listener=parts.bridge)
        else:
            parts.consumer.unsubscribe()

    def assignment(self) -> frozenset[Partition]:
        """Return the partitions that are ours now."""
        return self._started().bridge.owned

    async def poll(self, partitions: Sequence[Partition], *, max_records: int, timeout: float) -> Sequence[Record]:
        """Return records as the port says; raises `Unavailable` when Kafka refuses to give any."""
        return await self._started().poller.poll(partitions, max_records=max_records, timeout=timeout)

    def seek(self, partition: Partition, offset: int) -> None:
        """Read `partition` from `offset` on; one that is not ours is ignored."""
        parts = self._started()
        if partition in parts.bridge.owned:
            tp = TopicPartition(*partition)
            parts.consumer.seek(tp, offset)
            parts.poller.forget(tp)

    async def commit(self, commits: Mapping[Partition, Commit], *, timeout: float) -> None:
        """Commit. Raises `Unavailable` on time-out or when the group has moved on."""
        if not commits:
            return
        parts = self._started()
        if lost := commits.keys() - parts.bridge.owned:
            raise Unavailable(f"commit of group {self._group}: not assigned: {sorted(lost)}")
        try:
            async with asyncio.timeout(timeout):
                await commit_offsets(parts.consumer, commits)
        except CLIENT_ERRORS as exc:
            raise unavailable(exc, f"commit of group {self._group}", self._address) from exc

    async def committed(self, partitions: Sequence[Partition]) -> Mapping[Partition, Commit]:
        """Return what is committed, metadata included. Raises `Unavailable`."""
        wanted = [TopicPartition(*tp) for tp in partitions]
        return await committed(self._started().admin, self._group, wanted, limit=self._timeout, address=self._address)

    async def lag(self) -> Mapping[Partition, int]:
        """Records behind the end of each assigned partition; partitions not fetched from yet are absent."""
        consumer = self._started().consumer
        lags = {}
        for tp in consumer.assignment():
            end = consumer.highwater(tp)
            if end is None:
                continue
            with contextlib.suppress(*CLIENT_ERRORS):
                # Where the position is known this returns without waiting; where it is not, nobody is asked.
                async with asyncio.timeout(0):
                    lags[Partition(*tp)] = max(0, end - await consumer.position(tp))
        return lags

    async def stop(self) -> None:
        """Leave the group. Commits nothing."""
        if self._parts is not None:
            parts, self._parts = self._parts, None
            await close_quietly(
                stop_consumer(parts.consumer), parts.poller.stop(), parts.rescue.stop(), parts.admin.close()
            )

    def _started(self) -> _Parts:
        if self._parts is None:
            raise Unavailable("the consumer is not started")
        return self._parts

    def _consumer(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            group_id=self._group,
            group_instance_id=self._instance,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=round(self._heartbeat * 1000),
            rebalance_timeout_ms=REBALANCE_MS,
            max_poll_interval_ms=MAX_POLL_MS,
            partition_assignment_strategy=(assignor(),),
            max_partition_fetch_bytes=self._fetch_bytes,
            fetch_max_bytes=max(FETCH_BYTES, self._fetch_bytes),
            fetch_max_wait_ms=FETCH_WAIT_MS,
            **self._options,
        )
        pace(consumer)
        return consumer


async def committed(
    admin: AIOKafkaAdminClient,
    group: str,
    partitions: Sequence[TopicPartition] | None,
    *,
    limit: float,
    address: object,
) -> dict[Partition, Commit]:
    """Return the commits of a group, for all its partitions when None are named. Raises `Unavailable`.

    A coordinator that is just being elected, as at the first use of a cluster, is waited for up to `limit` seconds.
    """
    if partitions is not None and not partitions:
        return {}
    last: BaseException | None = None
    try:
        async with asyncio.timeout(min(limit, COMMITTED_LIMIT_S)):
            while True:
                try:
                    found = await admin.list_consumer_group_offsets(group, partitions=partitions)
                except (*CLIENT_ERRORS, AttributeError) as exc:  # it reads a field that old answers do not have
                    last = exc
                    await asyncio.sleep(RETRY_S)
                else:
                    return {
                        Partition(*tp): Commit(c.offset, c.metadata or "") for tp, c in found.items() if c.offset >= 0
                    }
    except TimeoutError as exc:
        raise unavailable(last or exc, f"committed offsets of group {group}", address) from exc
