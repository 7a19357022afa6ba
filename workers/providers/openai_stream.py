"""The OpenAI dialect's streams: chunks in, the whole completion out. Pure; imports orjson, schemas and our errors."""

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from broker.errors import BadUpstreamResponse
from schemas.request import CHAT
from workers.providers.base import SoFar
from workers.providers.openai import error_inside
from workers.providers.sse import Event, SseParser, TooLarge
from workers.providers.transport import MAX_BODY_BYTES

DONE: Final = b"[DONE]"

_ONCE: Final = frozenset({"role", "id", "type", "name"})
"""Texts that are told once, or repeated whole by some servers; all others come in pieces."""

_FINISH: Final = frozenset({"finish_reason"})
_NO_TOP: Final = frozenset({"choices", "usage", "object"})
_NO_FIELD: Final = frozenset({"index", "delta"})

TOO_DEEP: Final = "the upstream's stream is nested too deep"

CUT: Final = "length"
"""The finish reason of a choice that the token limit ended: its tool calls may be cut anywhere."""
_SEVERITY: Final = "severity"
"""Of Azure's content filter: each chunk has its own, and the last one stands."""


class Completion:
    """Puts one streamed completion together; feed it what the upstream sends, then ask for `body`.

    A chunk goes on as the bytes that came, unless a reader could not put it together: every chunk of a stream has one
    id and one time, every choice and tool call an index, a tool's arguments are text, and usage stands alone.
    """

    def __init__(self, endpoint: str, *, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._chat = endpoint == CHAT
        self._left = max_bytes
        self._parser = SseParser()
        self._id = ""
        self._created = 0
        self._nameless: list[tuple[dict[str, Any], bool]] = []
        """Chunks that came before the stream had an id, and without choices: Azure's first one."""
        self._top: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        """Choice and a tool call's index as it came → its index here, where the upstream gave one index twice."""
        self._usage: Mapping[str, Any] | None = None
        self._counted = False
        self._mended = False
        """Whether the chunk at hand is not what came any more."""
        self.begun = False
        """Whether anything came that a reader would miss: text, reasoning, a tool call."""
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
            chunk = _parsed(event)
            if self._id and chunk.get("id") == self._id and chunk.get("created") == self._created:
                kept = True
            elif self._id or _has_id(chunk) or chunk.get("choices"):
                kept = self._name(chunk)
            else:
                self._nameless.append((chunk, self.take(chunk)))
                continue
            plain = self.take(chunk)
            if self._nameless:
                yield from self._named()
            yield (event.data if kept and not self._mended else written(chunk)), plain

    def _name(self, chunk: dict[str, Any]) -> bool:
        """Give a chunk the stream's id and time, which are those of the first; whether it had them."""
        name: Any = chunk.get("id")
        created = chunk.get("created")
        if not self._id:
            self._id = name if _has_id(chunk) else f"{'chatcmpl' if self._chat else 'cmpl'}-{uuid.uuid4().hex}"
            self._created = created if type(created) is int and created > 0 else int(time.time())
        chunk["id"], chunk["created"] = self._id, self._created
        return bool(name == self._id and created == self._created)

    def _named(self) -> Iterator[tuple[bytes, bool]]:
        for chunk, plain in self._nameless:
            yield written({**chunk, "id": self._id, "created": self._created}), plain
        self._nameless.clear()

    def take(self, chunk: dict[str, Any]) -> bool:
        """Add a parsed chunk, and mend it; whether it is for a caller who asked for no usage.

        Raises `BadUpstreamResponse`.
        """
        self._mended = False
        choices = chunk.get("choices")
        if choices is not None and not isinstance(choices, list):
            raise BadUpstreamResponse("the choices of a chunk are no list")
        try:
            for place, choice in enumerate(choices or ()):
                self._take_choice(choice, place)
        except RecursionError:
            raise BadUpstreamResponse(TOO_DEEP) from None
        usage = chunk.get("usage") or _groq_usage(chunk)
        if isinstance(usage, dict):
            self._usage, self._counted = usage, True
            if choices and chunk.get("usage"):
                # Who adds up what chunks tell would count it again with the last one, which carries it alone.
                chunk["usage"], self._mended = None, True
        elif choices:
            self._counted = False
        top = self._top
        for name, value in chunk.items():
            if value is not None and name not in _NO_TOP:
                top[name] = value
        return bool(choices) or usage is None

    def _take_choice(self, choice: Any, place: int) -> None:  # noqa: ANN401 - any JSON
        if not isinstance(choice, dict):
            raise BadUpstreamResponse("a choice of a chunk is no object")
        if choice.get("error"):
            raise error_inside(choice)
        index, delta = choice.get("index"), choice.get("delta")
        if index is None:
            index = choice["index"] = place
            self._mended = True
        if not isinstance(index, int) or not isinstance(delta, dict | None):
            raise BadUpstreamResponse("a choice of a chunk has no index or no delta")
        whole = self._choices.get(index) or self._open(index)
        self.begun = self.begun or _carries(choice, delta)
        if self._chat:
            message = whole["message"]
            text, before = delta and len(delta) == 1 and delta.get("content"), message.get("content")
            if isinstance(text, str) and isinstance(before, _Pieces):
                before.append(text)  # what nearly all chunks of nearly all streams are
            else:
                self._take_delta(index, message, delta or {})
            if "tool_calls" in message and choice.get("finish_reason"):
                self._fill_calls(choice, message)
        for name, value in choice.items():
            if value is not None and name not in _NO_FIELD:
                _merge(whole, {name: value}, once=_FINISH)

    def _open(self, index: int) -> dict[str, Any]:
        whole: dict[str, Any] = {"message": {}} if self._chat else {"text": []}
        self._choices[index] = whole
        return whole

    def _take_delta(self, index: int, message: dict[str, Any], delta: Mapping[str, Any]) -> None:
        if calls := delta.get("tool_calls"):
            self._take_calls(index, message, calls)
        _merge(message, delta)

    def _take_calls(self, choice: int, message: dict[str, Any], deltas: Any) -> None:  # noqa: ANN401 - any JSON
        """Add to tool calls by `index`; by `id`, then to the last one, where a server leaves the index out."""
        if not isinstance(deltas, list):
            raise BadUpstreamResponse("the tool calls of a chunk are no list")
        calls: list[dict[str, Any]] = message.setdefault("tool_calls", [])
        for delta in deltas:
            if not isinstance(delta, dict):
                raise BadUpstreamResponse("a tool call of a chunk is no object")
            told = delta.get("index")
            index = self._number(choice, calls, delta, told if isinstance(told, int) else None)
            if index != told or told is None:
                delta["index"], self._mended = index, True
            function = delta.get("function")
            if isinstance(function, dict) and isinstance(function.get("arguments"), dict | list):
                function["arguments"], self._mended = orjson.dumps(function["arguments"]).decode(), True
            found = _at(calls, index)
            if found is None:
                found = {}
                calls.append(found)
            _merge(found, delta)

    def _number(self, choice: int, calls: list[dict[str, Any]], delta: Mapping[str, Any], told: int | None) -> int:
        name, function = delta.get("id"), delta.get("function")
        free = max((call["index"] for call in calls), default=-1) + 1
        if told is None:
            if name:
                return next((call["index"] for call in calls if call.get("id") == name), free)
            return calls[-1]["index"] if calls else free
        index = self._numbers.get((choice, told), told)
        found = _at(calls, index)
        # Another id alone is no other call: some servers make up a new one for each delta. A name begins a call.
        begins = bool(name) and isinstance(function, dict) and bool(function.get("name"))
        if found is not None and begins and found.get("id", name) != name:
            index = self._numbers[choice, told] = free
        return index

    def _fill_calls(self, choice: dict[str, Any], message: Mapping[str, Any]) -> None:
        """Give calls that ended without arguments an empty object: an empty text is no JSON."""
        if choice["finish_reason"] == CUT:
            return
        added = [
            {"index": call["index"], "function": {"arguments": "{}"}}
            for call in message["tool_calls"]
            if isinstance(call.get("function"), dict) and _is_empty(call["function"].get("arguments"))
        ]
        if added:
            for call in added:
                _merge(_at(message["tool_calls"], call["index"]) or {}, call)
            delta = choice.get("delta") or {}
            choice["delta"] = {**delta, "tool_calls": [*(delta.get("tool_calls") or ()), *added]}
            self._mended = True

    def finished(self) -> bool:
        """Whether every choice has said why it ended, which some servers do without a `[DONE]`."""
        return bool(self._choices) and all(choice.get("finish_reason") for choice in self._choices.values())

    def body(self) -> dict[str, Any]:
        """Return the OpenAI body of the whole completion, with the stream's last usage.

        Raises `BadUpstreamResponse` when the stream ended before it was over, held no choice, or ended with tool calls
        whose arguments are no JSON; those that the token limit cut may be anything.
        """
        if not (self.done or self.finished()):
            raise BadUpstreamResponse("the upstream's stream ended before its end was said")
        if not self._choices:
            raise BadUpstreamResponse("the upstream's stream has no choices")
        try:
            body = self._body()
        except RecursionError:
            raise BadUpstreamResponse(TOO_DEEP) from None
        for choice in body["choices"]:
            if choice["finish_reason"] == "tool_calls" and self._chat:
                _check_arguments(choice["message"].get("tool_calls") or ())
        return body

    def so_far(self) -> SoFar:
        """Return what has come; never raises."""
        try:
            return SoFar(self._body(), counted=self._counted)
        except RecursionError:
            return SoFar({**self._top, "choices": []}, counted=False)

    def _body(self) -> dict[str, Any]:
        kind = "chat.completion" if self._chat else "text_completion"
        body = {**self._top, "object": kind, "choices": [self._choice(index) for index in sorted(self._choices)]}
        return body if self._usage is None else {**body, "usage": self._usage}

    def _choice(self, index: int) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, **_joined(self._choices[index])}
        choice.setdefault("logprobs", None)
        choice.setdefault("finish_reason", None)
        if self._chat:
            message = choice["message"]
            if calls := message.get("tool_calls"):
                message["tool_calls"] = _in_order(calls)
            message.setdefault("role", "assistant")
            message.setdefault("content", None if message.get("tool_calls") or message.get("refusal") else "")
        return choice


def _parsed(event: Event) -> dict[str, Any]:
    try:
        chunk = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        raise BadUpstreamResponse("an event of the upstream's stream is not JSON") from None
    if not isinstance(chunk, dict):
        raise BadUpstreamResponse("an event of the upstream's stream is no object")
    if chunk.get("error") or event.name == "error":
        raise error_inside(chunk)
    return chunk


def _has_id(chunk: Mapping[str, Any]) -> bool:
    name = chunk.get("id")
    return isinstance(name, str) and name != ""


def _carries(choice: Mapping[str, Any], delta: Mapping[str, Any] | None) -> bool:
    """Whether a choice holds more than the role and empty texts that many servers begin with."""
    return bool(choice.get("text")) or any(value for name, value in (delta or {}).items() if name != "role")


def _is_empty(arguments: object) -> bool:
    return arguments is None or (isinstance(arguments, _Pieces) and not any(arguments))


def _at(calls: list[dict[str, Any]], index: int) -> dict[str, Any] | None:
    return next((call for call in calls if call.get("index") == index), None)


def _check_arguments(calls: Iterable[Mapping[str, Any]]) -> None:
    for call in calls:
        function = call.get("function")
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if isinstance(arguments, str) and not is_json(arguments):
            raise BadUpstreamResponse("the arguments of a tool call in the upstream's stream are not JSON")


def is_json(text: str) -> bool:
    """Whether a text is JSON, by the lenient reading that callers in Python have: NaN and half surrogates pass."""
    try:
        orjson.loads(text)
    except ValueError:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return False
    return True


class _Pieces(list[str]):
    """A text that is still growing; joined once at the end, so that a long stream costs what it is long."""


def _merge(whole: dict[str, Any], delta: Mapping[str, Any], *, once: frozenset[str] = _ONCE) -> None:
    """Add a delta to what came before, field by field, whatever the fields are called; tool calls are added apart."""
    for name, value in delta.items():
        if value is None or name == "tool_calls":
            continue
        if isinstance(value, str):
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


def _joined(value: Any) -> Any:  # noqa: ANN401 - the JSON built so far
    """Return the same with growing texts joined."""
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _joined(inner) for name, inner in value.items()}
    return [_joined(item) for item in value] if isinstance(value, list) else value


def _in_order(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return tool calls by their indexes, and without them: only streams have such."""
    ordered = sorted(calls, key=lambda call: int(call["index"]))
    return [{name: value for name, value in call.items() if name != "index"} for call in ordered]


def written(body: Mapping[str, Any]) -> bytes:
    """Return a chunk or a body as JSON. Raises `BadUpstreamResponse` for one nested deeper than is written."""
    try:
        return orjson.dumps(body)
    except TypeError:
        raise BadUpstreamResponse(TOO_DEEP) from None


def _groq_usage(chunk: Mapping[str, Any]) -> object:
    """Groq told the usage in a field of its own before it knew `stream_options`."""
    extra = chunk.get("x_groq")
    return extra.get("usage") if isinstance(extra, dict) else None
