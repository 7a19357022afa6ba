"""What a provider call takes and gives. Imports schemas, broker errors and configuration models; no client library."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from broker.config import Deployment
from broker.ledger.units import Units


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them; `raw` is its own usage object.

    Cached tokens are part of input, reasoning tokens are part of output.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    """Heard and spoken together; `raw` tells each side."""
    estimated: bool = False
    raw: Mapping[str, Any] | None = None
    units: Units | None = None
    """What was counted here beside tokens and is in no usage of the provider's; None for a plain answer."""


class Outbound(NamedTuple):
    """An HTTP POST to a provider; `headers` go on top of those of the deployment."""

    url: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CallResult:
    """A good answer. `body` is the OpenAI body, a reply's value; `model` is what the provider says it ran."""

    body: bytes
    model: str
    usage: Usage
    ttft_ms: int | None = None
    service_tier: str | None = None
    stated_cost: str | None = None
    """USD as the provider stated it, a decimal text."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The provider's rate-limit headers, names in lower case."""


class SoFar(NamedTuple):
    """What a stream has put together: an OpenAI body, perhaps cut in the middle.

    `counted`: its `usage` counts all that came. Where it does not, it may still tell the input, or be missing.
    """

    body: dict[str, Any]
    counted: bool


@dataclass(frozen=True, slots=True)
class Partial:
    """What a stream had produced, and the provider charges, when it broke or was cut off."""

    model: str
    usage: Usage
    """As the provider counted it, else estimated from what was sent and what came, and marked."""
    service_tier: str | None = None
    ttft_ms: int | None = None


class Progress:
    """How far one streamed call has come; who makes the call asks when it failed or was cut off."""

    __slots__ = ("_ask", "chunks", "ttft_ms", "unsent")

    def __init__(self) -> None:
        self.chunks = 0
        """Chunks that were handed on: from the first one on, the call must not be made again."""
        self.ttft_ms: int | None = None
        self.unsent = False
        """Whether nothing went out to the provider: files are fetched, a token is waited for, or it could not be."""
        self._ask: Callable[[int | None], Partial | None] | None = None

    def follow(self, ask: Callable[[int | None], Partial | None]) -> None:
        """Have `partial` ask, with the time to the first token."""
        self._ask = ask

    def partial(self) -> Partial | None:
        """Return what was produced; None where nothing is known to be, as with a call that is not streamed."""
        return None if self._ask is None else self._ask(self.ttft_ms)


@dataclass(frozen=True, slots=True)
class Call:
    """One upstream call. `timeout` is seconds from connecting to the last byte; `body` must not be changed.

    `progress` is filled in by the client while it streams.
    """

    deployment: Deployment
    endpoint: str
    body: Mapping[str, Any]
    timeout: float
    request_id: str
    traceparent: str | None = None
    progress: Progress = field(default_factory=Progress, compare=False, repr=False)


OnChunk = Callable[[bytes], Awaitable[None]]
"""Given each SSE `data:` JSON of a stream as it arrives, `[DONE]` left out; the first one when content comes."""


class ProviderClient(Protocol):
    """Makes calls; one per worker process, safe for use by thousands of tasks."""

    async def call(self, call: Call, on_chunk: OnChunk | None = None) -> CallResult:
        """Make one call; with `on_chunk` it streams, and the result carries the whole completion all the same.

        Raises a `RequestError`: `UpstreamTimeout`, `UpstreamUnreachable`, `BadUpstreamResponse`, `InvalidRequest`,
        `ContextLengthExceeded`, `ContentPolicyViolation`, or `UpstreamError` with the upstream's own status and message
        and `retry_after` in seconds where the upstream gave one. Nothing else comes out of it but cancellation, which
        closes the connection. Whatever ends a stream early, `call.progress` tells what came of it.
        """
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
