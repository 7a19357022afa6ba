"""Record batches as bytes, bad ones too, and a producer that sends them as they are."""

import struct
import time
from collections.abc import Sequence

from aiokafka import AIOKafkaClient, TopicPartition
from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

Headers = list[tuple[str, bytes | None]]

BAD_NAME = "bad-name"
"""Stands in a batch for a header name that is no UTF-8, see `with_bad_names`."""

_CRC_AT = 17
_CRC_FROM = 21


def batch(records: Sequence[tuple[bytes | None, Headers]], *, first_ms: int | None = None) -> bytes:
    """A sound batch of magic 2 with the given values and headers; of today, or retention would take it away."""
    first_ms = first_ms if first_ms is not None else time.time_ns() // 1_000_000
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for index, (value, headers) in enumerate(records):
        builder.append(index, first_ms + index, None, value, headers)
    return bytes(builder.build())


def with_checksum(raw: bytes) -> bytes:
    """The batch with a checksum that fits its bytes."""
    return raw[:_CRC_AT] + struct.pack(">I", calc_crc32c(raw[_CRC_FROM:])) + raw[_CRC_FROM:]


def with_bad_names(raw: bytes) -> bytes:
    """Turn every header name `bad-name` into bytes that are no UTF-8."""
    return with_checksum(raw.replace(BAD_NAME.encode(), b"\xff\xfe\xfd-name"))


def with_codec(raw: bytes, codec: int) -> bytes:
    """Claim that the records are compressed with `codec`, which they are not."""
    return with_checksum(raw[:_CRC_FROM] + struct.pack(">h", codec) + raw[_CRC_FROM + 2 :])


async def produce_raw(bootstrap: str, topic: str, raw: bytes) -> None:
    """Send a batch to partition 0; raises what the log answers."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        await client.add_topic(topic)
        leader = client.cluster.leader_for_partition(TopicPartition(topic, 0))
        request = ProduceRequest(None, -1, 10_000, [(topic, [(0, raw)])])
        answer = await client.send(leader, request)
        for _, partitions in answer.topics:
            for _, code, *_ in partitions:
                if code:
                    raise for_code(code)
    finally:
        await client.close()
