"""Cohere's streams as OpenAI's chunks. Pure. docs.cohere.com/v2/docs/streaming, …/tool-use-streaming."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from broker.errors import BadUpstreamResponse
from workers.providers.dialect import TranslatedStream, delta, usage_part
from workers.providers.dialects.cohere_answer import ANSWER_TOOL, call_of, failure_of, finish_of, logprobs_of, usage_of
from workers.providers.sse import Event


class CohereStream(TranslatedStream):
    """Content, plan and calls come one after the other, each opened, grown and closed; usage comes once, at the end."""

    def __init__(self, endpoint: str, model: str, *, forced: bool) -> None:
        """`forced`: a tool stands in for the structured answer."""
        super().__init__(endpoint, model)
        self._forced = forced
        self._answered = False
        self._plan: list[str] = []
        """A plan that may be the stand-in's."""
        self._calls = 0
        self._open: dict[int, dict[str, Any]] = {}
        """Calls by the index of their events: their `place` among the caller's, None for the stand-in's."""
        self._begun = False

    def events(self, event: Event) -> Iterator[Mapping[str, Any]]:
        """Yield the parts of chunks that an event makes."""
        told = orjson.loads(event.data)
        kind = told.get("type")
        if kind is None or event.name == "error":
            raise BadUpstreamResponse(f"the upstream's stream broke: {str(told.get('message', told))[:300]}")
        if kind == "message-start":
            self.id = str(told.get("id") or self.id)
            self._begun = True
            yield delta({"role": "assistant", "content": ""})
            return
        if not self._begun:
            raise BadUpstreamResponse("the upstream's stream does not begin with a message")
        if kind == "message-end":
            yield from self._ended(told.get("delta") or {})
        elif kind == "tool-call-end":
            yield from self._closed(self._open.pop(told["index"]))
        elif kind in {"content-start", "content-delta", "tool-plan-delta", "tool-call-start", "tool-call-delta",
                      "citation-start"}:  # fmt: skip
            yield from self._grown(kind, told)

    def _grown(self, kind: str, told: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        message = told["delta"]["message"]
        if kind.startswith("content"):
            yield from self._content(message["content"], told.get("logprobs"))
        elif kind == "tool-plan-delta":
            yield from self._planned(_text(message.get("tool_plan")))
        elif kind == "citation-start":
            yield delta({"citations": [dict(message["citations"])]})
        elif kind == "tool-call-start":
            yield from self._opened(told["index"], message["tool_calls"])
        else:
            call = self._open[told["index"]]
            yield from self._arguments(call, _text(message["tool_calls"]["function"].get("arguments")))

    def _content(self, content: Mapping[str, Any], logprobs: object) -> Iterator[Mapping[str, Any]]:
        thought, text = _text(content.get("thinking")), _text(content.get("text"))
        found = logprobs_of([logprobs] if logprobs else None)
        if thought:
            yield delta({"reasoning_content": thought})
        if text and self._forced:
            self.held.append(text)
        elif text:
            part = delta({"content": text})
            if found:
                part["choices"][0]["logprobs"] = found
            yield part

    def _planned(self, text: str) -> Iterator[Mapping[str, Any]]:
        if not text:
            return
        if self._forced and not self._calls:
            self._plan.append(text)
        else:
            yield delta({"tool_plan": text})

    def _opened(self, index: int, told: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        function = told["function"]
        name, text = str(function["name"]), _text(function.get("arguments"))
        if self._forced and name == ANSWER_TOOL:
            call = self._open[index] = {"place": None, "again": self._answered}
            self._answered = True
        else:
            if self._plan:
                yield delta({"tool_plan": "".join(self._plan)})
                self._plan = []
            call = self._open[index] = {"place": self._calls}
            yield delta({"tool_calls": [{"index": self._calls, **call_of(str(told["id"]), name, "")}]})
            self._calls += 1
        yield from self._arguments(call, text)

    @staticmethod
    def _arguments(call: dict[str, Any], text: str) -> Iterator[Mapping[str, Any]]:
        if not text:
            return
        call["grown"] = True
        if call.get("again"):
            return  # the first one is the answer
        if call["place"] is None:
            yield delta({"content": text})
        else:
            yield delta({"tool_calls": [{"index": call["place"], "function": {"arguments": text}}]})

    def _closed(self, call: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
        if not call.get("grown"):
            # A tool without arguments may send none, and an empty text is no JSON.
            yield from self._arguments(call, "{}")

    def _ended(self, told: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        reason = told.get("finish_reason")
        if failure := failure_of("ERROR" if told.get("error") else reason, told.get("error")):
            raise failure
        if self.held and not self._answered:
            yield delta({"content": "".join(self.held)})
        for call in self._open.values():
            yield from self._closed(call)
        yield delta({}, finish=finish_of(reason, calls=self._calls > 0))
        usage = usage_of(told.get("usage"))
        if usage is not None:
            yield usage_part(usage)
        self.finish()


def _text(value: object) -> str:
    if not isinstance(value, str | None):
        raise TypeError(type(value))
    return value or ""
