"""ConverseStream's events as OpenAI's chunks. Pure.

docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html, `ConverseStreamOutput`.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from broker.errors import BadUpstreamResponse
from workers.providers.dialect import TranslatedStream, delta, usage_part
from workers.providers.dialects.bedrock_answer import (
    ANSWER_TOOL,
    SERVER_TOOL,
    THINKING,
    beside,
    ending,
    image_of,
    invoked,
    text_in,
    usage_of,
)
from workers.providers.dialects.bedrock_errors import in_stream
from workers.providers.eventstream import ERROR, EXCEPTION, EventStreamParser
from workers.providers.sse import Event


class BedrockStream(TranslatedStream):
    """Blocks come by index, opened only where they are calls or images; `metadata` with the usage is the last event.

    Where a tool stands in for the answer, texts beside it are held back until it is clear that it is not called.
    """

    def __init__(self, endpoint: str, model: str, *, forced: bool) -> None:
        """`forced`: a tool stands in for the structured answer."""
        super().__init__(endpoint, model, parser=EventStreamParser())
        self._forced = forced
        self._answered = False
        self._blocks: dict[int, dict[str, Any]] = {}
        self._calls = 0
        self._begun = False
        self._fields: Any = None

    def events(self, event: Event) -> Iterator[Mapping[str, Any]]:
        """Yield the parts of chunks that an event makes."""
        told = orjson.loads(event.data)
        if event.name.startswith((EXCEPTION, ERROR)):
            raise in_stream(event.name.partition(":")[2], told)
        if event.name == "messageStart":
            if told["role"] != "assistant":
                raise ValueError(told["role"])
            self._begun = True
            yield delta({"role": "assistant", "content": ""})
        elif not self._begun and event.name != "initial-response":
            raise BadUpstreamResponse("the upstream's stream does not begin with a message")
        elif event.name == "contentBlockStart":
            yield from self._opened(self._block(told), told["start"])
        elif event.name == "contentBlockDelta":
            yield from self._grown(self._block(told), told["delta"])
        elif event.name == "contentBlockStop":
            yield from self._closed(self._blocks.pop(_index(told), {}))
        elif event.name == "messageStop":
            yield from self._stopped(told)
        elif event.name == "metadata":
            yield from self._last(told)

    def _block(self, told: Mapping[str, Any]) -> dict[str, Any]:
        return self._blocks.setdefault(_index(told), {})

    def _stopped(self, told: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        held, self.held = self.held, []
        if held and not self._answered:
            yield delta({"content": "".join(held)})
        self._fields = told.get("additionalModelResponseFields")
        found = ending(told["stopReason"], calls=self._calls > 0)
        choice = {"index": 0, "delta": {}, **found}
        yield {"choices": [choice], **({"additionalModelResponseFields": self._fields} if self._fields else {})}

    def _last(self, told: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        self.model = invoked(told) or self.model
        usage = usage_of(told.get("usage"), self._fields)
        if usage is not None:
            yield {**usage_part(usage), **beside(told)}
        self.finish()

    def _opened(self, block: dict[str, Any], start: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        if "image" in start:
            block["image"], block["bytes"] = text_in(start["image"]["format"]), b""
        elif "toolUse" in start:
            use = start["toolUse"]
            block["grown"] = False
            block["call"] = None
            if use.get("type") == SERVER_TOOL:
                return
            if self._forced and use["name"] == ANSWER_TOOL:
                block["answers"], self._answered = not self._answered, True
                self.held.clear()
                return
            block["call"], self._calls = self._calls, self._calls + 1
            function = {"name": text_in(use["name"]), "arguments": ""}
            call = {"index": block["call"], "id": text_in(use["toolUseId"]), "type": "function", "function": function}
            yield delta({"tool_calls": [call]})

    def _grown(self, block: dict[str, Any], change: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        if "text" in change:
            text = text_in(change["text"])
            if self._forced and not self._answered:
                self.held.append(text)
            elif self._forced:
                return
            elif text:
                yield delta({"content": text})
        elif "toolUse" in change:
            if text := text_in(change["toolUse"]["input"]):
                block["grown"] = True
                yield from self._arguments(block, text)
        elif "reasoningContent" in change:
            yield from self._thought(block, change["reasoningContent"])
        elif "citation" in change:
            yield delta({"citations": [change["citation"]]})
        elif "image" in change:
            source = change["image"].get("source") or {}
            block["bytes"] += b64decode(text_in(source.get("bytes", "")), validate=True)

    @staticmethod
    def _thought(block: dict[str, Any], change: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        if "text" in change:
            text = text_in(change["text"])
            block.setdefault(THINKING, []).append(text)
            yield delta({"reasoning_content": text})
        if "signature" in change:
            block.setdefault("signature", []).append(text_in(change["signature"]))
        if "redactedContent" in change:
            block.setdefault("data", []).append(text_in(change["redactedContent"]))

    def _closed(self, block: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
        if "data" in block:
            yield delta({"thinking_blocks": [{"type": "redacted_thinking", "data": _joined(block["data"])}]})
        elif THINKING in block or "signature" in block:
            thought = {"type": THINKING, THINKING: "".join(block.get(THINKING, []))}
            signature = "".join(block.get("signature", []))
            yield delta({"thinking_blocks": [{**thought, **({"signature": signature} if signature else {})}]})
        elif block.get("grown") is False:
            # A tool without arguments sends none, and an empty text is no JSON.
            yield from self._arguments(block, "{}")
        elif "image" in block:
            yield delta({"images": [image_of(block["image"], b64encode(block["bytes"]).decode())]})

    @staticmethod
    def _arguments(block: Mapping[str, Any], text: str) -> Iterator[Mapping[str, Any]]:
        if block.get("answers"):
            yield delta({"content": text})
        elif block["call"] is not None:
            yield delta({"tool_calls": [{"index": block["call"], "function": {"arguments": text}}]})


def _index(told: Mapping[str, Any]) -> int:
    index = told["contentBlockIndex"]
    if type(index) is not int:
        raise TypeError(type(index))
    return index


def _joined(pieces: list[str]) -> str:
    """Join bytes that came in pieces, each in base64."""
    if len(pieces) == 1:
        return pieces[0]
    return b64encode(b"".join(b64decode(piece, validate=True) for piece in pieces)).decode()
