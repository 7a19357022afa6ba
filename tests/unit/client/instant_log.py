"""Ports that answer every request at once and keep nothing: what is measured over them is the client alone."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count

from broker.adapters.memory_log import MemoryRecord
from broker.client import LogPorts
from broker.ports import SendFailure
from broker.records import OutRecord, Partition, Record


class InstantLog:
    """Both ports in one; every request gets `answer` as its final reply."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._ready: deque[Record] = deque()
        self._more = asyncio.Event()
        self._offset = count()
        self.requests = 0

    @property
    def ports(self) -> LogPorts:
        return LogPorts(producer=self, open_reader=lambda: self)

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to close."""

    async def send_all(self, records: Sequence[OutRecord]) -> Sequence[SendFailure | None]:
        await asyncio.sleep(0)
        self._ready.extend(self._reply(record) for record in records)
        self.requests += len(records)
        self._more.set()
        return [None] * len(records)

    async def bounds(self, topic: str) -> Mapping[Partition, tuple[int, int]]:
        return {Partition(topic, 0): (0, 0)}

    async def offsets_at(self, topic: str, timestamp_ms: int) -> Mapping[Partition, int]:
        return {Partition(topic, 0): timestamp_ms * 0}

    async def assign(self, positions: Mapping[Partition, int]) -> None:
        """There is one partition."""

    async def poll(self, *, max_records: int, timeout: float) -> Sequence[Record]:
        try:
            async with asyncio.timeout(timeout):
                await self._more.wait()
        except TimeoutError:
            return []
        records = [self._ready.popleft() for _ in range(min(max_records, len(self._ready)))]
        if not self._ready:
            self._more.clear()
        return records

    def _reply(self, record: OutRecord) -> MemoryRecord:
        headers = dict(record.headers)
        values = [
            ("request-id", headers["request-id"]),
            ("status", b"200"),
            ("alias", b"local"),
            ("served-by", b"local/0"),
            ("model", b"tiny"),
            ("attempts", b"1"),
            ("fallbacks", b"0"),
            ("cost", b"0.00012"),
            ("queue-ms", b"4"),
            ("upstream-ms", b"20"),
            ("metadata", headers.get("metadata", b"")),
            ("final", b"1"),
        ]
        return MemoryRecord("llm.replies", 0, next(self._offset), 0, headers["request-id"], self._answer, values)
