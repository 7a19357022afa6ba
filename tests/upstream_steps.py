"""What the upstream of `tests.upstream` can do with a request: one class a step. Imports nothing of the product."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

_STATUSES: Final = frozenset(HTTPStatus)
JSON_TYPE: Final = "application/json"
SSE_TYPE: Final = "text/event-stream; charset=utf-8"


@dataclass(slots=True)
class ReceivedCall:
    """One request as the upstream saw it; times are `time.monotonic()` seconds."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    started: float
    finished: float | None = None
    disconnected: bool = False
    """The client closed the connection before it had the whole answer."""
    _json: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def request_id(self) -> str:
        """What the caller sent as `x-request-id`."""
        return self.headers.get("x-request-id", "")

    @property
    def json(self) -> dict[str, Any]:
        """The body, parsed; empty where it is not a JSON object."""
        if self._json is None:
            try:
                parsed = json.loads(self.body)
            except ValueError:
                parsed = {}
            self._json = parsed if isinstance(parsed, dict) else {}
        return self._json

    @property
    def model(self) -> str:
        """The model the body names."""
        return str(self.json.get("model", ""))

    @property
    def prompt(self) -> str:
        """The last message, the prompt or the input, as text."""
        messages = self.json.get("messages")
        if isinstance(messages, list) and messages:
            return str(messages[-1].get("content", ""))
        return str(self.json.get("prompt", self.json.get("input", "")))


@dataclass(slots=True)
class Wire:
    """Bytes to send, piece by piece with `gap` seconds between; then keep the connection, close it, or hang."""

    pieces: list[bytes]
    gap: float = 0.0
    close: bool = False
    hang: bool = False


def head(status: int, content_type: str, length: int | None, headers: Mapping[str, str] | None = None) -> bytes:
    """Status line and headers; `length` None means chunked."""
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    phrase = HTTPStatus(status).phrase if status in _STATUSES else "Unnamed"
    lines = [f"HTTP/1.1 {status} {phrase}", f"content-type: {content_type}", framing]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(data: object) -> bytes:
    """One SSE event."""
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


def completion(call: ReceivedCall, text: str, usage: Mapping[str, Any] | None) -> dict[str, Any]:
    """Build the OpenAI body for the endpoint that was called."""
    body: dict[str, Any]
    if call.path.endswith("/embeddings"):
        asked = call.json.get("input", "")
        inputs = asked if isinstance(asked, list) and asked and not isinstance(asked[0], int) else [asked]
        data = [{"object": "embedding", "index": i, "embedding": [0.25, -0.5, 1.0]} for i in range(len(inputs))]
        body = {"object": "list", "data": data, "model": call.model}
    elif call.path.endswith("/chat/completions"):
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": call.model, "choices": [choice]}
    else:
        choice = {"index": 0, "text": text, "finish_reason": "stop"}
        body = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": call.model, "choices": [choice]}
    return body if usage is None else {**body, "usage": dict(usage)}


def stream_events(call: ReceivedCall, text: str, usage: Mapping[str, Any] | None) -> list[bytes]:
    """Build the SSE events of a streamed completion, `[DONE]` last; the usage chunk only where it was asked for."""
    chat = call.path.endswith("/chat/completions")
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk" if chat else "text_completion", "created": 1}
    base["model"] = call.model
    words = [word + " " for word in text.split(" ")]
    words[-1] = words[-1][:-1]
    choices: list[dict[str, Any]] = []
    if chat:
        choices.append({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None})
        choices += [{"index": 0, "delta": {"content": word}, "finish_reason": None} for word in words]
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    else:
        choices += [{"index": 0, "text": word, "finish_reason": None} for word in words]
        choices.append({"index": 0, "text": "", "finish_reason": "stop"})
    events = [event({**base, "choices": [choice]}) for choice in choices]
    if usage is not None and (call.json.get("stream_options") or {}).get("include_usage"):
        events.append(event({**base, "choices": [], "usage": dict(usage)}))
    return [*events, event(b"[DONE]")]


USAGE: Final = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


@dataclass(frozen=True, kw_only=True)
class Step:
    """What to do with one request. `delay`: seconds before the first byte."""

    delay: float = 0.0

    def wire(self, call: ReceivedCall) -> Wire:
        """Return what to send."""
        raise NotImplementedError


@dataclass(frozen=True)
class Ok(Step):
    """A good answer, streamed where the request asks for it; without `text` it is `echo: ` and the prompt."""

    text: str | None = None
    usage: Mapping[str, Any] | None = field(default_factory=lambda: USAGE)
    headers: Mapping[str, str] = field(default_factory=dict)
    chunk_delay: float = 0.0
    """Seconds between the events of a stream."""

    def wire(self, call: ReceivedCall) -> Wire:
        text = f"echo: {call.prompt}" if self.text is None else self.text
        if call.json.get("stream"):
            events = stream_events(call, text, self.usage)
            return Events(events, headers=self.headers, chunk_delay=self.chunk_delay).wire(call)
        return Raw(json.dumps(completion(call, text, self.usage)), headers=self.headers).wire(call)


@dataclass(frozen=True)
class Raw(Step):
    """Any body; `length` is the content-length to claim, where it is not the truth."""

    body: str | bytes
    status: int = 200
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None

    def wire(self, call: ReceivedCall) -> Wire:
        del call
        body = self.body.encode() if isinstance(self.body, str) else self.body
        length = len(body) if self.length is None else self.length
        return Wire([head(self.status, self.content_type, length, self.headers) + body], close=length > len(body))


@dataclass(frozen=True)
class Status(Step):
    """An error. Without `body` it is OpenAI's error object; `retry_after` goes into the header as it is."""

    status: int
    retry_after: float | str | None = None
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def wire(self, call: ReceivedCall) -> Wire:
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        default = {"error": {"message": f"scripted {self.status}", "type": "scripted", "param": None, "code": None}}
        body = json.dumps(default if self.body is None else self.body)
        return Raw(body, self.status, headers={**headers, **self.headers}).wire(call)


@dataclass(frozen=True)
class Html(Step):
    """A web page where JSON was asked for."""

    status: int = 200

    def wire(self, call: ReceivedCall) -> Wire:
        page = "<!doctype html><html><body><h1>Please log in</h1></body></html>"
        return Raw(page, self.status, "text/html; charset=utf-8").wire(call)


@dataclass(frozen=True)
class TruncatedJson(Step):
    """The first `keep` bytes of a good body, correctly framed, as if they were all."""

    keep: int = 60

    def wire(self, call: ReceivedCall) -> Wire:
        return Raw(json.dumps(completion(call, "cut", USAGE))[: self.keep]).wire(call)


@dataclass(frozen=True)
class Sse(Step):
    """A stream, whether or not one was asked for."""

    def wire(self, call: ReceivedCall) -> Wire:
        return Events(stream_events(call, "not asked for", USAGE)).wire(call)


@dataclass(frozen=True)
class Drop(Step):
    """Close the connection: before the answer, or after `after_bytes` of its body."""

    after_bytes: int | None = None

    def wire(self, call: ReceivedCall) -> Wire:
        if self.after_bytes is None:
            return Wire([], close=True)
        body = json.dumps(completion(call, "dropped", USAGE)).encode()
        return Wire([head(200, JSON_TYPE, len(body)) + body[: self.after_bytes]], close=True)


@dataclass(frozen=True)
class Hang(Step):
    """Never answer; with `after_head` the headers arrive and the body never does."""

    after_head: bool = False

    def wire(self, call: ReceivedCall) -> Wire:
        del call
        return Wire([head(200, JSON_TYPE, 100)] if self.after_head else [], hang=True)


@dataclass(frozen=True)
class Events(Step):
    """A stream of exactly these SSE events (bytes, or objects to be written as JSON); `breaks` drops it after them."""

    events: Sequence[object]
    headers: Mapping[str, str] = field(default_factory=dict)
    chunk_delay: float = 0.0
    breaks: bool = False

    def wire(self, call: ReceivedCall) -> Wire:
        del call
        events = [item if isinstance(item, bytes) and b"\n" in item else event(item) for item in self.events]
        pieces = [chunk(item) for item in events]
        pieces[0] = head(200, SSE_TYPE, None, self.headers) + pieces[0]
        if not self.breaks:
            pieces[-1] += b"0\r\n\r\n"
        if not self.chunk_delay:
            pieces = [b"".join(pieces)]
        return Wire(pieces, gap=self.chunk_delay, close=self.breaks)


@dataclass(frozen=True)
class BreakingStream(Step):
    """A good stream that is dropped after `after` events."""

    after: int = 2
    chunk_delay: float = 0.0

    def wire(self, call: ReceivedCall) -> Wire:
        events = stream_events(call, "this stream breaks before its end", USAGE)[: self.after]
        return Events(events, breaks=True, chunk_delay=self.chunk_delay).wire(call)


STEPS: Final[dict[str, Callable[..., Step]]] = {
    step.__name__: step for step in (Ok, Raw, Status, Html, TruncatedJson, Sse, Drop, Hang, Events, BreakingStream)
}
