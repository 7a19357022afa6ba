"""The seam for HTTP: what a dialect's client needs of an engine, and how an engine's faults become our errors.

Imports broker errors and, when an engine is made, that engine; no dialect.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

from broker.errors import BadUpstreamResponse, RequestError, UpstreamTimeout, UpstreamUnreachable

HeaderList = Sequence[tuple[str, str]]

MAX_BODY_BYTES: Final = 64 << 20
"""The largest answer that is read: sixteen times the largest record a topic takes by default (4 MiB)."""

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for DNS, TCP and TLS together."""

USER_AGENT: Final = "queue-inference-broker"

_SHORTEST_SECRET: Final = 6


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer, whatever its status. Header names are in lower case; the body is decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class StreamedResponse(Protocol):
    """An answer whose body is still arriving; iterate it once for its bytes as they come, decompressed.

    Iterating raises `BadUpstreamResponse` when the connection breaks before the end of the body and `UpstreamTimeout`
    when nothing comes for the read timeout.
    """

    @property
    def status(self) -> int: ...  # noqa: D102 - named by itself
    @property
    def headers(self) -> Mapping[str, str]: ...  # noqa: D102 - named by itself
    def __aiter__(self) -> AsyncIterator[bytes]: ...


class Transport(Protocol):
    """Sends requests. One per worker process, made inside its event loop, safe for use by thousands of tasks.

    Timeouts are seconds; `timeout` runs from connecting to the last byte. Redirects are not followed, the proxies of
    the environment are not used. A connection is HTTP/1.1 and kept alive. Cancelling a call closes its connection, at
    the latest when more of its answer comes or its timeout passes (an engine says so where it cannot do it at once). No
    message of an error carries the URL's user, its query, or the value of a header.
    """

    async def post(
        self, url: str, *, headers: HeaderList, body: bytes, timeout: float, max_bytes: int = MAX_BODY_BYTES
    ) -> Response:
        """POST and read the whole answer.

        Raises `UpstreamUnreachable` when there is no answer, `UpstreamTimeout`, and `BadUpstreamResponse` when the
        answer breaks off, is not HTTP, or is larger than `max_bytes`.
        """
        ...

    def stream(
        self, url: str, *, headers: HeaderList, body: bytes, timeout: float, read_timeout: float
    ) -> AbstractAsyncContextManager[StreamedResponse]:
        """POST and return once the headers are there; leaving the context closes what was not read.

        `read_timeout` is the longest wait for the headers and between two pieces of the body. Raises as `post` does.
        """
        ...

    async def close(self) -> None:
        """Close every connection; calls under way fail with `UpstreamUnreachable`."""
        ...


Engine = Literal["pyreqwest", "httpx"]


def make_transport(
    in_flight: int, *, prefer: Engine = "pyreqwest", connect_timeout: float = CONNECT_TIMEOUT
) -> Transport:
    """Return an engine that keeps up to `in_flight` connections; `httpx` where pyreqwest has no wheel.

    Call it in the process, and for `httpx` in the loop, that will use it.
    """
    if prefer == "pyreqwest" and find_spec("pyreqwest") is not None:
        from workers.providers.transport_pyreqwest import PyreqwestTransport  # noqa: PLC0415 - the wheel may be missing

        return PyreqwestTransport(in_flight, connect_timeout=connect_timeout)
    from workers.providers.transport_httpx import HttpxTransport  # noqa: PLC0415 - 40 ms that the first engine saves

    return HttpxTransport(in_flight, connect_timeout=connect_timeout)


class Fault(Enum):
    """What an engine's error means; every class of error of an engine is in its table."""

    UNREACHABLE = "cannot reach"
    TIMEOUT = "timed out at"
    BROKEN = "broken answer from"
    UNSENDABLE = "cannot send to"
    """Our side: the URL or a header of the deployment is not valid. The engine's words may quote it, so they are
    dropped."""


_ERRORS: Final[dict[Fault, type[RequestError]]] = {
    Fault.UNREACHABLE: UpstreamUnreachable,
    Fault.TIMEOUT: UpstreamTimeout,
    Fault.BROKEN: BadUpstreamResponse,
    Fault.UNSENDABLE: UpstreamUnreachable,
}


def request_error(fault: Fault, reason: str, url: str, headers: HeaderList) -> RequestError:
    """Return the error to raise: where it happened and why, without anything that was meant for the upstream alone."""
    if fault is Fault.UNSENDABLE:
        reason = "the URL or a header of this deployment is not valid"
    for _, value in headers:
        for secret in {value, value.rpartition(" ")[2]}:
            if len(secret) >= _SHORTEST_SECRET:
                reason = reason.replace(secret, "***")
    return _ERRORS[fault](f"{fault.value} {origin(url)}: {reason}")


def origin(url: str) -> str:
    """Return scheme, host and port of a URL: what may be shown of it."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an invalid URL"
    return f"{parts.scheme}://{parts.hostname}{port}" if parts.hostname else "an invalid URL"


def fault_of(error: BaseException, table: Mapping[type[BaseException], Fault]) -> Fault | None:
    """Look an error up by its class, then by its nearest ancestor; None when it is not the engine's."""
    return next((table[kind] for kind in type(error).__mro__ if kind in table), None)
