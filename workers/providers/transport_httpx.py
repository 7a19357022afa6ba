"""The second engine of the transport seam: httpx, where pyreqwest has no wheel. Imports httpx."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Self

import httpx

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
    httpx.HTTPError: Fault.UNREACHABLE,
    httpx.RequestError: Fault.UNREACHABLE,
    httpx.TransportError: Fault.UNREACHABLE,
    httpx.NetworkError: Fault.UNREACHABLE,
    httpx.ConnectError: Fault.UNREACHABLE,
    httpx.ReadError: Fault.UNREACHABLE,  # before the head; inside a body it is BROKEN, see `_mapped`
    httpx.WriteError: Fault.UNREACHABLE,
    httpx.CloseError: Fault.UNREACHABLE,
    httpx.ProxyError: Fault.UNREACHABLE,
    httpx.TimeoutException: Fault.TIMEOUT,
    httpx.ConnectTimeout: Fault.TIMEOUT,
    httpx.ReadTimeout: Fault.TIMEOUT,
    httpx.WriteTimeout: Fault.TIMEOUT,
    httpx.PoolTimeout: Fault.TIMEOUT,
    httpx.ProtocolError: Fault.BROKEN,
    httpx.RemoteProtocolError: Fault.BROKEN,
    httpx.DecodingError: Fault.BROKEN,
    httpx.TooManyRedirects: Fault.BROKEN,
    httpx.HTTPStatusError: Fault.BROKEN,
    httpx.StreamError: Fault.BROKEN,
    httpx.StreamConsumed: Fault.BROKEN,
    httpx.StreamClosed: Fault.BROKEN,
    httpx.ResponseNotRead: Fault.BROKEN,
    httpx.RequestNotRead: Fault.BROKEN,
    httpx.CookieConflict: Fault.BROKEN,
    httpx.LocalProtocolError: Fault.UNSENDABLE,
    httpx.UnsupportedProtocol: Fault.UNSENDABLE,
    httpx.InvalidURL: Fault.UNSENDABLE,
    ValueError: Fault.UNSENDABLE,  # header values that are no latin-1, a NUL in the host
    RuntimeError: Fault.UNREACHABLE,  # "the client has been closed"
    TimeoutError: Fault.TIMEOUT,
}
_NO_ANSWER: Final = "Server disconnected without sending a response."
"""httpcore's words; the same class as for an answer that breaks off, and nothing else tells the two apart."""


class HttpxTransport:
    """`Transport` on httpx. `transport` replaces the network, for tests."""

    name = "httpx"

    def __init__(
        self,
        in_flight: int,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it writes every URL, with the keys in some
        self._connect_timeout = connect_timeout
        self._client = httpx.AsyncClient(
            trust_env=False,
            headers={"user-agent": USER_AGENT},
            limits=httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight),
            transport=transport,
        )

    async def post(
        self, url: str, *, headers: HeaderList, body: bytes, timeout: float, max_bytes: int = MAX_BODY_BYTES
    ) -> Response:
        """POST and read the whole answer, as the seam says."""
        content = bytearray()
        async with self.stream(url, headers=headers, body=body, timeout=timeout, read_timeout=timeout) as answer:
            async for piece in answer:
                content += piece
                if len(content) > max_bytes:
                    raise request_error(Fault.BROKEN, f"larger than {max_bytes} bytes", url, headers)
            return Response(answer.status, answer.headers, bytes(content))

    def stream(
        self, url: str, *, headers: HeaderList, body: bytes, timeout: float, read_timeout: float
    ) -> AbstractAsyncContextManager[StreamedResponse]:
        """POST and return once the headers are there, as the seam says."""
        limits = httpx.Timeout(timeout, connect=min(self._connect_timeout, timeout), read=min(read_timeout, timeout))
        return _Stream(self._client, url, headers, body, timeout, limits)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


class _Stream:
    """One streamed call: the context manager and the response at once."""

    def __init__(  # noqa: PLR0913, PLR0917 - the arguments of `stream`, whose contract is on the seam
        self,
        client: httpx.AsyncClient,
        url: str,
        headers: HeaderList,
        body: bytes,
        timeout: float,
        limits: httpx.Timeout,
    ) -> None:
        self._client = client
        self._url = url
        self._sent = headers
        self._body = body
        self._timeout = timeout
        self._limits = limits
        self._ends = 0.0
        self._answer: httpx.Response
        self._pieces: AsyncIterator[bytes]
        self.status = 0
        self.headers: Mapping[str, str] = {}

    async def __aenter__(self) -> Self:
        self._ends = asyncio.get_running_loop().time() + self._timeout
        try:
            async with asyncio.timeout_at(self._ends):
                request = self._client.build_request(
                    "POST", self._url, headers=list(self._sent), content=self._body, timeout=self._limits
                )
                self._answer = await self._client.send(request, stream=True)
        except Exception as error:  # noqa: BLE001 - anyio lets groups of errors and overflows through
            raise self._mapped(error, inside_body=False) from None
        self.status, self.headers = self._answer.status_code, dict(self._answer.headers)
        self._pieces = self._answer.aiter_bytes()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._answer.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout_at(self._ends):
                return await anext(self._pieces)
        except StopAsyncIteration:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise self._mapped(error, inside_body=True) from None

    def _mapped(self, error: Exception, *, inside_body: bool) -> RequestError:
        fault = fault_of(error, FAULTS) or Fault.UNREACHABLE
        known = isinstance(error, httpx.HTTPError) and str(error)
        reason = known or type(error).__name__
        if inside_body and fault is Fault.UNREACHABLE:
            fault = Fault.BROKEN
        elif reason == _NO_ANSWER:
            fault = Fault.UNREACHABLE
        return request_error(fault, reason, self._url, self._sent)
