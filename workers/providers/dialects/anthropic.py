"""The Anthropic dialect: Messages. Request out, answer and error in; streams are in `anthropic_stream`. Pure.

Sources: platform.claude.com/docs/en/api/messages, …/api/errors, …/build-with-claude/structured-outputs, and the request
and answer types of the official Python SDK.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from broker.errors import BadUpstreamResponse, ContextLengthExceeded, InvalidRequest, RequestError
from schemas.request import CHAT
from workers.providers import legacy, openai
from workers.providers.base import CallResult, Outbound
from workers.providers.catalog import HARMLESS, ResolvedDeployment
from workers.providers.conversation import Format, bad, most_tokens, response_format, stops, without
from workers.providers.dialect import Stream, cannot_take, encoded, given, refuse_absent
from workers.providers.dialects import anthropic_models as models
from workers.providers.dialects.anthropic_answer import ANSWER_TOOL, message_of, usage_of
from workers.providers.dialects.anthropic_messages import choice, conversation, offered, web_search
from workers.providers.dialects.anthropic_models import EFFORTS
from workers.providers.dialects.anthropic_schema import Inexpressible, cleaned
from workers.providers.dialects.anthropic_stream import AnthropicStream
from workers.providers.openai_stream import written

DEFAULT_MAX_TOKENS: Final = 4096
"""Of an answer whose request sets no bound, which this API insists on; what LiteLLM sends as well."""

OURS: Final = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "stop", "stream", "stream_options", "tools",
        "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "user", "metadata", "service_tier",
        "temperature", "top_p", "top_k", "n", "output_config", "web_search_options",
    }
)  # fmt: skip
"""OpenAI's parameters that are written anew here."""

ABSENT: Final = frozenset(
    {
        "seed", "logprobs", "top_logprobs", "presence_penalty", "frequency_penalty", "logit_bias", "modalities",
        "audio", "verbosity", "moderation",
    }
)  # fmt: skip
"""OpenAI's parameters that this API does not have."""

TYPES: Final = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504,
    "overloaded_error": 529,
    "conflict_error": 409,
}  # fmt: skip
"""Status by error type (docs, "Errors"): what an error inside a stream, which has no status, stands for."""


def streamed(endpoint: str) -> bool:
    """Whether answers of `endpoint` can be streamed."""
    return endpoint == CHAT


def native_schema(target: ResolvedDeployment, asked: Format) -> dict[str, Any] | None:
    """Return the schema of the API's own structured outputs; None where model or schema have no such."""
    if asked.schema is None or not models.structured(target.deployment.model):
        return None
    try:
        return cleaned(asked.schema)
    except (Inexpressible, RecursionError):
        return None


def forced_format(target: ResolvedDeployment, body: Mapping[str, Any]) -> Format | None:
    """Return the structured output that a forced tool has to stand in for; None where the API has its own way."""
    asked = response_format(body)
    return None if asked is None or native_schema(target, asked) is not None else asked


def outbound(target: ResolvedDeployment, endpoint: str, body: Mapping[str, Any], *, streams: bool) -> Outbound:
    """Return the request to send, as the contract says."""
    return Outbound(f"{target.base_url}/messages", encoded(message(target, endpoint, body, streams=streams)))


def message(target: ResolvedDeployment, endpoint: str, body: Mapping[str, Any], *, streams: bool) -> dict[str, Any]:
    """Return the body that asks for a message. Raises as `outbound` does."""
    if endpoint != CHAT:
        raise InvalidRequest(f"Anthropic does not serve {endpoint}", param="endpoint")
    asked = legacy.modern(given(target, body))
    if legacy.is_legacy(body):
        asked["parallel_tool_calls"] = False  # the caller can read one call an answer
    absent = refuse_absent(target, asked, ABSENT)
    system, turns = conversation(target, asked)
    out: dict[str, Any] = {
        "model": target.deployment.model,
        "max_tokens": most_tokens(asked) or DEFAULT_MAX_TOKENS + _own_budget(asked),
        "messages": turns,
    }
    if system:
        out["system"] = system
    sequences = stops(asked)
    if any(not each.strip() for each in sequences):
        cannot_take(target, "stop", "Anthropic takes none of white space alone")
        sequences = [each for each in sequences if each.strip()]
    if sequences:
        out["stop_sequences"] = sequences
    if isinstance(asked.get("output_config"), dict):
        out["output_config"] = asked["output_config"]
    _tools(target, asked, out)
    _sampling(target, asked, out)
    _labels(target, asked, out)
    _thinking(target, asked, out)
    skipped = OURS | absent | HARMLESS | openai.CONTROL
    out.update((name, value) for name, value in without(asked, skipped) if name not in out)
    if streams:
        out["stream"] = True
    return out


def _own_budget(asked: Mapping[str, Any]) -> int:
    """Return the thinking budget that the caller names in Anthropic's own words: the bound has to be larger."""
    thinking = asked.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    return budget if type(budget) is int and budget > 0 else 0


def _tools(target: ResolvedDeployment, asked: Mapping[str, Any], out: dict[str, Any]) -> None:
    found = offered(asked)
    search = web_search(target, asked)
    if search is not None:
        found.append(search)
    selected = choice(asked, has_tools=bool(found))
    wanted, forced = response_format(asked), forced_format(target, asked)
    if forced is not None:
        if not models.forceable(target.deployment.model):
            cannot_take(target, "response_format", f"{target.deployment.model} takes closed schemas only")
        else:
            schema = dict(forced.schema) if forced.schema is not None else {"type": "object"}
            found.append({"name": ANSWER_TOOL, "description": "Give the answer as JSON.", "input_schema": schema})
            selected = {"type": "tool", "name": ANSWER_TOOL} if len(found) == 1 else {"type": "any"}
    elif wanted is not None:
        schema = native_schema(target, wanted) or {}
        out["output_config"] = {**out.get("output_config", {}), "format": {"type": "json_schema", "schema": schema}}
    if found:
        out["tools"] = found
    if selected is not None and selected["type"] in {"any", "tool"} and not models.forceable(target.deployment.model):
        cannot_take(target, "tool_choice", f"{target.deployment.model} cannot be made to call a tool")
        selected = {**{name: value for name, value in selected.items() if name != "name"}, "type": "auto"}
    if selected is not None:
        out["tool_choice"] = selected


SAMPLERS: Final = {"temperature": 1, "top_p": 1, "top_k": None}
"""Name → the value that asks for nothing."""


def _sampling(target: ResolvedDeployment, asked: Mapping[str, Any], out: dict[str, Any]) -> None:
    model = target.deployment.model
    for name, nothing in SAMPLERS.items():
        value = asked.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            bad(name, "a number is needed")
        if not models.sampled(model):
            if value != nothing:
                cannot_take(target, name, f"{model} has no such parameter any more")
        elif name != "top_k" and not 0 <= value <= 1:
            cannot_take(target, name, "Anthropic takes 0 to 1")
        else:
            out[name] = value
    if models.one_sampler(model):
        _one_sampler(target, out)
    if asked.get("n", 1) != 1:
        cannot_take(target, "n", "Anthropic gives one answer a request")


def _one_sampler(target: ResolvedDeployment, out: dict[str, Any]) -> None:
    """Leave the one out that asks for nothing where both are there."""
    if not {"temperature", "top_p"} <= out.keys():
        return
    if out["temperature"] == 1:
        del out["temperature"]
        return
    if out["top_p"] != 1:
        cannot_take(target, "top_p", f"{target.deployment.model} takes temperature or top_p, not both")
    del out["top_p"]


TIERS: Final = {"auto": "auto", "standard_only": "standard_only", "default": "standard_only"}
"""OpenAI's and Anthropic's names of tiers → Anthropic's. A priority tier is used where the account has one."""


def _labels(target: ResolvedDeployment, asked: Mapping[str, Any], out: dict[str, Any]) -> None:
    metadata, tier = asked.get("metadata"), asked.get("service_tier")
    user = asked.get("user", asked.get("safety_identifier"))
    if isinstance(user, str):
        out["metadata"] = {"user_id": user}
    if isinstance(metadata, dict) and isinstance(metadata.get("user_id"), str):
        out["metadata"] = {"user_id": metadata["user_id"]}
    if isinstance(tier, str) and tier in TIERS:
        out["service_tier"] = TIERS[tier]
    elif tier is not None:
        cannot_take(target, "service_tier", "Anthropic has auto and standard_only")


def _thinking(target: ResolvedDeployment, asked: Mapping[str, Any], out: dict[str, Any]) -> None:
    effort, model = asked.get("reasoning_effort"), target.deployment.model
    forced = out.get("tool_choice", {}).get("type") in {"any", "tool"}
    if effort is None and forced and "thinking" not in asked:
        effort = "none" if models.thinks_unasked(model) and not models.always_thinks(model) else None
    if effort is None:
        return
    if not isinstance(effort, str) or effort not in {"none", *EFFORTS}:
        bad("reasoning_effort", f"one of none, {', '.join(EFFORTS)} is needed")
    if effort == "none":
        if models.always_thinks(model):
            cannot_take(target, "reasoning_effort", f"{model} always thinks")
        elif models.thinks_unasked(model):
            out["thinking"] = {"type": "disabled"}
    elif not models.thinks(model):
        cannot_take(target, "reasoning_effort", f"{model} does not think")
    elif forced:
        cannot_take(target, "reasoning_effort", "thinking and a forced tool exclude each other")
    else:
        _think(target, effort, out)


def _think(target: ResolvedDeployment, effort: str, out: dict[str, Any]) -> None:
    model = target.deployment.model
    if out.get("temperature", 1) != 1:
        cannot_take(target, "temperature", "thinking takes no temperature but 1")
        del out["temperature"]
    budget = models.budget(model, effort)
    if budget is not None:
        out["thinking"] = {"type": "enabled", "budget_tokens": budget}
        out["max_tokens"] += budget  # the bound covers both, and the caller meant the answer
    else:
        out["thinking"] = models.adaptive(model)
        out["output_config"] = {**out.get("output_config", {}), "effort": models.level(model, effort)}


def answer(
    target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any], raw: bytes, headers: Mapping[str, str]
) -> CallResult:
    """Read an answer, as the contract says."""
    body = openai.parse(raw)
    if not isinstance(body, dict):
        raise BadUpstreamResponse("the upstream answered with JSON that is no object")
    if body.get("type") == "error" or body.get("error"):
        raise inside(body)
    try:
        found = message_of(
            body, target.deployment.model, forced=_forced(target, asked), functions=legacy.is_legacy(asked)
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise BadUpstreamResponse("the upstream's answer is not a message") from None
    result = openai.result(target, endpoint, asked, found, written(found), headers)
    usage = body.get("usage")
    return result if not isinstance(usage, dict) else replace(result, usage=replace(result.usage, raw=usage))


def _forced(target: ResolvedDeployment, asked: Mapping[str, Any]) -> bool:
    return models.forceable(target.deployment.model) and forced_format(target, given(target, asked)) is not None


def stream(target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any]) -> Stream:
    """Return what puts a streamed answer together."""
    return AnthropicStream(
        endpoint,
        target.deployment.model,
        forced=_forced(target, asked),
        functions=legacy.is_legacy(asked),
        inside=inside,
    )


def inside(body: Mapping[str, Any]) -> RequestError:
    """Return the error that came where an answer was expected."""
    told = body.get("error")
    kind = told.get("type") if isinstance(told, dict) else None
    status = TYPES.get(kind, 500) if isinstance(kind, str) else 500
    return error(status, {}, orjson.dumps({"error": told}), 0.0)


TOO_LONG: Final = re.compile(r"exceed context limit|prompt is too long|larger than the context window", re.IGNORECASE)
"""Words of a request that does not fit: the API has no type for it."""


def error(status: int, headers: Mapping[str, str], raw: bytes, now: float) -> RequestError:
    """Return the error of an answer whose status is not 2xx; `now` is unix seconds."""
    found = openai.error(status, headers, raw, now)
    if status in {400, 413} and TOO_LONG.search(found.message):
        return ContextLengthExceeded(found.message, param=found.param)
    return found


__all__ = ["answer", "error", "outbound", "stream", "streamed", "usage_of"]
