"""Reads the control topic from its beginning, so that a worker knows every cancel, also of before it started."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from broker.clock import Clock
from broker.envelope import read_cancel
from broker.errors import Unavailable
from broker.ports import LogReader
from broker.records import Partition
from broker.topics import TopicNames

log = logging.getLogger(__name__)

KEEP_MS: Final = 7 * 86_400_000
"""A cancel is remembered as long as a request can wait in its topic (wire.md: 7 days)."""
KEEP_MOST: Final = 200_000
RETRY: Final = 1.0


class Control:
    """Remembers cancelled request ids and tells `on_cancel` of each as it arrives."""

    def __init__(self, *, reader: LogReader, names: TopicNames, clock: Clock, on_cancel: Callable[[str], None]) -> None:
        self._reader = reader
        self._topic = names.control
        self._clock = clock
        self._on_cancel = on_cancel
        self._cancelled: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def cancelled(self, request_id: str) -> bool:
        """Whether the request was cancelled."""
        return request_id in self._cancelled

    async def start(self) -> None:
        """Read all there is, then go on in the background. Raises `Unavailable`."""
        await self._reader.start()
        bounds = await self._reader.bounds(self._topic)
        if bounds:
            await self._reader.assign({partition: first for partition, (first, _) in bounds.items()})
            ends = {partition: end for partition, (first, end) in bounds.items() if end > first}
            await self._catch_up(ends)
        self._task = asyncio.get_running_loop().create_task(self._run(assigned=bool(bounds)), name="control")

    async def stop(self) -> None:
        """Stop reading; waits for the poll that is under way."""
        self._stopping = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        await self._reader.stop()

    async def _catch_up(self, ends: dict[Partition, int]) -> None:
        # Compaction leaves gaps at the end of a partition, so an empty poll ends the catching up as well.
        while ends:
            records = await self._reader.poll(max_records=5_000, timeout=1.0)
            for record in records:
                self._take(read_cancel(record))
                partition = Partition(record.topic, record.partition)
                if record.offset + 1 >= ends.get(partition, 0):
                    ends.pop(partition, None)
            if not records:
                return

    async def _run(self, *, assigned: bool) -> None:
        while not self._stopping:
            try:
                if not assigned:
                    bounds = await self._reader.bounds(self._topic)
                    await self._reader.assign({partition: first for partition, (first, _) in bounds.items()})
                    assigned = bool(bounds)
                for record in await self._reader.poll(max_records=1_000, timeout=0.2):
                    self._take(read_cancel(record))
            except Unavailable as error:
                log.warning("the control topic cannot be read, trying again: %s", error)
                await asyncio.sleep(RETRY)

    def _take(self, cancel: tuple[str, int] | None) -> None:
        if cancel is None:
            return
        request_id, at_ms = cancel
        now = self._clock.now_ms()
        if at_ms < now - KEEP_MS:
            return
        self._cancelled[request_id] = at_ms
        if len(self._cancelled) > KEEP_MOST:
            del self._cancelled[next(iter(self._cancelled))]
        self._on_cancel(request_id)
