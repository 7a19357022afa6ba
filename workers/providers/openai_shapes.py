"""Endpoints of OpenAI's API beside completions and embeddings: what their answers must hold, forms, sounds. Pure.

platform.openai.com/docs/api-reference: responses, moderations, images, audio. What is no JSON over HTTP is JSON in a
record: a file stands in base64, and so does spoken audio in its answer.
"""

import base64
import binascii
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson

from broker.errors import BadUpstreamResponse, InvalidRequest
from schemas.request import IMAGES, MODERATIONS, RERANK, RESPONSES, SPEECH, TRANSCRIPTIONS
from workers.providers.base import SoFar
from workers.providers.openai import error_inside
from workers.providers.sse import SseParser, TooLarge
from workers.providers.transport import MAX_BODY_BYTES

JSON: Final = "application/json"
ENDED: Final = frozenset({"response.completed", "response.incomplete"})
"""Events that carry the whole response and end its stream."""
HEADS: Final = frozenset(
    {
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    }
)
"""Events that say what is to come; nothing of the answer is in them yet."""


def form(body: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return a transcription's body as multipart/form-data (RFC 7578), and its content type.

    Raises `InvalidRequest` naming the field that a form cannot carry.
    """
    boundary = secrets.token_hex(16)
    parts: list[bytes] = []
    for name, value in body.items():
        if name == "file":
            parts.append(_file(value))
            continue
        for each in value if isinstance(value, list) else [value]:
            field = f"{name}[]" if isinstance(value, list) else name
            if isinstance(each, dict | list) or not _plain(field):
                raise InvalidRequest(f"{name}: a form carries texts and numbers only", param=name)
            text = str(each).lower() if isinstance(each, bool) else str(each)
            parts.append(f'content-disposition: form-data; name="{field}"\r\n\r\n{text}\r\n'.encode())
    mark = f"--{boundary}\r\n".encode()
    whole = b"".join(mark + part for part in parts) + f"--{boundary}--\r\n".encode()
    return whole, f"multipart/form-data; boundary={boundary}"


def _plain(text: str) -> bool:
    return text.isprintable() and '"' not in text


def _file(value: object) -> bytes:
    name, data = (value.get("filename"), value.get("data")) if isinstance(value, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(data, str):
        raise InvalidRequest("file: an object with filename and data (base64) is needed", param="file")
    if not _plain(name):
        raise InvalidRequest(
            "file.filename: quotes and control characters do not go into a form", param="file.filename"
        )
    try:
        content = base64.b64decode(data.partition("base64,")[2] or data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("file.data: this is not base64", param="file.data") from None
    head = (
        f'content-disposition: form-data; name="file"; filename="{name}"\r\ncontent-type: application/octet-stream\r\n'
    )
    return head.encode() + b"\r\n" + content + b"\r\n"


def spoken(raw: bytes, content_type: str) -> dict[str, Any]:
    """Return the JSON of spoken audio. Raises `BadUpstreamResponse` where nothing, or a page, came instead."""
    kind = content_type.partition(";")[0].strip().lower()
    if not raw or kind.startswith("text/"):
        raise BadUpstreamResponse(f"the upstream answered with {kind or 'nothing'} where audio was asked for")
    return {"object": "audio.speech", "content_type": kind, "data": base64.b64encode(raw).decode()}


def written(raw: bytes, content_type: str) -> bytes:
    """Return a transcription as JSON: it comes as plain text where `text`, `srt` or `vtt` was asked for."""
    if JSON in content_type or raw[:1] == b"{":
        return raw
    if raw.lstrip()[:1] == b"<":
        raise BadUpstreamResponse("the upstream answered with a web page where a transcription was asked for")
    return orjson.dumps({"text": raw.decode("utf-8", "replace")})


def _list_of(name: str, item: Callable[[Any], bool], what: str) -> Callable[[Mapping[str, Any]], None]:
    def check(body: Mapping[str, Any]) -> None:
        found = body.get(name)
        if not isinstance(found, list) or not found or not all(map(item, found)):
            raise BadUpstreamResponse(f"the upstream's answer has no {what}")

    return check


def _response(body: Mapping[str, Any]) -> None:
    if body.get("status") == "failed":
        raise error_inside(body if body.get("error") else {"error": "the response failed"})
    if not isinstance(body.get("output"), list):
        raise BadUpstreamResponse("the upstream's answer has no output")


def _transcription(body: Mapping[str, Any]) -> None:
    if not isinstance(body.get("text"), str):
        raise BadUpstreamResponse("the upstream's answer has no text")


def _speech(body: Mapping[str, Any]) -> None:
    if not isinstance(body.get("data"), str):
        raise BadUpstreamResponse("the upstream's answer has no audio")


def _ranked(item: object) -> bool:
    return (
        isinstance(item, dict)
        and type(item.get("index")) is int
        and isinstance(item.get("relevance_score"), int | float)
    )


CHECKS: Final[dict[str, Callable[[Mapping[str, Any]], None]]] = {
    RESPONSES: _response,
    MODERATIONS: _list_of("results", lambda item: isinstance(item, dict), "results"),
    IMAGES: _list_of(
        "data", lambda item: isinstance(item, dict) and bool(item.get("b64_json") or item.get("url")), "image"
    ),
    SPEECH: _speech,
    TRANSCRIPTIONS: _transcription,
    RERANK: _list_of("results", _ranked, "ranked results"),
}
"""Endpoint → what holds an answer's parsed body against its contract; raises `BadUpstreamResponse`."""


def _event(data: bytes) -> dict[str, Any]:
    try:
        told = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise BadUpstreamResponse("an event of the upstream's stream is not JSON") from None
    if not isinstance(told, dict):
        raise BadUpstreamResponse("an event of the upstream's stream is no object")
    if not isinstance(told.get("type", ""), str):
        raise BadUpstreamResponse("an event of the upstream's stream has a type that is no text")
    return told


class ResponseStream:
    """The stream of a response: its events go on as they are, the last one carries the whole."""

    def __init__(self) -> None:
        self._parser = SseParser()
        self._left = MAX_BODY_BYTES
        self._whole: dict[str, Any] | None = None
        self._head: dict[str, Any] = {}
        self._texts: list[str] = []
        self.begun = False
        """Whether anything of the answer came."""

    @property
    def done(self) -> bool:
        """Whether the stream said that it is over."""
        return self._whole is not None

    def feed(self, piece: bytes) -> Iterator[tuple[bytes, bool]]:
        """Take bytes; yield each event's JSON. Raises `BadUpstreamResponse`, and the error an event carries."""
        self._left -= len(piece)
        if self._left < 0:
            raise BadUpstreamResponse("the upstream's stream is too long")
        try:
            events = self._parser.feed(piece)
        except TooLarge as error:
            raise BadUpstreamResponse(str(error)) from None
        for event in events:
            if self.done or event.data == b"[DONE]":
                return
            told = _event(event.data)
            self._take(told)
            yield event.data, True
            if told.get("type") in ENDED:
                if not isinstance(told.get("response"), dict):
                    raise BadUpstreamResponse("the last event of the upstream's stream has no response")
                self._whole = told["response"]

    def _take(self, told: Mapping[str, Any]) -> None:
        kind, response, text = told.get("type"), told.get("response"), told.get("delta")
        if kind == "error":
            raise error_inside({"error": told.get("error") or told})
        if isinstance(response, dict):
            self._head = response
            if kind == "response.failed":
                _response({**response, "status": "failed"})
        self.begun = self.begun or kind not in HEADS
        if isinstance(text, str):
            self._texts.append(text)

    def finished(self) -> bool:
        """Whether the response is whole."""
        return self.done

    def body(self) -> dict[str, Any]:
        """Return the response. Raises `BadUpstreamResponse` where the stream ended before it was over."""
        if self._whole is None:
            raise BadUpstreamResponse("the upstream's stream ended before its end was said")
        return self._whole

    def so_far(self) -> SoFar:
        """Return the response as far as it came: its texts of any kind as one; never raises."""
        counted = isinstance(self._head.get("usage"), dict)
        if self._whole is not None:
            return SoFar(self._whole, counted)
        text = {"type": "output_text", "text": "".join(self._texts)}
        return SoFar({**self._head, "output": [{"type": "message", "content": [text]}]}, counted)
