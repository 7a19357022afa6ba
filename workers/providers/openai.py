"""The OpenAI dialect: a body out, an answer or an error in. Pure functions; imports orjson, schemas and our errors."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from broker.errors import BadUpstreamResponse, InvalidRequest, RequestError, UpstreamError
from schemas.request import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from workers.providers.base import CallResult
from workers.providers.catalog import HARMLESS, NOTHING_ASKED, ResolvedDeployment
from workers.providers.counted import tier_of, usage_in
from workers.providers.status import error_status, upstream_error
from workers.providers.usage import stated_cost

STREAMED: Final = frozenset({CHAT, COMPLETIONS, RESPONSES})
"""Endpoints whose answers can be streamed."""

CONTROL: Final = frozenset(
    {
        "api_base",
        "api_key",
        "base_url",
        "cache",
        "caching",
        "content_policy_fallbacks",
        "context_window_fallbacks",
        "custom_llm_provider",
        "disable_fallbacks",
        "fallbacks",
        "litellm_metadata",
        "mock_response",
        "num_retries",
        "priority",
        "tags",
        "timeout",
    }
)
"""Fields of a body that speak to a broker, ours or LiteLLM's, and never to a provider."""

_CHECKED: Final = frozenset({CHAT, COMPLETIONS, EMBEDDINGS})
"""Endpoints whose answers are held against their contract here; the others' checks are in `openai_shapes`."""
_LIMITS: Final = ("x-ratelimit-", "anthropic-ratelimit-")
_INLINE_TEXT: Final = 300
_ERROR: Final = 400


def url(target: ResolvedDeployment, endpoint: str) -> str:
    """Return where `endpoint` (`/v1/…`) is served: the base URL has the version in it."""
    return target.base_url + endpoint.removeprefix("/v1") + target.query


def request(target: ResolvedDeployment, body: Mapping[str, Any], *, streams: bool, asks_usage: bool = True) -> bytes:
    """Return the body to send: the caller's over the deployment's defaults, the provider's own model name in it.

    A stream is asked for its usage, where `asks_usage` and the provider need it. Raises `InvalidRequest` when the body
    cannot be written as JSON, or names what the provider cannot take.
    """
    out = {**target.merged(body), "model": target.deployment.model}
    for name in out.keys() & CONTROL:
        if name not in target.defaults:
            del out[name]
        else:
            out[name] = target.defaults[name]
    for name in out.keys() & target.dropped:
        del out[name]
    if target.lacks:
        _leave_out(target, out)
    for name, theirs in target.renames:
        if name in out:
            out.setdefault(theirs, out[name])
            del out[name]
    if streams:
        out["stream"] = True
        options = out.get("stream_options")
        if asks_usage and target.provider.asks_usage:
            out["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        else:
            out.pop("stream_options", None)
    else:
        out.pop("stream", None)
        out.pop("stream_options", None)
    try:
        return orjson.dumps(out)
    except TypeError as error:
        raise InvalidRequest(f"the body cannot be written as JSON: {error}") from None


def _leave_out(target: ResolvedDeployment, out: dict[str, Any]) -> None:
    """Take out what the provider refuses; where it would have changed the answer, the request is refused by name."""
    for name in sorted(out.keys() & target.lacks):
        value = out.pop(name)
        if value is not None and name not in HARMLESS and value not in NOTHING_ASKED.get(name, ()):
            target.cannot_take(name)


def parse(raw: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Parse an answer. Raises `BadUpstreamResponse` that says what came in its place."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise BadUpstreamResponse(f"the upstream answered with {_looks_like(raw)} where JSON was asked for") from None


def _looks_like(raw: bytes) -> str:
    start = raw[:100].lstrip().lower()
    if not start:
        return "an empty body"
    if start.startswith(b"<"):
        return "a web page"
    if start.startswith((b"data:", b"event:", b":")):
        return "an event stream"
    return "truncated or invalid JSON" if start[:1] in b'{["' else "text that is not JSON"


def answer(
    target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any], raw: bytes, headers: Mapping[str, str]
) -> CallResult:
    """Check that a body of status 200 is the endpoint's answer, and read it; the reply is the very bytes that came.

    Raises `BadUpstreamResponse` when it is not, and the error inside it when it is one.
    """
    return result(target, endpoint, asked, parse(raw), raw, headers)


def result(  # noqa: PLR0913, PLR0917 - what was asked and what came, each once
    target: ResolvedDeployment,
    endpoint: str,
    asked: Mapping[str, Any],
    body: Any,  # noqa: ANN401 - any JSON
    raw: bytes,
    headers: Mapping[str, str],
) -> CallResult:
    """Do as `answer` does, with the body parsed already."""
    if not isinstance(body, dict):
        raise BadUpstreamResponse("the upstream answered with JSON that is no object")
    if body.get("error"):
        raise error_inside(body)
    if endpoint in _CHECKED:
        _check(endpoint, asked, body)
    model, reported = body.get("model"), body.get("usage")
    provider = target.provider
    return CallResult(
        raw,
        model if isinstance(model, str) and model else target.deployment.model,
        usage_in(endpoint, asked, body),
        service_tier=tier_of(target, asked, body, headers),
        stated_cost=stated_cost(reported, provider.cost_field, provider.cost_exponent) if provider.cost_field else None,
        headers=_limits(headers),
    )


def _check(endpoint: str, asked: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    """Hold an answer against its endpoint's contract."""
    if endpoint == EMBEDDINGS:
        _check_embeddings(asked, body)
        return
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BadUpstreamResponse("the upstream's answer has no choices")
    part, kind = ("message", dict) if endpoint == CHAT else ("text", str)
    for choice in choices:
        if not isinstance(choice, dict):
            raise BadUpstreamResponse("a choice of the upstream's answer is no object")
        if choice.get("error"):
            raise error_inside(choice)
        if not isinstance(choice.get(part), kind):
            raise BadUpstreamResponse(f"a choice of the upstream's answer has no {part}")


def _check_embeddings(asked: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    data, inputs = body.get("data"), asked.get("input")
    if not isinstance(data, list) or not data:
        raise BadUpstreamResponse("the upstream's answer has no data")
    if not all(isinstance(item, dict) and isinstance(item.get("embedding"), list | str) for item in data):
        raise BadUpstreamResponse("an item of the upstream's answer has no embedding")
    wanted = len(inputs) if isinstance(inputs, list) and inputs and not isinstance(inputs[0], int) else 1
    if len(data) != wanted:
        raise BadUpstreamResponse(f"the upstream answered {len(data)} embeddings for {wanted} inputs")


def error_inside(body: Mapping[str, Any]) -> RequestError:
    """Return the error that came with status 200, or inside a stream; a status it names itself (OpenRouter) counts.

    Without one it is a bad answer, unless it says that the request does not fit or is refused.
    """
    named = error_status(body)
    meant = upstream_error(named or _ERROR, body, {}, 0.0)
    if named is None and isinstance(meant, UpstreamError | InvalidRequest):
        return BadUpstreamResponse(f"the upstream answered 200 with an error: {meant.message}")
    return meant


def error(status: int, headers: Mapping[str, str], raw: bytes, now: float) -> RequestError:
    """Return the error for an answer whose status is not 2xx; `now` is unix seconds."""
    try:
        body: object = orjson.loads(raw)
    except orjson.JSONDecodeError:
        text = raw[: _INLINE_TEXT * 4].decode("utf-8", "replace").strip()
        body = None if not text or text.startswith("<") else f"the upstream answered {status}: {text[:_INLINE_TEXT]}"
    found = upstream_error(status, body, headers, now)
    if isinstance(found, UpstreamError):
        found.headers = _limits(headers)
    return found


def _limits(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith(_LIMITS)}


def told_limits(target: ResolvedDeployment, headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return an answer's headers with the provider's own limits under OpenAI's names too, where its row has some."""
    if not target.provider.limits:
        return headers
    renamed = {known: headers[own] for own, known in target.provider.limits if own in headers}
    return {**headers, **renamed}
