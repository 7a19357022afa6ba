"""What a dialect is: how one provider's API is spoken. Pure functions and no I/O; a module of them is a `Dialect`.

A caller's body is OpenAI's, whatever provider answers it: a dialect writes it as the provider wants it, and reads
answers, streams and errors back into OpenAI's shapes. Imports schemas and our errors.
"""

import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Protocol

import orjson

from broker.errors import BadUpstreamResponse, InvalidRequest, RequestError
from workers.providers.base import CallResult, Outbound, SoFar
from workers.providers.catalog import NOTHING_ASKED, ResolvedDeployment
from workers.providers.openai_stream import Completion, written
from workers.providers.sse import Event, SseParser, TooLarge
from workers.providers.transport import MAX_BODY_BYTES


class Stream(Protocol):
    """Puts one streamed answer together; fed with what the upstream sends, then asked for `body`.

    Asked for `so_far` instead where the stream broke or was cut off, also after `feed` raised.
    """

    @property
    def done(self) -> bool:
        """Whether the stream said that it is over."""
        ...

    @property
    def begun(self) -> bool:
        """Whether anything came that a reader would miss; true from the chunk on, before it is yielded."""
        ...

    def feed(self, piece: bytes) -> Iterator[tuple[bytes, bool]]:
        """Take bytes; yield OpenAI chunks as JSON, each with whether it is for a caller who asked for no usage.

        Raises `BadUpstreamResponse` for anything that is no such stream, and the error an event carries.
        """
        ...

    def finished(self) -> bool:
        """Whether the answer is whole, be it that the stream's own end or its usage is still to come."""
        ...

    def body(self) -> dict[str, Any]:
        """Return the OpenAI body of the whole answer. Raises `BadUpstreamResponse` where the stream was cut."""
        ...

    def so_far(self) -> SoFar:
        """Return what has come, with the usage told so far; never raises."""
        ...


class Dialect(Protocol):
    """Functions of a module. `target` is the deployment as it was worked out, `endpoint` OpenAI's path (`/v1/…`)."""

    def streamed(self, endpoint: str) -> bool:
        """Whether answers of `endpoint` can be streamed."""
        ...

    def outbound(
        self, target: ResolvedDeployment, endpoint: str, body: Mapping[str, Any], *, streams: bool
    ) -> Outbound:
        """Return the request to send. `body` must not be changed.

        Raises `InvalidRequest` naming the `param` that the provider cannot take, unless the deployment drops it, or
        that is malformed; and for an endpoint the provider does not have.
        """
        ...

    def answer(
        self,
        target: ResolvedDeployment,
        endpoint: str,
        asked: Mapping[str, Any],
        raw: bytes,
        headers: Mapping[str, str],
    ) -> CallResult:
        """Read an answer of status 2xx; the result's body is OpenAI's.

        Raises `BadUpstreamResponse` where it is none, never anything but a `RequestError`.
        """
        ...

    def stream(self, target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any]) -> Stream:
        """Return what puts a streamed answer together."""
        ...

    def error(self, status: int, headers: Mapping[str, str], raw: bytes, now: float) -> RequestError:
        """Return the error of an answer that is not 2xx, by status, then typed field, then words; `now` unix s."""
        ...


def cannot_take(target: ResolvedDeployment, param: str, why: str = "") -> None:
    """Refuse a parameter the provider does not have, as `ResolvedDeployment.cannot_take` does."""
    target.cannot_take(param, why)


def refuse_absent(
    target: ResolvedDeployment, asked: Mapping[str, Any], absent: frozenset[str], *, own: Collection[str] = ()
) -> frozenset[str]:
    """Refuse parameters of OpenAI's that the API does not have, where they ask for something; return what not to send.

    Those of `own` and of the deployment's `allowed_openai_params` are not refused but pass through by name.
    """
    refused = absent - frozenset(own) - frozenset(target.deployment.allowed_openai_params)
    for name in sorted(asked.keys() & refused):
        if asked[name] not in NOTHING_ASKED.get(name, ()):
            cannot_take(target, name)
    return refused


def given(target: ResolvedDeployment, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the caller's parameters over the deployment's defaults, without those it drops and without nulls."""
    return {
        name: value for name, value in target.merged(body).items() if name not in target.dropped and value is not None
    }


def encoded(out: Mapping[str, Any]) -> bytes:
    """Return a body as JSON. Raises `InvalidRequest` where it cannot be written."""
    try:
        return orjson.dumps(out)
    except TypeError as error:
        raise InvalidRequest(f"the body cannot be written as JSON: {error}") from None


def count(source: Mapping[str, Any], name: str) -> int:
    """Return a count of a provider's usage; 0 for what is none."""
    value = source.get(name)
    return value if type(value) is int and value > 0 else 0


class Parser(Protocol):
    """Cuts a byte stream into events."""

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that `piece` completes. Raises `TooLarge`, or `BadUpstreamResponse` for garbage."""
        ...


CHUNK: Final = "chat.completion.chunk"


class TranslatedStream:
    """Base of the streams of dialects that are not OpenAI's: a subclass turns each event into parts of chunks.

    Every chunk has one id, one `created` and one model. The last one before the end carries the usage alone, as with
    `stream_options.include_usage`; whoever did not ask for it is not given it.
    """

    def __init__(self, endpoint: str, model: str, *, parser: Parser | None = None) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        """A subclass replaces it by the provider's own id, before the first chunk."""
        self.model = model
        self.running: Mapping[str, Any] | None = None
        """A subclass sets it to the usage told before the end, in OpenAI's fields."""
        self.counts = False
        """Whether `running` counts all that came; else it tells the input alone."""
        self.held: list[str] = []
        """Text that a subclass holds back, beside a tool that stands in for a structured answer."""
        self._created = int(time.time())
        self._whole = Completion(endpoint)
        self._parser: Parser = parser or SseParser()
        self._left = MAX_BODY_BYTES

    @property
    def done(self) -> bool:
        """Whether the stream said that it is over: `finish` was called."""
        return self._whole.done

    @property
    def begun(self) -> bool:
        """Whether anything came that a reader would miss."""
        return self._whole.begun

    def events(self, event: Event) -> Iterator[Mapping[str, Any]]:
        """Yield the parts of chunks that an event makes: `{"choices": […]}` or `{"choices": [], "usage": {…}}`.

        Call `finish` when the provider says that the stream is over. Raises a `RequestError` for an error event, and
        `BadUpstreamResponse` for what cannot be read; KeyError, TypeError and the like are turned into one.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Note that the stream is over."""
        self._whole.done = True

    def feed(self, piece: bytes) -> Iterator[tuple[bytes, bool]]:
        """Take bytes; yield chunks, as `Stream` says."""
        self._left -= len(piece)
        if self._left < 0:
            raise BadUpstreamResponse("the upstream's stream is too long")
        try:
            events = self._parser.feed(piece)
        except TooLarge as error:
            raise BadUpstreamResponse(str(error)) from None
        for event in events:
            if self.done:
                return
            try:
                parts = list(self.events(event))
            except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError):
                raise BadUpstreamResponse("an event of the upstream's stream cannot be read") from None
            for part in parts:
                head = {"id": self.id, "object": CHUNK, "created": self._created, "model": self.model}
                chunk = {**head, **part}
                plain = self._whole.take(chunk)
                yield written(chunk), plain

    def finished(self) -> bool:
        """Whether the answer is whole."""
        return self._whole.finished()

    def body(self) -> dict[str, Any]:
        """Return the whole, as `Stream` says."""
        return self._whole.body()

    def so_far(self) -> SoFar:
        """Return what has come, as `Stream` says; what is held back has come, too, and is charged."""
        found = self._whole.so_far()
        choices = found.body.get("choices")
        if choices and self.held:
            message = {**choices[0]["message"], "content": "".join(self.held)}
            found = found._replace(body={**found.body, "choices": [{**choices[0], "message": message}]})
        if "usage" in found.body or self.running is None:
            return found
        return SoFar({**found.body, "usage": self.running}, self.counts)


def delta(fields: Mapping[str, Any], *, finish: str | None = None, index: int = 0) -> dict[str, Any]:
    """Return the part of a chunk that changes one choice."""
    return {"choices": [{"index": index, "delta": dict(fields), "finish_reason": finish}]}


def usage_part(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a chunk that tells the usage, in OpenAI's fields."""
    return {"choices": [], "usage": dict(usage)}
