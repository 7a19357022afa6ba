"""A streamed chat completion as the application iterates over it. Knows no Kafka: replies are handed in."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from broker.client.errors import failure_of
from broker.client.mailbox import Result
from broker.client.models import ChatChunk, ChatCompletion
from broker.envelope import Reply
from broker.errors import BrokerError, Unavailable

MAX_HELD: Final = 256
"""Chunks kept back while an earlier one is missing; with more, the missing one is given up."""


class ChunkOrder:
    """Puts the chunks of one request in order: newest attempt only, each `seq` once, lowest first."""

    def __init__(self) -> None:
        self.attempt = 0
        self.missed = 0
        self._next = 0
        self._held: dict[int, Reply] = {}

    def take(self, chunk: Reply) -> list[Reply]:
        """Return what can be read now that `chunk` is here, in order."""
        if chunk.seq is None or chunk.attempt < self.attempt:
            return []
        if chunk.attempt > self.attempt:
            self.attempt, self._next, self.missed = chunk.attempt, 0, 0
            self._held.clear()
        if chunk.seq >= self._next:
            self._held[chunk.seq] = chunk
        ready = self._run()
        return ready or (self._skip() if len(self._held) > MAX_HELD else [])

    def rest(self) -> list[Reply]:
        """Return what is still kept back, once nothing more can come."""
        ready: list[Reply] = []
        while self._held:
            ready += self._skip()
        return ready

    def _run(self) -> list[Reply]:
        ready = []
        while (chunk := self._held.pop(self._next, None)) is not None:
            ready.append(chunk)
            self._next += 1
        return ready

    def _skip(self) -> list[Reply]:
        lowest = min(self._held)
        self.missed += lowest - self._next
        self._next = lowest
        return self._run()


class StreamState:
    """What has arrived and was not read yet. Held by the mailbox, so the stream itself can be dropped by its reader."""

    def __init__(self) -> None:
        self.order = ChunkOrder()
        self.items: asyncio.Queue[Reply | None] = asyncio.Queue()
        self.result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def chunk(self, reply: Reply) -> None:
        """Take a chunk."""
        for ready in self.order.take(reply):
            self.items.put_nowait(ready)

    def finish(self, result: Result) -> None:
        """Take the end: the final reply, or why there is none."""
        for ready in self.order.rest():
            self.items.put_nowait(ready)
        self.items.put_nowait(None)
        if not self.result.done():
            self.result.set_result(result)


class ChatStream:
    """`async for chunk in stream`; then `await stream.completion()` is the whole answer, complete even after a gap.

    Iteration raises `RequestFailed` or `ReplyTimeout` where the request ends so. Leaving early does not cancel the
    request upstream: `await stream.cancel()` does.
    """

    def __init__(
        self,
        request_id: str,
        *,
        begin: Callable[[StreamState], Awaitable[None]],
        forget: Callable[[], None],
        cancel: Callable[[], Awaitable[None]],
    ) -> None:
        self.request_id = request_id
        self._begin = begin
        self._forget = forget
        self._cancel = cancel
        self._state: StreamState | None = None
        self._ended = False

    @property
    def missed(self) -> int:
        """Chunks of the last attempt that never came; the completion has their text nevertheless."""
        return 0 if self._state is None else self._state.order.missed

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatChunk:
        state = await self._started()
        item = None if self._ended else await state.items.get()
        if item is not None:
            return ChatChunk.of(item)
        if not self._ended:
            self._ended = True
            answered(state.result.result())
        raise StopAsyncIteration

    async def completion(self) -> ChatCompletion:
        """Wait for the final record and return the whole completion; raises what iteration raises."""
        state = await self._started()
        return ChatCompletion.of(answered(await asyncio.shield(state.result)))

    async def cancel(self) -> None:
        """Cancel the request, queued or running; the stream then ends with `RequestFailed` (499)."""
        await self._started()
        await self._cancel()

    async def aclose(self) -> None:
        """Read no further. The request itself goes on."""
        self._ended = True
        self._forget()
        if self._state is not None:
            self._state.finish(Unavailable(f"the stream of {self.request_id} was closed"))

    async def __aenter__(self) -> Self:
        await self._started()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # A reader that breaks out of `async for` drops the stream: nothing may pile up for it until the timeout.
        self._forget()

    async def _started(self) -> StreamState:
        if self._state is None:
            self._state = StreamState()
            await self._begin(self._state)
        return self._state


def answered(result: Result) -> Reply:
    """Return the reply that answers a request; raise what any other result means."""
    if isinstance(result, BrokerError):
        raise result
    if result.status != 200:  # noqa: PLR2004 - the only status that is an answer
        raise failure_of(result)
    return result
