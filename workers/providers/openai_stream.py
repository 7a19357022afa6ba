"""The OpenAI dialect's streams: chunks in, the whole completion out. Pure; imports orjson, schemas and our errors."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from broker.errors import BadUpstreamResponse
from schemas.request import CHAT
from workers.providers.openai import error_inside
from workers.providers.sse import Event, SseParser, TooLarge
from workers.providers.transport import MAX_BODY_BYTES

DONE: Final = b"[DONE]"

_ONCE: Final = frozenset({"role", "id", "type", "name"})
"""Texts that are told once, or repeated whole by some servers; all others come in pieces."""

_SEVERITY: Final = "severity"
"""Of Azure's content filter: each chunk has its own, and the last one stands."""


class Completion:
    """Puts one streamed completion together; feed it what the upstream sends, then ask for `body`."""

    def __init__(self, endpoint: str, *, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._chat = endpoint == CHAT
        self._left = max_bytes
        self._parser = SseParser()
        self._top: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: Mapping[str, Any] | None = None
        self.done = False
        """Whether the stream said that it is over."""

    def feed(self, piece: bytes) -> Iterator[tuple[bytes, bool]]:
        """Take bytes; yield each chunk's JSON and whether it is for the caller who asked for no usage.

        Raises `BadUpstreamResponse` for anything that is not a stream of chunks, and the error a chunk carries.
        """
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
            if event.data == DONE:
                self.done = True
                return
            yield event.data, self._take(event)

    def _take(self, event: Event) -> bool:
        try:
            chunk = orjson.loads(event.data)
        except orjson.JSONDecodeError:
            raise BadUpstreamResponse("an event of the upstream's stream is not JSON") from None
        if not isinstance(chunk, dict):
            raise BadUpstreamResponse("an event of the upstream's stream is no object")
        if chunk.get("error") or event.name == "error":
            raise error_inside(chunk)
        return self.take(chunk)

    def take(self, chunk: dict[str, Any]) -> bool:
        """Add a parsed chunk; whether it is for a caller who asked for no usage. Raises `BadUpstreamResponse`."""
        choices = chunk.get("choices")
        if choices is not None and not isinstance(choices, list):
            raise BadUpstreamResponse("the choices of a chunk are no list")
        for choice in choices or ():
            self._take_choice(choice)
        usage = chunk.get("usage") or _groq_usage(chunk)
        if isinstance(usage, dict):
            self._usage = usage
        for name, value in chunk.items():
            if name not in {"choices", "usage", "object"} and value is not None:
                self._top[name] = value
        return bool(choices) or usage is None

    def _take_choice(self, choice: Any) -> None:  # noqa: ANN401 - any JSON
        if not isinstance(choice, dict):
            raise BadUpstreamResponse("a choice of a chunk is no object")
        if choice.get("error"):
            raise error_inside(choice)
        index, delta = choice.get("index", 0), choice.get("delta", {})
        if not isinstance(index, int) or not isinstance(delta, dict | None):
            raise BadUpstreamResponse("a choice of a chunk has no index or no delta")
        whole = self._choices.setdefault(index, {"message": {}} if self._chat else {"text": []})
        if self._chat:
            _merge(whole["message"], delta or {})
        for name, value in choice.items():
            if name not in {"index", "delta"} and value is not None:
                _merge(whole, {name: value}, once=frozenset({"finish_reason"}))

    def finished(self) -> bool:
        """Whether every choice has said why it ended, which some servers do without a `[DONE]`."""
        return bool(self._choices) and all(choice.get("finish_reason") for choice in self._choices.values())

    def body(self) -> dict[str, Any]:
        """Return the OpenAI body of the whole completion, with the stream's last usage.

        Raises `BadUpstreamResponse` when the stream ended before it was over, or held no choice.
        """
        if not (self.done or self.finished()):
            raise BadUpstreamResponse("the upstream's stream ended before its end was said")
        if not self._choices:
            raise BadUpstreamResponse("the upstream's stream has no choices")
        kind = "chat.completion" if self._chat else "text_completion"
        body = {**self._top, "object": kind, "choices": [self._choice(index) for index in sorted(self._choices)]}
        return body if self._usage is None else {**body, "usage": self._usage}

    def _choice(self, index: int) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, **_joined(self._choices[index])}
        choice.setdefault("logprobs", None)
        choice.setdefault("finish_reason", None)
        if self._chat:
            message = choice["message"]
            message.setdefault("role", "assistant")
            message.setdefault("content", None if message.get("tool_calls") or message.get("refusal") else "")
        return choice


class _Pieces(list[str]):
    """A text that is still growing; joined once at the end, so that a long stream costs what it is long."""


def _merge(whole: dict[str, Any], delta: Mapping[str, Any], *, once: frozenset[str] = _ONCE) -> None:
    """Add a delta to what came before, field by field, whatever the fields are called."""
    for name, value in delta.items():
        if value is None:
            continue
        if name == "tool_calls" and isinstance(value, list):
            _merge_calls(whole.setdefault(name, []), value)
        elif isinstance(value, str):
            _merge_text(whole, name, value, once)
        elif isinstance(value, dict):
            inner = whole.setdefault(name, {})
            if isinstance(inner, dict):
                _merge(inner, value)
        elif isinstance(value, list):
            before = whole.get(name)
            if type(before) is list:
                before.extend(value)
            else:
                whole[name] = [*_as_part(before), *value]
        else:
            whole[name] = value


def _merge_text(whole: dict[str, Any], name: str, value: str, once: frozenset[str]) -> None:
    before = whole.get(name)
    if name in once:
        whole[name] = before or value
    elif name == _SEVERITY:
        whole[name] = value
    elif isinstance(before, _Pieces):
        before.append(value)
    elif isinstance(before, list) and name == "content":  # Mistral: typed parts of content, then plain text
        last = before[-1].get("text") if before and isinstance(before[-1], dict) else None
        if isinstance(last, _Pieces):
            last.append(value)
        elif value:
            before.append({"type": "text", "text": _Pieces([value])})
    else:
        whole[name] = _Pieces([value])


def _as_part(text: object) -> list[dict[str, Any]]:
    """Return a text as a typed part, nothing where there is none."""
    return [{"type": "text", "text": text}] if isinstance(text, _Pieces) and any(text) else []


def _merge_calls(calls: list[dict[str, Any]], deltas: list[Any]) -> None:
    """Add to tool calls by `index`; by `id`, then to the last one, where a server leaves the index out."""
    for delta in deltas:
        if not isinstance(delta, dict):
            raise BadUpstreamResponse("a tool call of a chunk is no object")
        index, name = delta.get("index"), delta.get("id")
        if isinstance(index, int):
            found = next((call for call in calls if call.get("index") == index), None)
        else:
            found = next((call for call in calls if name and call.get("id") == name), None)
            if found is None and not name and calls:
                found = calls[-1]
        if found is None:
            found = {}
            calls.append(found)
        _merge(found, delta)


def _joined(value: Any) -> Any:  # noqa: ANN401 - the JSON built so far
    """Return the same with growing texts joined, and without the indexes that only streams have."""
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _calls(inner) if name == "tool_calls" else _joined(inner) for name, inner in value.items()}
    return [_joined(item) for item in value] if isinstance(value, list) else value


def _calls(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ordered = sorted(calls, key=lambda call: index if isinstance(index := call.get("index"), int) else 0)
    return [{name: _joined(value) for name, value in call.items() if name != "index"} for call in ordered]


def _groq_usage(chunk: Mapping[str, Any]) -> object:
    """Groq told the usage in a field of its own before it knew `stream_options`."""
    extra = chunk.get("x_groq")
    return extra.get("usage") if isinstance(extra, dict) else None
