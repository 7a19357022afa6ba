"""The Gemini dialect: generateContent and batchEmbedContents. Request out, answer and error in. Pure.

Sources: ai.google.dev/api/generate-content, …/api/embeddings, …/gemini-api/docs/thinking, …/gemini-api/docs/openai (the
thinking budgets of each effort), and google.rpc.Status with its details (cloud.google.com/apis/design/errors).
"""

import struct
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from broker.errors import BadUpstreamResponse, ContextLengthExceeded, InvalidRequest, RequestError
from schemas.request import CHAT, EMBEDDINGS
from workers.providers import openai
from workers.providers.base import CallResult, Outbound
from workers.providers.catalog import ResolvedDeployment
from workers.providers.conversation import bad, most_tokens, response_format, stops, without
from workers.providers.dialect import Stream, cannot_take, given
from workers.providers.dialects.gemini_answer import GeminiStream, completion_of
from workers.providers.dialects.gemini_contents import choice, contents, offered

BUDGETS: Final = {"none": 0, "minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576}
"""Thinking tokens by `reasoning_effort` for Gemini 2.5, those of Google's own OpenAI endpoint."""
LEVELS: Final = {"minimal": "minimal", "low": "low", "medium": "medium", "high": "high"}
"""`thinkingLevel` by `reasoning_effort`, for Gemini 3 and later."""

NUMBERS: Final = {
    "temperature": "temperature", "top_p": "topP", "top_k": "topK", "seed": "seed", "n": "candidateCount",
    "presence_penalty": "presencePenalty", "frequency_penalty": "frequencyPenalty", "top_logprobs": "logprobs",
}  # fmt: skip
"""OpenAI's numbers and their names in `generationConfig`."""

TIERS: Final = ("standard", "flex", "priority")
"""`serviceTier`: ai.google.dev/gemini-api/docs/priority-inference."""

OURS: Final = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "stop", "stream", "stream_options", "tools",
        "tool_choice", "response_format", "reasoning_effort", "logprobs", "store", "generationConfig", "service_tier",
        *NUMBERS,
    }
)  # fmt: skip
ABSENT: Final[Mapping[str, tuple[Any, ...]]] = {
    "parallel_tool_calls": (True,), "logit_bias": ({},), "modalities": (["text"],), "audio": (), "prediction": (),
    "web_search_options": (), "functions": (), "function_call": (), "verbosity": (),
    "metadata": ({},), "user": (), "prompt_cache_key": (), "safety_identifier": (),
}  # fmt: skip
"""OpenAI's parameters that this API does not have, and the values that ask for nothing."""
HARMLESS: Final = frozenset({"user", "prompt_cache_key", "safety_identifier", "metadata"})
"""Of those the ones that change nothing of an answer: left out without a word."""


def streamed(endpoint: str) -> bool:
    """Whether answers of `endpoint` can be streamed."""
    return endpoint == CHAT


def outbound(target: ResolvedDeployment, endpoint: str, body: Mapping[str, Any], *, streams: bool) -> Outbound:
    """Return the request to send, as the contract says."""
    asked = given(target, body)
    base = f"{target.base_url}/models/{target.deployment.model}"
    if endpoint == CHAT:
        verb = "streamGenerateContent?alt=sse" if streams else "generateContent"
        return Outbound(f"{base}:{verb}", _written(_chat(target, asked)))
    if endpoint == EMBEDDINGS:
        return Outbound(f"{base}:batchEmbedContents", _written(_embeddings(target, asked)))
    raise InvalidRequest(f"Gemini does not serve {endpoint}", param="endpoint")


def _written(out: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(out)
    except TypeError as error:
        raise InvalidRequest(f"the body cannot be written as JSON: {error}") from None


def _chat(target: ResolvedDeployment, asked: Mapping[str, Any]) -> dict[str, Any]:
    for name in asked.keys() & (ABSENT.keys() - HARMLESS):
        if asked[name] not in ABSENT[name]:
            cannot_take(target, name)
    system, turns = contents(target, asked)
    out: dict[str, Any] = {"contents": turns}
    if system:
        out["systemInstruction"] = {"parts": system}
    declared, mode = offered(asked), choice(asked)
    if declared:
        out["tools"] = declared
    if mode is not None:
        out["toolConfig"] = mode
    config = _config(target, asked)
    if config:
        out["generationConfig"] = config
    tier = _tier(target, asked)
    if tier is not None:
        out["serviceTier"] = tier
    out.update((name, value) for name, value in without(asked, OURS | ABSENT.keys() | openai.CONTROL))
    return out


def _tier(target: ResolvedDeployment, asked: Mapping[str, Any]) -> str | None:
    """Return the tier to ask for; OpenAI's `auto` and `default` are what comes unasked."""
    tier = asked.get("service_tier")
    if tier in TIERS:
        return str(tier)
    if tier not in (None, "auto", "default"):
        cannot_take(target, "service_tier", f"Gemini has {', '.join(TIERS)}")
    return None


def _config(target: ResolvedDeployment, asked: Mapping[str, Any]) -> dict[str, Any]:
    own = asked.get("generationConfig")
    config: dict[str, Any] = dict(own) if isinstance(own, dict) else {}
    for name, theirs in NUMBERS.items():
        value = asked.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            bad(name, "a number is needed")
        config[theirs] = value
    _shape(asked, config)
    thinking = _thinking(target, asked)
    if thinking is not None:
        config["thinkingConfig"] = thinking
    return config


def _shape(asked: Mapping[str, Any], config: dict[str, Any]) -> None:
    """Add what bounds and forms the answer."""
    if config.get("candidateCount") == 1:
        del config["candidateCount"]
    if asked.get("logprobs") is True:
        config["responseLogprobs"] = True
    bound, sequences, wanted = most_tokens(asked), stops(asked), response_format(asked)
    if bound is not None:
        config["maxOutputTokens"] = bound
    if sequences:
        config["stopSequences"] = sequences
    if wanted is not None:
        config["responseMimeType"] = "application/json"
        if wanted.schema is not None:
            config["responseJsonSchema"] = wanted.schema


def _thinking(target: ResolvedDeployment, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    effort, model = asked.get("reasoning_effort"), target.deployment.model
    if effort is None:
        return None
    if not isinstance(effort, str) or effort not in BUDGETS:
        bad("reasoning_effort", f"one of {', '.join(BUDGETS)} is needed")
    if model.startswith(("gemini-1", "gemini-2.0", "gemma")):
        cannot_take(target, "reasoning_effort", f"{model} does not think")
        return None
    if model.startswith("gemini-2.5"):
        return {"thinkingBudget": BUDGETS[effort], "includeThoughts": effort != "none"}
    if effort not in LEVELS:
        cannot_take(target, "reasoning_effort", f"{model} always thinks")
        return None
    return {"thinkingLevel": LEVELS[effort], "includeThoughts": True}


def _embeddings(target: ResolvedDeployment, asked: Mapping[str, Any]) -> dict[str, Any]:
    inputs = [asked["input"]] if isinstance(asked.get("input"), str) else asked.get("input")
    if not isinstance(inputs, list) or not inputs or not all(isinstance(each, str) for each in inputs):
        bad("input", "a text or a list of texts is needed; Gemini takes no token numbers")
    known = {"model", "input", "dimensions", "encoding_format", "user", "metadata"} | openai.CONTROL
    shared: dict[str, Any] = dict(without(asked, frozenset(known)))
    if asked.get("dimensions") is not None:
        shared["outputDimensionality"] = asked["dimensions"]
    name = f"models/{target.deployment.model}"
    return {"requests": [{"model": name, "content": {"parts": [{"text": each}]}, **shared} for each in inputs]}


def answer(
    target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any], raw: bytes, headers: Mapping[str, str]
) -> CallResult:
    """Read an answer, as the contract says."""
    body = openai.parse(raw)
    if not isinstance(body, dict):
        raise BadUpstreamResponse("the upstream answered with JSON that is no object")
    if body.get("error"):
        raise inside(body)
    model = target.deployment.model
    try:
        found = _embedded(body, model, asked) if endpoint == EMBEDDINGS else completion_of(body, model)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError, struct.error, OverflowError):
        raise BadUpstreamResponse("the upstream's answer cannot be read") from None
    result = openai.result(target, endpoint, asked, found, orjson.dumps(found), headers)
    usage = body.get("usageMetadata")
    return result if not isinstance(usage, dict) else replace(result, usage=replace(result.usage, raw=usage))


def _embedded(body: Mapping[str, Any], model: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    data = []
    for index, each in enumerate(body["embeddings"]):
        values: Any = [float(number) for number in each["values"]]
        if asked.get("encoding_format") == "base64":
            values = b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
        data.append({"object": "embedding", "index": index, "embedding": values})
    return {"object": "list", "model": model, "data": data}


def stream(target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any]) -> Stream:
    """Return what puts a streamed answer together."""
    del asked
    return GeminiStream(endpoint, target.deployment.model, inside=inside)


def inside(body: Mapping[str, Any]) -> RequestError:
    """Return the error that came where an answer was expected; it names its own status."""
    told = body.get("error")
    code = told.get("code") if isinstance(told, dict) else None
    return error(code if isinstance(code, int) and 400 <= code <= 599 else 500, {}, orjson.dumps(body), 0.0)  # noqa: PLR2004


def error(status: int, headers: Mapping[str, str], raw: bytes, now: float) -> RequestError:
    """Return the error of an answer whose status is not 2xx; `now` is unix seconds."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if isinstance(body, list) and body:  # a stream's error comes as a list of one
        body = body[0]
    told = body.get("error") if isinstance(body, dict) else None
    if not isinstance(told, dict):
        return openai.error(status, headers, raw, now)
    details = [each for each in told.get("details") or [] if isinstance(each, dict)] if _listed(told) else []
    for each in details:
        if each.get("reason") in {"API_KEY_INVALID", "API_KEY_EXPIRED"}:
            status = 401  # the API says 400, and it is the deployment's fault
        delay = each.get("retryDelay")
        if isinstance(delay, str) and "retry-after" not in headers:
            headers = {**headers, "retry-after": delay.removesuffix("s")}
    message, kind = told.get("message"), told.get("status")
    if isinstance(message, str) and "exceeds the maximum number of tokens" in message:
        return ContextLengthExceeded(message[:2000])
    shaped = {"error": {"message": message, "type": kind, "code": kind.lower() if isinstance(kind, str) else None}}
    return openai.error(status, headers, orjson.dumps(shaped), now)


def _listed(told: Mapping[str, Any]) -> bool:
    return isinstance(told.get("details"), list)
