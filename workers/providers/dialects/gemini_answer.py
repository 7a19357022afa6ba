"""Gemini's answers as OpenAI's: candidates to choices, finish reasons, usage; and the same for streams. Pure."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson

from broker.errors import BadUpstreamResponse, ContentPolicyViolation, RequestError
from workers.providers.dialect import TranslatedStream, usage_part
from workers.providers.sse import Event

FINISH: Final = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
}
"""OpenAI's `finish_reason` by `finishReason`; every other one is `stop`."""


def completion_of(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return the chat completion of an answer. Raises `ContentPolicyViolation`, KeyError and the like."""
    candidates = _candidates(body)
    completion: dict[str, Any] = {
        "id": body.get("responseId") or f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.get("modelVersion") or model,
        "choices": [_choice(candidate, index) for index, candidate in enumerate(candidates)],
    }
    usage = usage_of(body.get("usageMetadata"))
    return completion if usage is None else {**completion, "usage": usage}


def _candidates(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = body.get("candidates")
    if found:
        return list(found)
    feedback = body.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
    if reason:
        raise ContentPolicyViolation(f"the prompt was blocked: {reason}")
    raise KeyError("candidates")


def _choice(candidate: Mapping[str, Any], place: int) -> dict[str, Any]:
    index = candidate.get("index", place)
    told = _told(candidate, 0)
    message: dict[str, Any] = {"role": "assistant", "content": told.pop("content", None), **told}
    calls = [{name: value for name, value in call.items() if name != "index"} for call in message.get("tool_calls", [])]
    if calls:
        message["tool_calls"] = calls
    elif message["content"] is None:
        message["content"] = ""
    finish = finish_of(candidate.get("finishReason"), calls=bool(calls))
    choice = {"index": index, "message": message, "finish_reason": finish or "stop"}
    return {**choice, "logprobs": logprobs_of(candidate.get("logprobsResult"))}


def _told(candidate: Mapping[str, Any], calls_before: int) -> dict[str, Any]:
    """Return what the parts of a candidate say, as the fields of a delta: content, reasoning_content, tool_calls."""
    told: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []
    for part in (candidate.get("content") or {}).get("parts") or []:
        signature = part.get("thoughtSignature")
        extra = {"extra_content": {"google": {"thought_signature": signature}}} if signature else {}
        if "functionCall" in part:
            calls.append({**_call(part["functionCall"], calls_before + len(calls)), **extra})
        elif isinstance(part.get("text"), str):
            name = "reasoning_content" if part.get("thought") else "content"
            told[name] = told.get(name, "") + part["text"]
            told |= extra
        elif "inlineData" in part:
            data = part["inlineData"]
            url = {"url": f"data:{data['mimeType']};base64,{data['data']}"}
            told.setdefault("images", []).append({"type": "image_url", "image_url": url})
    return {**told, "tool_calls": calls} if calls else told


def _call(told: Mapping[str, Any], index: int) -> dict[str, Any]:
    name = told["name"]
    if not isinstance(name, str):
        raise TypeError(type(name))
    arguments = orjson.dumps(told.get("args") or {}).decode()
    identity = told.get("id") or f"call_{uuid.uuid4().hex[:24]}"
    return {"index": index, "id": str(identity), "type": "function", "function": {"name": name, "arguments": arguments}}


def finish_of(reason: object, *, calls: bool) -> str | None:
    """Return the finish reason; None while there is none."""
    if not isinstance(reason, str) or reason == "FINISH_REASON_UNSPECIFIED":
        return None
    found = FINISH.get(reason, "stop")
    return "tool_calls" if found == "stop" and calls else found


def logprobs_of(raw: object) -> dict[str, Any] | None:
    """Return OpenAI's logprobs of a candidate; None where there are none."""
    chosen = raw.get("chosenCandidates") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not chosen:
        return None
    tops = raw.get("topCandidates") or [{}] * len(chosen)
    content = [
        {**_logprob(token), "top_logprobs": [_logprob(each) for each in top.get("candidates") or []]}
        for token, top in zip(chosen, tops, strict=False)
    ]
    return {"content": content, "refusal": None}


def _logprob(token: Mapping[str, Any]) -> dict[str, Any]:
    text = token["token"]
    return {"token": text, "logprob": token["logProbability"], "bytes": list(text.encode())}


def usage_of(raw: object) -> dict[str, Any] | None:
    """Return OpenAI's usage; None where it is absent. Thoughts are counted beside the candidates there."""
    if not isinstance(raw, dict):
        return None
    thoughts = _count(raw, "thoughtsTokenCount")
    prompt = _count(raw, "promptTokenCount") + _count(raw, "toolUsePromptTokenCount")
    output = _count(raw, "candidatesTokenCount") + thoughts
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {
            "cached_tokens": _count(raw, "cachedContentTokenCount"),
            "audio_tokens": _of(raw.get("promptTokensDetails"), "AUDIO"),
            **_pictures(raw.get("promptTokensDetails")),
            **_kept(raw.get("cacheTokensDetails")),
        },
        "completion_tokens_details": {
            "reasoning_tokens": thoughts,
            "audio_tokens": _of(raw.get("candidatesTokensDetails"), "AUDIO"),
            **_pictures(raw.get("candidatesTokensDetails")),
        },
    }


def _of(details: object, modality: str) -> int:
    if not isinstance(details, list):
        return 0
    return sum(
        _count(each, "tokenCount") for each in details if isinstance(each, dict) and each.get("modality") == modality
    )


def _pictures(details: object) -> dict[str, int]:
    """Tokens of pictures where there are some: they may have a price of their own."""
    found = _of(details, "IMAGE")
    return {"image_tokens": found} if found else {}


def _kept(details: object) -> dict[str, dict[str, int]]:
    """Tokens of sound that came from a cache, which have a price of their own."""
    found = _of(details, "AUDIO")
    return {"cached_tokens_details": {"audio_tokens": found}} if found else {}


def _count(source: Mapping[str, Any], name: str) -> int:
    value = source.get(name)
    return value if type(value) is int and value > 0 else 0


class GeminiStream(TranslatedStream):
    """Every event is an answer of its own with the parts that came since; the last of a candidate says why it ended."""

    def __init__(self, endpoint: str, model: str, *, inside: Callable[[Mapping[str, Any]], RequestError]) -> None:
        """`inside` tells the error of an event that is one."""
        super().__init__(endpoint, model)
        self._inside = inside
        self._calls: dict[int, int] = {}
        """Calls so far by candidate; one that is here has begun."""
        self._ended: set[int] = set()

    def events(self, event: Event) -> Iterator[Mapping[str, Any]]:
        """Yield the parts of chunks that an event makes."""
        told = orjson.loads(event.data)
        if told.get("error"):
            raise self._inside(told)
        if not self._calls:
            self.id = told.get("responseId") or self.id
            self.model = told.get("modelVersion") or self.model
        if not told.get("candidates") and self._calls:
            return
        for place, candidate in enumerate(_candidates(told)):
            index = candidate.get("index", place)
            if not isinstance(index, int):
                raise BadUpstreamResponse("a candidate of the upstream's stream has no index")
            yield self._part(candidate, index)
        if self._calls.keys() == self._ended:
            usage = usage_of(told.get("usageMetadata"))
            if usage is not None:
                yield usage_part(usage)
            self.finish()

    def _part(self, candidate: Mapping[str, Any], index: int) -> dict[str, Any]:
        begun = index in self._calls
        before = self._calls.setdefault(index, 0)
        told = _told(candidate, before)
        if not begun:
            told = {"role": "assistant", "content": "", **told}
        self._calls[index] += len(told.get("tool_calls", []))
        finish = finish_of(candidate.get("finishReason"), calls=self._calls[index] > 0)
        if finish is not None:
            self._ended.add(index)
        choice: dict[str, Any] = {"index": index, "delta": told, "finish_reason": finish}
        logprobs = logprobs_of(candidate.get("logprobsResult"))
        return {"choices": [{**choice, "logprobs": logprobs} if logprobs else choice]}
