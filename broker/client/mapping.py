"""Sends many requests with a bound on what is in flight and yields their results as they come."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from dataclasses import replace
from itertools import count
from types import MappingProxyType
from typing import Any, Final

import orjson

from broker.client.errors import ReplyTimeout
from broker.client.exchange import Exchange, lifetime
from broker.client.mailbox import Result, Waiting
from broker.client.request import Request
from broker.envelope import Reply
from broker.errors import BrokerError, RequestError

BREATH: Final = 128
"""Requests launched in one go before other tasks get a turn."""

NO_BODY: Final[Mapping[str, Any]] = MappingProxyType({})

Requests = Iterable[Request] | AsyncIterable[Request]


def new_id() -> str:
    """Return a request id that nobody else draws."""
    return uuid.uuid4().hex


def reply_of(request: Request, error: BrokerError) -> Reply:
    """Tell as a reply (`attempts` 0) why a request never got one."""
    if isinstance(error, RequestError):
        status, body = error.status, error.body()
    else:
        status, code = (error.status, error.code) if isinstance(error, ReplyTimeout) else (503, "unavailable")
        body = {"error": {"message": str(error), "type": "api_error", "param": None, "code": code}}
    metadata = request.options.metadata
    return Reply(
        request_id=request.request_id or "",
        value=orjson.dumps(body),
        final=True,
        status=status,
        alias=request.alias,
        metadata=None if metadata is None else orjson.dumps(metadata),
    )


class Mapper:
    """One pass over many requests. A request occupies a slot until its result was taken by the reader."""

    def __init__(self, exchange: Exchange, in_flight: int) -> None:
        if in_flight < 1:
            raise ValueError(f"in_flight must be at least 1, not {in_flight}")
        self._exchange = exchange
        self._slots = asyncio.Semaphore(in_flight)
        self._results: asyncio.Queue[tuple[Request, Result] | None] = asyncio.Queue()
        self._waiting: dict[str, Waiting] = {}
        self._taken = 0

    async def run(self, requests: Requests) -> AsyncGenerator[tuple[Request, Result], None]:
        """Yield each request (with its id, without its body) and its result; raises what the iterable raises."""
        feeder = asyncio.create_task(self._feed(requests), name="broker-client-map")
        feeder.add_done_callback(lambda _: self._results.put_nowait(None))
        try:
            while not (feeder.done() and self._taken == 0):
                item = await self._results.get()
                if item is None:
                    feeder.result()
                    continue
                self._taken -= 1
                self._slots.release()
                yield item
            feeder.result()
        finally:
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)
            for waiting in self._waiting.values():
                self._exchange.forget(waiting)

    async def _feed(self, requests: Requests) -> None:
        source = _each(requests)
        for launched in count(1):
            # A slot first: what the source computes for a request (what is left to a deadline) must not grow stale.
            await self._slots.acquire()
            request = await anext(source, None)
            if request is None:
                return
            self._taken += 1
            await self._launch(request)
            if launched % BREATH == 0:
                await asyncio.sleep(0)

    async def _launch(self, request: Request) -> None:
        request_id = request.request_id or new_id()
        # What is kept until the reply comes must not hold the body: megabytes, times all that are in flight.
        kept = replace(request, request_id=request_id, body=NO_BODY)

        def finish(result: Result) -> None:
            self._waiting.pop(request_id, None)
            self._results.put_nowait((kept, result))

        waiting = Waiting(request_id, finish, timeout=lifetime(request.options))
        try:
            await self._exchange.launch(request, waiting)
        except BrokerError as error:
            self._results.put_nowait((kept, error))
        else:
            self._waiting[request_id] = waiting


async def _each(requests: Requests) -> AsyncIterator[Request]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request
