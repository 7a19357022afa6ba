"""Writes records to Kafka: the port `LogProducer`. Acknowledged by all replicas, without idempotence."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import RecordMetadata

from broker.adapters.kafka_closing import close_quietly
from broker.adapters.kafka_errors import CLIENT_ERRORS, TOO_LARGE, failure, unavailable
from broker.adapters.kafka_options import connect_limit, connection_options
from broker.adapters.kafka_topics import find_partitions
from broker.config.models import Kafka
from broker.errors import Unavailable
from broker.ports import OutRecord, SendFailure

_log = logging.getLogger(__name__)

BATCH_BYTES: Final = 512 << 10
LINGER_MS: Final = 0

BATCH_FROM: Final = 16
"""Records for one partition from which a batch of their own is cheaper than aiokafka's `send`: measured 8 against 14 µs
a record at 16, 2 against 7 µs at 200; below, `send` shares batches with other callers, which a batch of one's own does
not (17 against 90 µs for single records of 64 callers)."""

LOOKUP_S: Final = 1.5
"""How long an unknown topic is asked for: a new one takes about this long to be known to every broker."""

ABSENT_S: Final = 5.0
"""How long a topic that was not found counts as absent without asking again."""

_ABSENT_LIMIT: Final = 10_000

_SEND_ERRORS: Final = (*CLIENT_ERRORS, AssertionError)
"""With an assertion aiokafka says that a partition is gone from its metadata since we looked."""

_Place = tuple[str, int]
_Acknowledgement = asyncio.Future[RecordMetadata]
_Results = list[SendFailure | None]


class KafkaProducer:
    """Safe for use by many tasks; see `LogProducer`."""

    def __init__(self, kafka: Kafka, *, client_id: str = "broker") -> None:
        self._options = connection_options(kafka, client_id)
        self._address = self._options["bootstrap_servers"]
        self._timeout = kafka.request_timeout
        self._connect_limit = connect_limit(kafka)
        self._max_bytes = kafka.max_message_bytes
        self._unanswered = SendFailure(f"no acknowledgement within {self._timeout:g} s", permanent=False)
        self._producer: AIOKafkaProducer | None = None
        self._partitioner = DefaultPartitioner()
        self._turn = 0
        self._absent: dict[tuple[str, int | None], float] = {}
        self._lookups: dict[str, asyncio.Task[tuple[int, ...]]] = {}
        self._reviving = asyncio.Lock()

    async def start(self) -> None:
        """Connect. Raises `Unavailable` naming the address."""
        producer = AIOKafkaProducer(
            acks="all",
            enable_idempotence=False,
            max_batch_size=BATCH_BYTES,
            max_request_size=self._max_bytes,
            linger_ms=LINGER_MS,
            **self._options,
        )
        try:
            async with asyncio.timeout(self._connect_limit):
                await producer.start()
        except BaseException as exc:
            await close_quietly(producer.stop())
            if isinstance(exc, CLIENT_ERRORS):
                raise unavailable(exc, "connect", self._address) from exc
            raise
        self._producer = producer

    async def send_all(self, records: Sequence[OutRecord]) -> Sequence[SendFailure | None]:
        """Write all and wait for the acknowledgements, at most the request time-out; see the port."""
        results: _Results = [self._unanswered] * len(records)
        try:
            async with asyncio.timeout(self._timeout):
                await self._revive()
                groups = await self._groups(records, results)
                await self._write(groups, records, results)
        except TimeoutError:
            pass  # what is not acknowledged by now keeps `_unanswered`; it may still be written
        except Unavailable as exc:
            if self._producer is None:
                raise
            return [SendFailure(str(exc), permanent=False)] * len(records)
        return results

    async def stop(self) -> None:
        """Flush and close; a dead Kafka is given 10 s."""
        for task in self._lookups.values():
            task.cancel()
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await close_quietly(producer.stop())

    async def _revive(self) -> None:
        """Replace a producer whose sending task has died: it would refuse every record for good."""
        producer = self._started()
        if not producer._sender.sender_task.done():  # noqa: SLF001 - nothing public tells
            return
        async with self._reviving:
            if self._producer is not producer:
                return  # another task was faster
            _log.error("the Kafka producer's sending task has died; starting another producer")
            dead = self._started()
            await self.start()
            await close_quietly(dead.stop())

    def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise Unavailable("the producer is not started")
        return self._producer

    async def _groups(self, records: Sequence[OutRecord], results: _Results) -> dict[_Place, list[int]]:
        """Return indexes by partition; records that cannot be written get their failure at once."""
        groups: dict[_Place, list[int]] = defaultdict(list)
        known: dict[str, Sequence[int]] = {}
        # One partition a call for records that do not care: whole batches, and the next call goes on to the next.
        self._turn += 1
        for index, record in enumerate(records):
            topic = record.topic
            try:
                partitions = known.get(topic)
                if partitions is None or (record.partition is not None and record.partition not in partitions):
                    partitions = known[topic] = await self._partitions(topic, record.partition)
                self._check_size(record)
            except CLIENT_ERRORS as exc:
                results[index] = failure(exc)
                continue
            if not partitions:
                results[index] = SendFailure(f"topic {topic!r} does not exist", permanent=True)
            elif record.partition is None:
                groups[topic, self._choose(record.key, partitions)].append(index)
            elif record.partition in partitions:
                groups[topic, record.partition].append(index)
            else:
                reason = f"topic {topic!r} has no partition {record.partition}"
                results[index] = SendFailure(reason, permanent=True)
        return groups

    def _choose(self, key: bytes | None, partitions: Sequence[int]) -> int:
        if key is None:
            return partitions[self._turn % len(partitions)]
        chosen: int = self._partitioner(key, partitions, partitions)
        return chosen

    def _check_size(self, record: OutRecord) -> None:
        size = DefaultRecordBatchBuilder.estimate_size_in_bytes(record.key, record.value, list(record.headers))
        if size > self._max_bytes:
            raise MessageSizeTooLargeError(f"{size} bytes, at most {self._max_bytes} are allowed")

    async def _partitions(self, topic: str, wanted: int | None) -> Sequence[int]:
        """Return the partitions of a topic, empty when it does not exist; asks when `wanted` is not among them."""
        client = self._started().client
        found = client.cluster.partitions_for_topic(topic)
        if found and (wanted is None or wanted in found):
            return sorted(found)
        now = time.monotonic()
        if self._absent.get((topic, wanted), 0.0) > now:
            return sorted(found or ())
        task = self._lookups.get(topic)
        if task is None:
            task = self._lookups[topic] = asyncio.get_running_loop().create_task(self._look_up(topic))
            task.add_done_callback(lambda _: self._lookups.pop(topic, None))
            task.add_done_callback(_retrieve)
        partitions = await asyncio.shield(task)
        if not partitions or (wanted is not None and wanted not in partitions):
            if len(self._absent) >= _ABSENT_LIMIT:
                self._absent.clear()
            self._absent[topic, wanted] = time.monotonic() + ABSENT_S
        return partitions

    async def _look_up(self, topic: str) -> tuple[int, ...]:
        client = self._started().client
        end = time.monotonic() + LOOKUP_S
        while True:
            found = await find_partitions(client, topic)
            if found or time.monotonic() > end:
                break
            await asyncio.sleep(0.1)
        if found:
            # Only topics that exist join the client's own list, which it asks for again and again.
            await client.add_topic(topic)
            await client.force_metadata_update()
        return found

    async def _write(self, groups: dict[_Place, list[int]], records: Sequence[OutRecord], results: _Results) -> None:
        jobs: list[Coroutine[None, None, None]] = []
        singles: list[tuple[_Place, int]] = []
        for place, indexes in groups.items():
            if len(indexes) >= BATCH_FROM:
                jobs.append(self._write_batches(place, indexes, records, results))
                continue
            for index in indexes:
                if records[index].key is None and records[index].value is None:
                    jobs.append(self._write_alone(place, index, records, results))  # `send` refuses what Kafka allows
                else:
                    singles.append((place, index))
        if singles:
            jobs.append(self._write_singles(singles, records, results))
        if len(jobs) == 1:
            await jobs[0]
        else:
            await asyncio.gather(*jobs)

    async def _write_singles(
        self, singles: list[tuple[_Place, int]], records: Sequence[OutRecord], results: _Results
    ) -> None:
        producer = self._started()
        sent: list[tuple[_Place, int]] = []
        futures: list[_Acknowledgement] = []
        for place, index in singles:
            record = records[index]
            topic, partition = place
            try:
                # Returns once the record is in a batch; the future it returns is the acknowledgement.
                future = await producer.send(topic, record.value, record.key, partition, headers=list(record.headers))
            except _SEND_ERRORS as exc:
                results[index] = failure(exc)
                continue
            future.add_done_callback(_retrieve)
            sent.append((place, index))
            futures.append(future)
        for (place, index), error in zip(sent, await _errors(futures), strict=True):
            if isinstance(error, TOO_LARGE):
                # Said of the batch it shared: alone, it may well be accepted.
                await self._write_alone(place, index, records, results)
            else:
                results[index] = failure(error) if error else None

    async def _write_batches(
        self, place: _Place, indexes: list[int], records: Sequence[OutRecord], results: _Results
    ) -> None:
        rest = indexes
        chunks: list[list[int]] = []
        futures: list[_Acknowledgement] = []
        while rest:
            builder = self._started().create_batch()
            taken = 0
            for index in rest:
                record = records[index]
                headers = list(record.headers)
                if builder.append(timestamp=None, key=record.key, value=record.value, headers=headers) is None:
                    break
                taken += 1
            chunks.append(rest[:taken])
            futures.append(await self._submit(builder, place))
            rest = rest[taken:]
        for chunk, error in zip(chunks, await _errors(futures), strict=True):
            alone = isinstance(error, TOO_LARGE) and len(chunk) > 1
            outcome = failure(error) if error else None
            for index in chunk:
                if alone:
                    await self._write_alone(place, index, records, results)
                else:
                    results[index] = outcome

    async def _write_alone(self, place: _Place, index: int, records: Sequence[OutRecord], results: _Results) -> None:
        record = records[index]
        builder = self._started().create_batch()
        builder.append(timestamp=None, key=record.key, value=record.value, headers=list(record.headers))
        builder.close()  # or records of other callers would join it
        [error] = await _errors([await self._submit(builder, place)])
        results[index] = failure(error) if error else None

    async def _submit(self, builder: BatchBuilder, place: _Place) -> _Acknowledgement:
        topic, partition = place
        future: _Acknowledgement
        try:
            future = await self._started().send_batch(builder, topic, partition=partition)
        except _SEND_ERRORS as exc:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(exc)
        future.add_done_callback(_retrieve)
        return future


async def _errors(futures: list[_Acknowledgement]) -> list[BaseException | None]:
    """Wait for acknowledgements and return what each failed with.

    When the time is up the futures are left to end by themselves: aiokafka goes on with the batch, and the error of a
    cancelled one would be reported as never retrieved.
    """
    if futures:
        await asyncio.wait(futures)
    return [future.exception() for future in futures]


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
