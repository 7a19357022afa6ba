"""Fetches a partition's bytes as they are stored, for records that aiokafka's own parser cannot get past."""

from typing import Final

from aiokafka import AIOKafkaClient, TopicPartition
from aiokafka.errors import KafkaError, LeaderNotAvailableError, for_code
from aiokafka.protocol.fetch import FetchRequest

from broker.adapters.kafka_options import Options
from broker.adapters.record_batches import Parsed, parse_batches, unreadable

_MAX_BYTES: Final = 64 << 20
_READ_UNCOMMITTED: Final = 0


class Rescue:
    """Reads what stands at an offset over a connection of its own, opened when it is first needed."""

    def __init__(self, options: Options, *, fetch_bytes: int) -> None:
        self._options = options
        self._fetch_bytes = fetch_bytes
        self._client: AIOKafkaClient | None = None

    async def read(self, tp: TopicPartition, offset: int) -> Parsed:
        """Return all records of one fetch from `offset`, unreadable ones among them. Raises aiokafka's errors.

        At the end of a partition nothing comes back, and the next offset is `offset`.
        """
        raw, end = await self._fetch(tp, offset, self._fetch_bytes)
        parsed = parse_batches(raw, tp, offset, end)
        if raw and parsed.next_offset == offset:
            # The first batch did not fit; a batch is never longer than what the log may hold in one.
            raw, end = await self._fetch(tp, offset, _MAX_BYTES)
            parsed = parse_batches(raw, tp, offset, end)
        if raw and parsed.next_offset == offset:
            return Parsed([unreadable(tp, offset, "the stored batch is cut off")], offset + 1)
        return parsed

    async def stop(self) -> None:
        """Close the connection, if one was opened."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _connect(self, topic: str) -> AIOKafkaClient:
        if self._client is None:
            client = AIOKafkaClient(**self._options)
            try:
                await client.bootstrap()
            except BaseException:
                await client.close()
                raise
            self._client = client
        await self._client.add_topic(topic)
        return self._client

    async def _fetch(self, tp: TopicPartition, offset: int, max_bytes: int) -> tuple[bytes, int]:
        client = await self._connect(tp.topic)
        leader = client.cluster.leader_for_partition(tp)
        if leader is None or leader == -1:
            await client.force_metadata_update()
            raise LeaderNotAvailableError(f"no leader of {tp.topic}-{tp.partition} is known")
        partition = (tp.topic, [(tp.partition, offset, max_bytes)])
        request = FetchRequest(0, 1, max_bytes, _READ_UNCOMMITTED, [partition], rack_id="")
        try:
            response = await client.send(leader, request)
        except KafkaError:
            await client.force_metadata_update()
            raise
        for _, partitions in response.topics:
            for _, error_code, end, *rest in partitions:
                if error_code:
                    raise for_code(error_code)(f"{tp.topic}-{tp.partition}")
                return bytes(rest[-1] or b""), end
        return b"", offset
