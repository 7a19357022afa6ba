"""The Gemini dialect: generateContent and batchEmbedContents. Request out, answer and error in. Pure.

Sources: ai.google.dev/api/generate-content, …/api/embeddings, …/gemini-api/docs/file-input-methods (URLs it fetches
itself), and google.rpc.Status with its details (cloud.google.com/apis/design/errors).
"""

import struct
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from broker.errors import BadUpstreamResponse, ContextLengthExceeded, InvalidRequest, RequestError
from schemas.request import CHAT, EMBEDDINGS
from workers.providers import legacy, openai
from workers.providers.base import CallResult, Outbound
from workers.providers.catalog import HARMLESS, ResolvedDeployment
from workers.providers.conversation import bad, most_tokens, response_format, stops, without
from workers.providers.dialect import Stream, cannot_take, encoded, given, refuse_absent
from workers.providers.dialects import gemini_models as models
from workers.providers.dialects.gemini_answer import GeminiStream, completion_of, served_tier
from workers.providers.dialects.gemini_contents import choice, contents, offered
from workers.providers.openai_stream import written
from workers.providers.usage import estimate

NUMBERS: Final = {
    "temperature": "temperature", "top_p": "topP", "top_k": "topK", "seed": "seed", "n": "candidateCount",
    "presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty", "top_logprobs": "logprobs",
}  # fmt: skip
"""OpenAI's numbers and their names in `generationConfig`."""

CONFIGURED: Final = frozenset(
    {
        "thinkingConfig", "responseModalities", "speechConfig", "imageConfig", "mediaResolution", "responseSchema",
        "responseJsonSchema", "responseMimeType", "topK", "topP", "candidateCount", "maxOutputTokens", "stopSequences",
        "presencePenalty", "frequencyPenalty", "responseLogprobs", "enableEnhancedCivicAnswers", "audioTimestamp",
        "responseFormat", "translationConfig", "audioTranscriptionConfig", "enableAffectiveDialog",
    }
)  # fmt: skip
"""Google's parameters that belong into `generationConfig`, wherever the caller wrote them."""

OURS: Final = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "stop", "stream", "stream_options", "tools",
        "tool_choice", "response_format", "reasoning_effort", "logprobs", "generationConfig", "toolConfig",
        "modalities", "audio", "service_tier", "web_search_options", *NUMBERS, *CONFIGURED,
    }
)  # fmt: skip
ABSENT: Final = frozenset({"parallel_tool_calls", "logit_bias", "verbosity", "moderation"})
"""OpenAI's parameters that this API does not have."""
MOST_STOPS: Final = 5
"""ai.google.dev/api/generate-content, `stopSequences`."""

TIERS: Final = {"default": "standard", "standard": "standard", "flex": "flex", "priority": "priority"}
"""OpenAI's names of tiers → Google's; `auto` is its default."""
TIER_HEADER: Final = "x-gemini-service-tier"
"""Tells the tier that served an answer which is no stream; AI Studio's usage tells it too, Vertex's its traffic."""
MODALITIES: Final = {"text": "TEXT", "audio": "AUDIO", "image": "IMAGE"}

OF_EMBEDDINGS: Final = frozenset({"model", "input", "dimensions", "encoding_format", "user", "metadata"})
"""OpenAI's parameters of an embedding."""


def streamed(endpoint: str) -> bool:
    """Whether answers of `endpoint` can be streamed."""
    return endpoint == CHAT


def outbound(target: ResolvedDeployment, endpoint: str, body: Mapping[str, Any], *, streams: bool) -> Outbound:
    """Return the request to send, as the contract says."""
    asked = given(target, body)
    base = f"{target.base_url}/models/{target.deployment.model}"
    if endpoint == CHAT:
        verb = "streamGenerateContent?alt=sse" if streams else "generateContent"
        return Outbound(f"{base}:{verb}", encoded(_chat(target, asked)))
    if endpoint == EMBEDDINGS:
        return Outbound(f"{base}:batchEmbedContents", encoded(_embeddings(target, asked)))
    raise InvalidRequest(f"Gemini does not serve {endpoint}", param="endpoint")


def _chat(target: ResolvedDeployment, given_body: Mapping[str, Any]) -> dict[str, Any]:
    asked = legacy.modern(dict(given_body))
    if not asked.get("tools"):
        asked.pop("parallel_tool_calls", None)  # nothing that could be called
    absent = refuse_absent(target, asked, ABSENT)
    system, turns = contents(target, asked)
    out: dict[str, Any] = {"contents": turns}
    if system:
        out["systemInstruction"] = {"parts": system}
    declared, mode = offered(target, asked), choice(asked)
    if declared:
        out["tools"] = declared
    own = asked.get("toolConfig")
    if mode is not None or isinstance(own, dict):
        out["toolConfig"] = {**(own if isinstance(own, dict) else {}), **(mode or {})}
    config = _config(target, asked)
    if config:
        out["generationConfig"] = config
    tier = asked.get("service_tier")
    if isinstance(tier, str) and tier in TIERS:
        out["serviceTier"] = TIERS[tier]
    elif tier not in {None, "auto"} if isinstance(tier, str | None) else True:
        cannot_take(target, "service_tier", "Gemini has default, flex and priority")
    out.update((name, value) for name, value in without(asked, OURS | absent | HARMLESS | openai.CONTROL))
    return out


def _config(target: ResolvedDeployment, asked: Mapping[str, Any]) -> dict[str, Any]:
    own = asked.get("generationConfig")
    config: dict[str, Any] = dict(own) if isinstance(own, dict) else {}
    config.update((name, asked[name]) for name in CONFIGURED & asked.keys())
    for name, theirs in NUMBERS.items():
        value = asked.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            bad(name, "a number is needed")
        config[theirs] = value
    _shape(target, asked, config)
    _spoken(target, asked, config)
    thinking = _thinking(target, asked)
    if thinking is not None:
        config["thinkingConfig"] = thinking
    return config


def _shape(target: ResolvedDeployment, asked: Mapping[str, Any], config: dict[str, Any]) -> None:
    """Add what bounds and forms the answer."""
    if config.get("candidateCount") == 1:
        del config["candidateCount"]
    if asked.get("logprobs") is True:
        config["responseLogprobs"] = True
    bound, sequences, wanted = most_tokens(asked), stops(asked), response_format(asked)
    if bound is not None:
        config["maxOutputTokens"] = bound
    if len(sequences) > MOST_STOPS:
        cannot_take(target, "stop", f"Gemini takes up to {MOST_STOPS}")
    elif sequences:
        config["stopSequences"] = sequences
    if wanted is not None:
        config["responseMimeType"] = "application/json"
        if wanted.schema is not None:
            config["responseJsonSchema"] = wanted.schema


def _spoken(target: ResolvedDeployment, asked: Mapping[str, Any], config: dict[str, Any]) -> None:
    """Add what the answer is made of, and the voice it speaks with."""
    wanted, voice = asked.get("modalities"), asked.get("audio")
    if wanted is not None:
        if not isinstance(wanted, list) or not all(isinstance(each, str) and each in MODALITIES for each in wanted):
            bad("modalities", f"a list of {', '.join(MODALITIES)} is needed")
        if wanted != ["text"]:
            # Models that do nothing but speak take no text beside it, and OpenAI's bodies name it always.
            only = "tts" in target.deployment.model
            config["responseModalities"] = [MODALITIES[each] for each in wanted if not (only and each == "text")]
    if voice is None:
        return
    if not isinstance(voice, dict):
        bad("audio", "an object with voice and format is needed")
    if voice.get("format") != "pcm16":
        cannot_take(target, "audio.format", "Gemini speaks pcm16")
    name = voice.get("voice")
    if not isinstance(name, str) or not name:
        bad("audio.voice", "the name of one of Gemini's voices is needed")
    config["speechConfig"] = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": name}}}


def _thinking(target: ResolvedDeployment, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    effort, model = asked.get("reasoning_effort"), target.deployment.model
    if effort is None:
        return None
    if not isinstance(effort, str) or effort not in models.EFFORTS:
        bad("reasoning_effort", f"one of {', '.join(models.EFFORTS)} is needed")
    if not models.thinks(model):
        if effort != "none":
            cannot_take(target, "reasoning_effort", f"{model} does not think")
        return None
    if effort == "none" and not models.can_rest(model):
        cannot_take(target, "reasoning_effort", f"{model} always thinks")
        return None
    return models.thinking(model, effort)


def texts(asked: Mapping[str, Any]) -> list[str]:
    """Return what an embedding is asked of. Raises `InvalidRequest` where it is no text."""
    inputs = [asked["input"]] if isinstance(asked.get("input"), str) else asked.get("input")
    if not isinstance(inputs, list) or not inputs or not all(isinstance(each, str) for each in inputs):
        bad("input", "a text or a list of texts is needed; Gemini takes no token numbers")
    return inputs


def _embeddings(target: ResolvedDeployment, asked: Mapping[str, Any]) -> dict[str, Any]:
    inputs = texts(asked)
    shared: dict[str, Any] = dict(without(asked, OF_EMBEDDINGS | openai.CONTROL))
    if asked.get("dimensions") is not None:
        shared["outputDimensionality"] = asked["dimensions"]
    name = f"models/{target.deployment.model}"
    return {"requests": [{"model": name, "content": {"parts": [{"text": each}]}, **shared} for each in inputs]}


def answer(
    target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any], raw: bytes, headers: Mapping[str, str]
) -> CallResult:
    """Read an answer, as the contract says."""
    return read(target, endpoint, asked, raw, headers, _embedded if endpoint == EMBEDDINGS else _completion)


Translate = Callable[[Mapping[str, Any], str, Mapping[str, Any]], dict[str, Any]]
"""Answer, model and what was asked → OpenAI's body; any fault of the answer may come out of it."""


def read(  # noqa: PLR0913, PLR0917 - the contract's, and how the body is translated
    target: ResolvedDeployment,
    endpoint: str,
    asked: Mapping[str, Any],
    raw: bytes,
    headers: Mapping[str, str],
    translate: Translate,
) -> CallResult:
    """Do as `answer` does, with a translation of the caller's choice."""
    body = openai.parse(raw)
    if not isinstance(body, dict):
        raise BadUpstreamResponse("the upstream answered with JSON that is no object")
    if body.get("error"):
        raise inside(body)
    embeds = endpoint == EMBEDDINGS
    try:
        found = translate(body, target.deployment.model, asked)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError, struct.error, OverflowError):
        raise BadUpstreamResponse("the upstream's answer cannot be read") from None
    if not embeds and "service_tier" not in found and TIER_HEADER in headers:
        found["service_tier"] = served_tier(headers[TIER_HEADER])
    told = body.get("usageMetadata")
    usage = None
    if embeds and "usage" not in found:
        usage = estimate(asked, {})  # a body has to have a usage, and the ledger has to know that nobody counted
        found["usage"] = {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens}
    result = openai.result(target, endpoint, asked, found, written(found), headers)
    if usage is not None:
        return replace(result, usage=usage)
    return result if not isinstance(told, dict) else replace(result, usage=replace(result.usage, raw=told))


def _completion(body: Mapping[str, Any], model: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    return completion_of(body, model, functions=legacy.is_legacy(asked))


def _embedded(body: Mapping[str, Any], model: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    found = embedded(body["embeddings"], model, asked)
    told = body.get("usageMetadata")
    count = told.get("promptTokenCount") if isinstance(told, dict) else None
    if type(count) is not int or count < 0:
        return found
    return {**found, "usage": {"prompt_tokens": count, "total_tokens": count}}


def embedded(found: Iterable[Mapping[str, Any]], model: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return OpenAI's list of embeddings, in the encoding that was asked for. Raises KeyError and the like."""
    data = []
    for index, each in enumerate(found):
        values: Any = [float(number) for number in each["values"]]
        if asked.get("encoding_format") == "base64":
            values = b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
        data.append({"object": "embedding", "index": index, "embedding": values})
    return {"object": "list", "model": model, "data": data}


def stream(target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any]) -> Stream:
    """Return what puts a streamed answer together."""
    count = given(target, asked).get("n")
    return GeminiStream(
        endpoint,
        target.deployment.model,
        inside=inside,
        candidates=count if type(count) is int and count > 0 else 1,
        functions=legacy.is_legacy(asked),
    )


def inside(body: Mapping[str, Any]) -> RequestError:
    """Return the error that came where an answer was expected; it names its own status."""
    told = body.get("error")
    code = told.get("code") if isinstance(told, dict) else None
    return error(code if isinstance(code, int) and 400 <= code <= 599 else 500, {}, orjson.dumps(body), 0.0)  # noqa: PLR2004


BAD_KEY: Final = ("API_KEY_INVALID", "API_KEY_EXPIRED")
"""Reasons of google.rpc.ErrorInfo."""


def error(status: int, headers: Mapping[str, str], raw: bytes, now: float) -> RequestError:
    """Return the error of an answer whose status is not 2xx; `now` is unix seconds."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if isinstance(body, list) and body:  # a stream's error comes as a list of one
        body = body[0]
    told = body.get("error") if isinstance(body, dict) else None
    if not isinstance(told, dict) or "type" in told:  # Anthropic's own, from Vertex
        return openai.error(status, headers, raw, now)
    details = [each for each in told.get("details") or [] if isinstance(each, dict)] if _listed(told) else []
    field: object = None
    for each in details:
        if each.get("reason") in ("API_KEY_INVALID", "API_KEY_EXPIRED"):
            status = 401  # the API says 400, and it is the deployment's fault
        violations = each.get("fieldViolations")
        if isinstance(violations, list) and violations and isinstance(violations[0], dict):
            field = violations[0].get("field") or field
        delay = each.get("retryDelay")
        if isinstance(delay, str) and "retry-after" not in headers:
            headers = {**headers, "retry-after": delay.removesuffix("s")}
    message, kind = told.get("message"), told.get("status")
    if isinstance(message, str) and "exceeds the maximum number of tokens" in message:
        return ContextLengthExceeded(message[:2000])
    shaped = {"message": message, "type": kind, "code": kind.lower() if isinstance(kind, str) else None, "param": field}
    return openai.error(status, headers, orjson.dumps({"error": shaped}), now)


def _listed(told: Mapping[str, Any]) -> bool:
    return isinstance(told.get("details"), list)
