"""Chunks of a stream on their way to the reply topic: in order, several at a time, never holding up the upstream."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from broker.envelope import Job, encode_chunk
from broker.errors import Unavailable
from broker.ports import LogProducer
from broker.records import OutRecord
from workers.providers.base import OnChunk

log = logging.getLogger(__name__)

GATHER_SECONDS: Final = 0.025
"""Chunks of this long travel together (wire.md: 20–50 ms)."""


class ChunkWriter:
    """Publishes chunks. One that the log does not take is lost: the final record carries the whole completion."""

    def __init__(self, producer: LogProducer) -> None:
        self._producer = producer

    @asynccontextmanager
    async def stream(self, job: Job, attempt: int) -> AsyncIterator[OnChunk]:
        """Open one attempt's stream; every chunk given is published when the context ends."""
        queue: list[OutRecord] = []
        more, ended = asyncio.Event(), asyncio.Event()
        seq = 0

        async def on_chunk(value: bytes) -> None:
            nonlocal seq
            queue.append(encode_chunk(job, seq=seq, attempt=attempt, value=value))
            seq += 1
            more.set()

        async def publish() -> None:
            while True:
                await more.wait()
                more.clear()
                batch = queue[:]
                queue.clear()
                if batch:
                    await self._send(batch)
                if ended.is_set() and not queue:
                    return
                if not ended.is_set():
                    await _first_of(ended, GATHER_SECONDS)

        task = asyncio.get_running_loop().create_task(publish())
        try:
            yield on_chunk
        finally:
            ended.set()
            more.set()
            await task

    async def _send(self, batch: list[OutRecord]) -> None:
        try:
            failures = await self._producer.send_all(batch)
        except Unavailable as error:
            log.warning("chunks of a stream were not written: %s", error)
            return
        for failure in failures:
            if failure is not None:
                log.warning("a chunk of a stream was not written: %s", failure.reason)
                return


async def _first_of(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
