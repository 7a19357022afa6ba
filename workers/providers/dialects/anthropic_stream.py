"""Anthropic's streams as OpenAI's chunks. Pure. platform.claude.com/docs/en/build-with-claude/streaming."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from broker.errors import BadUpstreamResponse, RequestError
from workers.providers import legacy
from workers.providers.dialect import TranslatedStream, delta, usage_part
from workers.providers.dialects.anthropic_answer import ANSWER_TOOL, annotations_of, finish_of, refusal_of, usage_of
from workers.providers.sse import Event


class AnthropicStream(TranslatedStream):
    """Blocks come one after the other, each opened, grown and closed; usage counts are cumulative.

    The first event counts the input, and the output only as far as it has come, which is next to nothing; the last but
    one counts all. Where a tool stands in for the answer, texts beside it are held back until it is clear that it is
    not called.
    """

    def __init__(
        self,
        endpoint: str,
        model: str,
        *,
        forced: bool,
        inside: Callable[[Mapping[str, Any]], RequestError],
        functions: bool = False,
    ) -> None:
        """`forced`: a tool stands in for the structured answer. `inside` tells the error of an error event.

        `functions`: the caller knows no tools but the older functions.
        """
        super().__init__(endpoint, model)
        self._forced = forced
        self._functions = functions
        self._answered = False
        self._length = 0
        """Characters of content so far."""
        self._inside = inside
        self._blocks: dict[int, dict[str, Any]] = {}
        self._usage: dict[str, Any] = {}
        self._calls = 0
        self._begun = False

    def events(self, event: Event) -> Iterator[Mapping[str, Any]]:
        """Yield the parts of chunks that an event makes."""
        told = orjson.loads(event.data)
        kind = told["type"]
        if kind == "error":
            raise self._inside(told)
        if kind == "message_start":
            message = told["message"]
            self.id = str(message["id"])
            self.model = message.get("model") or self.model
            self._usage.update(message.get("usage") or {})
            self.running = usage_of(self._usage) if self._usage else None
            self._begun = True
            yield delta({"role": "assistant", "content": ""})
        elif kind in {"content_block_start", "content_block_delta", "content_block_stop"}:
            if not self._begun:
                raise BadUpstreamResponse("the upstream's stream does not begin with a message")
            yield from self._block(kind, told)
        elif kind == "message_delta":
            self._usage.update({name: value for name, value in (told.get("usage") or {}).items() if value is not None})
            self.running, self.counts = usage_of(self._usage), "output_tokens" in (told.get("usage") or {})
            reason = told["delta"].get("stop_reason")
            if reason is not None:
                refusal = refusal_of(told["delta"])
                finish = finish_of(reason, calls=self._calls > 0)
                ended = legacy.finish(finish) if self._functions else finish
                held, self.held = self.held, []
                if held and not self._answered:
                    yield delta({"content": "".join(held)})
                yield delta({} if refusal is None else {"refusal": refusal}, finish=ended)
        elif kind == "message_stop":
            usage = usage_of(self._usage) if self._usage else None
            if usage is not None:
                yield usage_part(usage)
            self.finish()

    def _block(self, kind: str, told: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        index = told["index"]
        if kind == "content_block_start":
            block = self._blocks[index] = dict(told["content_block"])
            yield from self._opened(block)
        elif kind == "content_block_delta":
            yield from self._grown(self._blocks[index], told["delta"])
        else:
            yield from self._closed(self._blocks.pop(index))

    def _closed(self, block: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
        if block["type"] in {"thinking", "redacted_thinking"}:
            yield delta({"thinking_blocks": [block]})
        elif block["type"] == "tool_use" and not block.get("grown"):
            # A tool without arguments sends none, and an empty text is no JSON.
            yield from self._arguments(block, "{}")
        elif block["type"] == "text" and block.get("cited"):
            annotations = annotations_of(block["cited"], block.get("start", self._length), self._length)
            if annotations:
                yield delta({"annotations": annotations})

    def _opened(self, block: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
        if block["type"] == "text" and block.get("text"):
            yield from self._text(block, str(block["text"]))
        elif block["type"] == "tool_use":
            if self._forced and block["name"] == ANSWER_TOOL:
                block["call"], block["again"], self._answered = None, self._answered, True
                return
            block["call"], self._calls = self._calls, self._calls + 1
            function = {"name": str(block["name"]), "arguments": ""}
            call = {"index": block["call"], "id": str(block["id"]), "type": "function", "function": function}
            yield self._called(call)

    def _grown(self, block: dict[str, Any], change: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        kind = change["type"]
        if kind == "text_delta":
            yield from self._text(block, str(change["text"]))
        elif kind == "input_json_delta" and "call" in block:  # what its own tools are asked is Anthropic's business
            if text := str(change["partial_json"]):
                block["grown"] = True
                yield from self._arguments(block, text)
        elif kind == "thinking_delta":
            block["thinking"] = block.get("thinking", "") + str(change["thinking"])
            yield delta({"reasoning_content": str(change["thinking"])})
        elif kind == "signature_delta":
            block["signature"] = block.get("signature", "") + str(change["signature"])
        elif kind == "citations_delta":
            block.setdefault("cited", []).append(change["citation"])
            yield delta({"citations": [change["citation"]]})

    def _text(self, block: dict[str, Any], text: str) -> Iterator[Mapping[str, Any]]:
        block.setdefault("start", self._length)
        self._length += len(text)
        if self._forced:
            self.held.append(text)
        else:
            yield delta({"content": text})

    def _arguments(self, block: Mapping[str, Any], text: str) -> Iterator[Mapping[str, Any]]:
        if block["call"] is not None:
            yield self._called({"index": block["call"], "function": {"arguments": text}})
        elif not block["again"]:  # the first one is the answer
            yield delta({"content": text})

    def _called(self, call: dict[str, Any]) -> dict[str, Any]:
        told = {"tool_calls": [call]}
        return delta(legacy.as_function_call(told) if self._functions else told)
