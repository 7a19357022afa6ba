"""Gemini's answers as OpenAI's: candidates to choices, finish reasons, usage; and the same for streams. Pure."""

import time
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson

from broker.errors import BadUpstreamResponse, ContentPolicyViolation, RequestError
from workers.providers import legacy
from workers.providers.dialect import TranslatedStream, count, usage_part
from workers.providers.sse import Event

FINISH: Final = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
}
"""OpenAI's `finish_reason` by `finishReason`; every other one is `stop`."""

SPOILED: Final = frozenset(
    {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE"}
    | {"MISSING_THOUGHT_SIGNATURE"}
)
"""Reasons of an answer that the API threw away: without any content it is none, and another try may succeed."""

SERVED_TIERS: Final = {
    "standard": "default",
    "ON_DEMAND": "default",
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_PRIORITY": "priority",
    "PROVISIONED_THROUGHPUT": "scale",
}
"""OpenAI's `service_tier` by what AI Studio calls a tier and Vertex a traffic type (`google.genai.types.TrafficType`);
every other one in lower case, so that it is priced as what it is or not at all."""


def served_tier(told: str) -> str:
    """Return OpenAI's word for a tier."""
    return SERVED_TIERS.get(told) or SERVED_TIERS.get(told.lower()) or told.lower()


def _served(raw: object) -> dict[str, str]:
    """Return the field that tells the tier, where the usage tells it."""
    if not isinstance(raw, dict):
        return {}
    told = raw.get("serviceTier") or raw.get("trafficType")
    if not isinstance(told, str) or told.upper().endswith("UNSPECIFIED"):
        return {}
    return {"service_tier": served_tier(told)}


SPOKEN_SECONDS: Final = 3600
"""How long spoken audio can be referred to by its id, which OpenAI's shape has to say; it is never kept here."""


def completion_of(body: Mapping[str, Any], model: str, *, functions: bool = False) -> dict[str, Any]:
    """Return the chat completion of an answer. Raises `ContentPolicyViolation`, KeyError and the like.

    `functions`: the caller knows the older functions only.
    """
    candidates = _candidates(body)
    completion: dict[str, Any] = {
        "id": body.get("responseId") or f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.get("modelVersion") or model,
        "choices": [_choice(candidate, index, functions=functions) for index, candidate in enumerate(candidates)],
        **_served(body.get("usageMetadata")),
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


def _choice(candidate: Mapping[str, Any], place: int, *, functions: bool) -> dict[str, Any]:
    index, reason = candidate.get("index", place), candidate.get("finishReason")
    told = _told(candidate, 0)
    if not told:
        spoiled(candidate)
    message: dict[str, Any] = {"role": "assistant", "content": told.pop("content", None), **told}
    calls = [{name: value for name, value in call.items() if name != "index"} for call in message.get("tool_calls", [])]
    if calls:
        message["tool_calls"] = calls
    elif message["content"] is None:
        message["content"] = ""
    annotations = annotations_of(candidate, message["content"] or "")
    if annotations:
        message["annotations"] = annotations
    message["refusal"] = refusal_of(candidate)
    finish = finish_of(reason, calls=bool(calls)) or "stop"
    if functions:
        message, finish = legacy.as_function_call(message), legacy.finish(finish) or finish
    choice = {"index": index, "message": message, "finish_reason": finish}
    return {**choice, "logprobs": logprobs_of(candidate.get("logprobsResult"))}


def spoiled(candidate: Mapping[str, Any]) -> None:
    """Raise `BadUpstreamResponse` where a candidate without content was thrown away by the API itself."""
    reason = candidate.get("finishReason")
    if isinstance(reason, str) and reason in SPOILED:
        raise BadUpstreamResponse(f"the model's answer could not be used: {reason} {_words(candidate)}".strip())


def _words(candidate: Mapping[str, Any]) -> str:
    words = candidate.get("finishMessage")
    return words[:500] if isinstance(words, str) else ""


def refusal_of(candidate: Mapping[str, Any]) -> str | None:
    """Return what a candidate says of content that was withheld; None where none was, or it says nothing."""
    reason = candidate.get("finishReason")
    filtered = isinstance(reason, str) and FINISH.get(reason) == "content_filter"
    return _words(candidate) or None if filtered else None


def annotations_of(candidate: Mapping[str, Any], text: str) -> list[dict[str, Any]]:
    """Return what a search found as OpenAI's annotations of `text`; Google counts bytes of UTF-8."""
    grounding = candidate.get("groundingMetadata") or {}
    chunks, encoded = grounding.get("groundingChunks") or [], text.encode()
    found = []
    for support in grounding.get("groundingSupports") or []:
        segment = support.get("segment") or {}
        start, end = segment.get("startIndex", 0), segment.get("endIndex", 0)
        for number in support.get("groundingChunkIndices") or []:
            page = chunks[number].get("web")
            if isinstance(page, dict) and isinstance(page.get("uri"), str):
                place = {"start_index": _characters(encoded, start), "end_index": _characters(encoded, end)}
                cited = {"url": page["uri"], "title": page.get("title") or "", **place}
                found.append({"type": "url_citation", "url_citation": cited})
    return found


def _characters(encoded: bytes, count: int) -> int:
    return len(encoded[:count].decode("utf-8", "ignore"))


def _told(candidate: Mapping[str, Any], calls_before: int) -> dict[str, Any]:
    """Return what the parts of a candidate say, as the fields of a delta: content, reasoning_content, tool_calls."""
    told: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []
    for part in (candidate.get("content") or {}).get("parts") or []:
        signature = part.get("thoughtSignature")
        extra = {"extra_content": {"google": {"thought_signature": signature}}} if signature else {}
        if "functionCall" in part:
            calls.append({**_call(part["functionCall"], calls_before + len(calls)), **extra})
        elif "inlineData" in part:
            _add_data(told, part["inlineData"], extra)
        elif isinstance(part.get("text"), str) or signature:
            name, text = "reasoning_content" if part.get("thought") else "content", part.get("text") or ""
            if text:
                told[name] = told.get(name, "") + text
            told |= extra
    return {**told, "tool_calls": calls} if calls else told


def _add_data(told: dict[str, Any], data: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Add an image, or spoken audio, which comes in pieces of raw PCM or as a whole."""
    kind, encoded = data["mimeType"], data["data"]
    if not kind.startswith("audio/"):
        url = {"url": f"data:{kind};base64,{encoded}"}
        told.setdefault("images", []).append({"type": "image_url", "image_url": url, **extra})
    elif "audio" in told:
        told["audio"]["data"] = b64encode(b64decode(told["audio"]["data"]) + b64decode(encoded)).decode()
    else:
        expires = int(time.time()) + SPOKEN_SECONDS
        told["audio"] = {"id": f"audio_{uuid.uuid4().hex}", "data": encoded, "expires_at": expires, "transcript": ""}


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
    thoughts = count(raw, "thoughtsTokenCount")
    prompt = count(raw, "promptTokenCount") + count(raw, "toolUsePromptTokenCount")
    output = count(raw, "candidatesTokenCount") + thoughts
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {
            "cached_tokens": count(raw, "cachedContentTokenCount"),
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
        count(each, "tokenCount") for each in details if isinstance(each, dict) and each.get("modality") == modality
    )


def _pictures(details: object) -> dict[str, int]:
    """Tokens of pictures where there are some: they may have a price of their own."""
    found = _of(details, "IMAGE")
    return {"image_tokens": found} if found else {}


def _kept(details: object) -> dict[str, dict[str, int]]:
    """Tokens of sound that came from a cache, which have a price of their own."""
    found = _of(details, "AUDIO")
    return {"cached_tokens_details": {"audio_tokens": found}} if found else {}


class GeminiStream(TranslatedStream):
    """Every event is an answer of its own with the parts that came since; the last of a candidate says why it ended.

    Counts come with every event, and the last ones count.
    """

    def __init__(
        self,
        endpoint: str,
        model: str,
        *,
        inside: Callable[[Mapping[str, Any]], RequestError],
        candidates: int = 1,
        functions: bool = False,
    ) -> None:
        """`inside` tells the error of an event that is one; `candidates` is how many answers were asked for.

        `functions`: the caller knows the older functions only.
        """
        super().__init__(endpoint, model)
        self._inside = inside
        self._expected = candidates
        self._functions = functions
        self._calls: dict[int, int] = {}
        """Calls so far by candidate; one that is here has begun."""
        self._texts: dict[int, str] = {}
        self._signed: dict[int, dict[str, Any]] = {}
        """The signature of a candidate's text, which is told at its end: the last one is the one to keep."""
        self._ended: set[int] = set()
        self._usage: dict[str, Any] | None = None
        self._served: dict[str, str] = {}

    def events(self, event: Event) -> Iterator[Mapping[str, Any]]:
        """Yield the parts of chunks that an event makes."""
        told = orjson.loads(event.data)
        if told.get("error"):
            raise self._inside(told)
        if not self._calls:
            self.id = told.get("responseId") or self.id
            self.model = told.get("modelVersion") or self.model
        counts = told.get("usageMetadata")
        self._usage = usage_of(counts) or self._usage
        if isinstance(counts, dict) and "promptTokenCount" in counts:
            # Some models count the candidates at the end only.
            self.running, self.counts = usage_of(counts), "candidatesTokenCount" in counts
        self._served = _served(counts) or self._served
        if told.get("candidates") or not self._calls:
            for place, candidate in enumerate(_candidates(told)):
                index = candidate.get("index", place)
                if not isinstance(index, int):
                    raise BadUpstreamResponse("a candidate of the upstream's stream has no index")
                yield self._part(candidate, index)
        if self._calls.keys() == self._ended and len(self._ended) >= self._expected:
            if self._usage is not None:
                yield {**usage_part(self._usage), **self._served}
            self.finish()

    def _part(self, candidate: Mapping[str, Any], index: int) -> dict[str, Any]:
        begun = index in self._calls
        before = self._calls.setdefault(index, 0)
        told = _told(candidate, before)
        if not told and not self._texts.get(index) and not before:
            spoiled(candidate)
        self._texts[index] = self._texts.get(index, "") + told.get("content", "")
        if "extra_content" in told:
            self._signed[index] = told.pop("extra_content")
        self._calls[index] += len(told.get("tool_calls", []))
        finish = finish_of(candidate.get("finishReason"), calls=self._calls[index] > 0)
        if finish is not None:
            self._ended.add(index)
            told |= self._last(candidate, index)
        told |= {"annotations": found} if (found := annotations_of(candidate, self._texts[index])) else {}
        if self._functions:
            told, finish = legacy.as_function_call(told), legacy.finish(finish)
        if not begun:
            told = {"role": "assistant", "content": "", **told}
        choice: dict[str, Any] = {"index": index, "delta": told, "finish_reason": finish}
        logprobs = logprobs_of(candidate.get("logprobsResult"))
        return {"choices": [{**choice, "logprobs": logprobs} if logprobs else choice]}

    def _last(self, candidate: Mapping[str, Any], index: int) -> dict[str, Any]:
        refusal = refusal_of(candidate)
        more = {"extra_content": self._signed[index]} if index in self._signed else {}
        return more if refusal is None else {**more, "refusal": refusal}
