"""The first engine of the transport seam: pyreqwest (Rust's reqwest), 44–70 µs CPU a call. Imports pyreqwest."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Final, Self, cast

from pyreqwest import exceptions as engine
from pyreqwest.client import ClientBuilder
from pyreqwest.request import RequestBuilder, StreamRequest
from pyreqwest.response import BaseResponse, ResponseBodyReader

from broker.errors import RequestError
from workers.providers.transport import (
    CONNECT_TIMEOUT,
    MAX_BODY_BYTES,
    USER_AGENT,
    Fault,
    HeaderList,
    Response,
    StreamedResponse,
    fault_of,
    request_error,
)

FAULTS: Final[dict[type[BaseException], Fault]] = {
    engine.PyreqwestError: Fault.UNREACHABLE,
    engine.DetailedPyreqwestError: Fault.UNREACHABLE,
    engine.RequestError: Fault.UNREACHABLE,
    engine.TransportError: Fault.UNREACHABLE,
    engine.NetworkError: Fault.UNREACHABLE,
    engine.ConnectError: Fault.UNREACHABLE,
    engine.WriteError: Fault.UNREACHABLE,
    engine.ClientClosedError: Fault.UNREACHABLE,
    engine.RequestPanicError: Fault.UNREACHABLE,
    engine.RequestTimeoutError: Fault.TIMEOUT,
    engine.ConnectTimeoutError: Fault.TIMEOUT,
    engine.ReadTimeoutError: Fault.TIMEOUT,
    engine.WriteTimeoutError: Fault.TIMEOUT,
    engine.PoolTimeoutError: Fault.TIMEOUT,
    engine.ReadError: Fault.BROKEN,  # "while reading body", says its docstring: the head had come
    engine.DecodeError: Fault.BROKEN,
    engine.BodyDecodeError: Fault.BROKEN,
    engine.JSONDecodeError: Fault.BROKEN,
    engine.RedirectError: Fault.BROKEN,
    engine.StatusError: Fault.BROKEN,
    engine.BuilderError: Fault.UNSENDABLE,
    TimeoutError: Fault.TIMEOUT,
    ValueError: Fault.UNSENDABLE,  # raised by the builder for URLs and headers it cannot parse
}


class PyreqwestTransport:
    """`Transport` on pyreqwest. Its runtime is one thread beside the event loop; make it after forking.

    A call that is cancelled before its headers came ends at once for the caller, but its connection stays until more of
    the answer comes or the call's timeout: 0.15.1 drops its task's handle without aborting it (`spawn_handled` in its
    `runtime.rs`). Once the headers are there, cancelling closes it at once.
    """

    name = "pyreqwest"

    def __init__(self, in_flight: int, *, connect_timeout: float = CONNECT_TIMEOUT) -> None:
        self._client = (
            ClientBuilder()
            .no_proxy()
            .http1_only()
            .follow_redirects(enable=False)
            .referer(enable=False)
            .user_agent(USER_AGENT)
            .connect_timeout(timedelta(seconds=connect_timeout))
            .pool_max_idle_per_host(in_flight)
            .build()
        )

    async def post(
        self, url: str, *, headers: HeaderList, body: bytes, timeout: float, max_bytes: int = MAX_BODY_BYTES
    ) -> Response:
        """POST and read the whole answer, as the seam says.

        Reading as a stream costs what reading at once does (both measured at 50–54 µs a call), and can be cut off.
        """
        inside_body, guard = False, _Guard()
        try:
            async with self._request(url, headers, body, timeout).build_streamed() as answer:
                guard.check()
                inside_body = True
                reader, pieces, left = answer.body_reader, [], max_bytes
                while left >= 0 and (piece := await reader.read(left + 1)) is not None:
                    guard.check()
                    pieces.append(bytes(piece))
                    left -= len(piece)
                guard.check()
                if left >= 0:
                    whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                    return Response(answer.status, _headers(answer), whole)
        except (engine.PyreqwestError, ValueError) as error:
            guard.check()
            raise _mapped(error, url, headers, inside_body=inside_body) from None
        raise request_error(Fault.BROKEN, f"larger than {max_bytes} bytes", url, headers)

    def stream(
        self, url: str, *, headers: HeaderList, body: bytes, timeout: float, read_timeout: float
    ) -> AbstractAsyncContextManager[StreamedResponse]:
        """POST and return once the headers are there, as the seam says."""
        return _Stream(lambda: self._request(url, headers, body, timeout), url, headers, read_timeout)

    def _request(self, url: str, headers: HeaderList, body: bytes, timeout: float) -> RequestBuilder:
        return self._client.post(url).headers(headers).body_bytes(body).timeout(timedelta(seconds=timeout))

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


class _Stream:
    """One streamed call: the context manager and the response at once."""

    def __init__(self, build: Callable[[], RequestBuilder], url: str, headers: HeaderList, read_timeout: float) -> None:
        self._build = build
        self._url = url
        self._sent = headers
        self._read_timeout = read_timeout
        self._request: StreamRequest
        self._reader: ResponseBodyReader
        self.status = 0
        self.headers: Mapping[str, str] = {}

    async def __aenter__(self) -> Self:
        guard = _Guard()
        try:
            # The engine's own limit is 64 KiB, and it holds the headers back until so much has come.
            self._request = self._build().streamed_read_buffer_limit(0).build_streamed()
            async with asyncio.timeout(self._read_timeout):
                answer = await self._request.__aenter__()
        except (engine.PyreqwestError, ValueError, TimeoutError) as error:
            guard.check()
            raise _mapped(error, self._url, self._sent, inside_body=False) from None
        if guard.cancelled():
            await self._request.__aexit__(None, None, None)
            guard.check()
        self.status, self.headers, self._reader = answer.status, _headers(answer), answer.body_reader
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._request.__aexit__(*error)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        guard = _Guard()
        try:
            async with asyncio.timeout(self._read_timeout):
                piece = await self._reader.read_chunk()
        except (engine.PyreqwestError, TimeoutError) as error:
            guard.check()
            raise _mapped(error, self._url, self._sent, inside_body=True) from None
        guard.check()
        if piece is None:
            raise StopAsyncIteration
        return bytes(piece)


class _Guard:
    """Finds the cancellation that the engine lost.

    A cancellation that arrives together with the engine's answer is dropped: the await returns the answer, and the task
    would run on as if nobody had asked it to stop. The task still counts the request, as `cancelling()`.
    """

    __slots__ = ("_before", "_task")

    def __init__(self) -> None:
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._before = self._task.cancelling()

    def cancelled(self) -> bool:
        """Whether somebody asked to cancel since this was made."""
        return self._task.cancelling() > self._before

    def check(self) -> None:
        """Raise what was lost."""
        if self.cancelled():
            raise asyncio.CancelledError


def _headers(answer: BaseResponse) -> Mapping[str, str]:
    """Copy the headers, names in lower case as the engine keeps them; a repeated one is joined."""
    headers = answer.headers.dict_multi_value()
    return {name: value if isinstance(value, str) else ", ".join(value) for name, value in headers.items()}


def _mapped(error: Exception, url: str, headers: HeaderList, *, inside_body: bool) -> RequestError:
    """Translate; of the engine's chain of causes only the last is shown, the first quotes the URL."""
    if isinstance(error, engine.DetailedPyreqwestError):
        causes = error.details.get("causes") or []
        reason = causes[-1]["message"] if len(causes) > 1 else error.message
    else:
        reason = "no data in time" if isinstance(error, TimeoutError) else type(error).__name__
    fault = fault_of(error, FAULTS) or Fault.UNREACHABLE
    return request_error(Fault.BROKEN if inside_body and fault is Fault.UNREACHABLE else fault, reason, url, headers)
