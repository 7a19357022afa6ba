"""What one simulated API is: how it knows its callers, checks a request, answers, streams and fails.

Every API is a module of pure functions that ends in a tuple of routes.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from urllib.parse import parse_qs

import orjson

from broker.simulate.answers import Answer, Wanted
from broker.simulate.shapes import Wrong

Body = Mapping[str, Any]
JSON: Final = "application/json"
SSE: Final = "text/event-stream; charset=utf-8"

REASONS: Final[Mapping[str, int]] = {
    "invalid": 400, "auth": 401, "permission": 403, "model": 404, "path": 404, "context": 400, "policy": 400,
    "quota": 429, "rate": 429, "server": 500, "unavailable": 503, "overloaded": 529, "timeout": 504,
}  # fmt: skip
"""Why a request is refused, and the usual status; an API may have another one for it."""


class Refused(Exception):
    """A request is refused for one of `REASONS`; `code` and `kind` are the provider's own words where it has some."""

    def __init__(  # noqa: PLR0913 - one parameter a field of the error body
        self, message: str, reason: str = "invalid", *, param: str | None = None, status: int | None = None,
        code: str | None = None, kind: str | None = None, wait: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.param = param
        self.status = REASONS[reason] if status is None else status
        self.code = code
        self.kind = kind
        self.wait = wait
        """Seconds until a limit lets the next request in."""


def refuse(message: str, param: str | None = None, code: str | None = None) -> NoReturn:
    """Refuse a request as malformed."""
    raise Refused(message, param=param, code=code)


@dataclass(frozen=True)
class Sent:
    """A request as it arrived. Header names are lower case."""

    method: str
    target: str
    """Path and query as they stood in the request line."""
    headers: Mapping[str, str]
    raw: bytes
    names: Mapping[str, str] = field(default_factory=dict)
    """What the route found in the path, percent-decoded."""

    @property
    def path(self) -> str:
        """The path without the query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The last value of each parameter of the query."""
        return {name: values[-1] for name, values in parse_qs(self.target.partition("?")[2]).items()}

    def body(self) -> dict[str, Any]:
        """Return the JSON object that was sent. Raises `Refused`."""
        try:
            body = orjson.loads(self.raw)
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            refuse("We could not parse the JSON body of your request: a JSON object is expected.")
        return body


@dataclass(frozen=True)
class Job:
    """A request that was found good, and how its answer is written down."""

    wanted: Wanted
    whole: Callable[[Answer], object]
    """The body: JSON, or bytes of the type `media`."""
    events: Callable[[Answer], Iterator[bytes]] | None = None
    """The stream; None where the endpoint has none."""
    media: str = JSON
    stream_media: str = SSE
    headers: Callable[[Answer], Mapping[str, str]] = lambda _: {}
    """Headers that belong to this answer."""


@dataclass(frozen=True)
class Limits:
    """What the limits leave after a call. Times are seconds from now; None where there is no such limit."""

    rpm: int | None = None
    requests_left: int = 0
    requests_reset: float = 0.0
    tpm: int | None = None
    tokens_left: int = 0
    tokens_reset: float = 0.0
    input_used: int = 0
    output_used: int = 0
    wait: float = 0.0
    unix: float = 0.0
    """Now, in unix seconds, for providers that name the moment of the reset."""


@dataclass(frozen=True)
class Failure:
    """An error as the API writes it."""

    status: int
    body: object
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Api:
    """How one provider words what all of them have."""

    name: str
    phrase: Callable[[Wrong], Refused]
    """A broken rule in the provider's words."""
    fail: Callable[[Refused], Failure]
    limits: Callable[[Limits], Mapping[str, str]]
    context: Callable[[int, int], Refused]
    """The error of a prompt of so many tokens at a window of so many."""
    error_event: Callable[[Failure], bytes]
    """An error in the middle of a stream."""
    policy_is_an_answer: bool = False
    """Whether a prompt against the policy gets status 200 and says so in the body."""
    identify: Callable[[str], Mapping[str, str]] = lambda _: {}
    """Headers every answer has, from an id of its own."""
    crowded: Callable[[int, int, int], Refused] | None = None
    """The error of a prompt, a bound on the answer and a window that together do not fit; None where they may."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Reason → the message the provider has for it."""


@dataclass(frozen=True)
class Route:
    """One endpoint."""

    api: Api
    pattern: re.Pattern[str]
    authorize: Callable[[Sent], None]
    check: Callable[[Sent], Job]
    method: str = "POST"
    whose: "Callable[[Sent], Route] | None" = None
    """Where the body tells which API is meant: the route to take instead."""


def route(
    api: Api, path: str, authorize: Callable[[Sent], None], check: Callable[[Sent], Job], method: str = "POST"
) -> Route:
    """Build a route of a path in which `{name}` stands for one segment."""
    parts = re.split(r"\{(\w+)\}", path)
    pattern = "".join(f"(?P<{part}>[^/]+?)" if number % 2 else re.escape(part) for number, part in enumerate(parts))
    return Route(api, re.compile(pattern), authorize, check, method)


def sse(data: object, event: str | None = None) -> bytes:
    """Write one server-sent event."""
    head = b"" if event is None else b"event: %s\n" % event.encode()
    return head + b"data: %s\n\n" % orjson.dumps(data)


def no_headers(limits: Limits) -> Mapping[str, str]:
    """Tell nothing of the limits, as some providers do."""
    del limits
    return {}


def bearer(sent: Sent) -> str | None:
    """Return the token of `authorization: Bearer …`, None without one."""
    scheme, _, token = sent.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
