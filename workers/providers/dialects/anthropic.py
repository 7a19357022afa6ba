"""The Anthropic dialect: Messages. Request out, answer and error in; streams are in `anthropic_stream`. Pure.

Sources: platform.claude.com/docs/en/api/messages, …/api/errors, …/build-with-claude/structured-outputs, and the request
and answer types of the official Python SDK.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from broker.errors import BadUpstreamResponse, InvalidRequest, RequestError
from schemas.request import CHAT
from workers.providers import openai
from workers.providers.base import CallResult, Outbound
from workers.providers.catalog import ResolvedDeployment
from workers.providers.conversation import Format, bad, most_tokens, response_format, stops, without
from workers.providers.dialect import Stream, cannot_take, given, written
from workers.providers.dialects.anthropic_answer import ANSWER_TOOL, message_of, usage_of
from workers.providers.dialects.anthropic_messages import choice, conversation, offered
from workers.providers.dialects.anthropic_stream import AnthropicStream

DEFAULT_MAX_TOKENS: Final = 4096
"""Of an answer whose request sets no bound, which this API insists on; what LiteLLM sends as well."""

BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192}
"""Thinking tokens by `reasoning_effort` for models that want a budget: 1,024 is the least the API takes; the others are
the numbers LiteLLM's users know."""

EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
"""`output_config.effort` by `reasoning_effort`, for models that think adaptively."""

_UNTHINKING: Final = re.compile(r"claude-(instant|2|3-(?!7)|(opus|sonnet|haiku)-3)")
_BUDGETED: Final = re.compile(r"claude-(3-7|(opus|sonnet|haiku)-4(-[015])?(-2025\d{4}|@|$|-v\d|:))")
"""Models before adaptive thinking: Claude 3.7 to 4.5."""
_UNSTRUCTURED: Final = re.compile(r"claude-(instant|2|3|(opus|sonnet)-4(-0)?(-2025(0[1-6])\d{2}|@|$|-v\d|:))")
"""Models before structured outputs (November 2025: Sonnet 4.5, Opus 4.1): those up to Claude 4."""

OURS: Final = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "stop", "stream", "stream_options", "tools",
        "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "user", "metadata", "service_tier",
        "temperature", "top_p", "n", "store",
    }
)  # fmt: skip
"""OpenAI's parameters that are written anew here."""

ABSENT: Final[Mapping[str, tuple[Any, ...]]] = {
    "seed": (), "logprobs": (False,), "top_logprobs": (0,), "presence_penalty": (0,), "frequency_penalty": (0,),
    "logit_bias": ({},), "modalities": (["text"],), "audio": (), "prediction": (), "web_search_options": (),
    "functions": (), "function_call": (), "verbosity": (), "prompt_cache_key": (), "safety_identifier": (),
}  # fmt: skip
"""OpenAI's parameters that this API does not have, and the values that ask for nothing."""

TYPES: Final = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504,
    "overloaded_error": 529,
}  # fmt: skip
"""Status by error type (docs, "Errors"): what an error inside a stream, which has no status, stands for."""


def streamed(endpoint: str) -> bool:
    """Whether answers of `endpoint` can be streamed."""
    return endpoint == CHAT


def forced_format(target: ResolvedDeployment, body: Mapping[str, Any]) -> Format | None:
    """Return the structured output that a forced tool has to stand in for; None where the API has its own way."""
    asked = response_format(body)
    if asked is None or (asked.schema is not None and not _UNSTRUCTURED.search(target.deployment.model)):
        return None
    return asked


def outbound(target: ResolvedDeployment, endpoint: str, body: Mapping[str, Any], *, streams: bool) -> Outbound:
    """Return the request to send, as the contract says."""
    return Outbound(f"{target.base_url}/messages", written(message(target, endpoint, body, streams=streams)))


def message(target: ResolvedDeployment, endpoint: str, body: Mapping[str, Any], *, streams: bool) -> dict[str, Any]:
    """Return the body that asks for a message. Raises as `outbound` does."""
    if endpoint != CHAT:
        raise InvalidRequest(f"Anthropic does not serve {endpoint}", param="endpoint")
    asked = given(target, body)
    for name in asked.keys() & ABSENT.keys():
        if asked[name] not in ABSENT[name]:
            cannot_take(target, name)
    system, turns = conversation(target, asked)
    out: dict[str, Any] = {
        "model": target.deployment.model,
        "max_tokens": most_tokens(asked) or DEFAULT_MAX_TOKENS,
        "messages": turns,
    }
    if system:
        out["system"] = system
    sequences = [each for each in stops(asked) if each.strip()]  # the API refuses those of white space
    if sequences:
        out["stop_sequences"] = sequences
    _tools(target, asked, out)
    _plain(target, asked, out)
    _thinking(target, asked, out)
    skipped = OURS | ABSENT.keys() | openai.CONTROL
    out.update((name, value) for name, value in without(asked, skipped) if name not in out)
    if streams:
        out["stream"] = True
    return out


def _tools(target: ResolvedDeployment, asked: Mapping[str, Any], out: dict[str, Any]) -> None:
    found = offered(asked)
    selected = choice(asked, has_tools=bool(found))
    wanted, forced = response_format(asked), forced_format(target, asked)
    if forced is not None:
        schema = dict(forced.schema) if forced.schema is not None else {"type": "object"}
        found.append({"name": ANSWER_TOOL, "description": "Give the answer as JSON.", "input_schema": schema})
        selected = {"type": "tool", "name": ANSWER_TOOL} if len(found) == 1 else {"type": "any"}
    elif wanted is not None and wanted.schema is not None:
        out["output_config"] = {"format": {"type": "json_schema", "schema": wanted.schema}}
    if found:
        out["tools"] = found
    if selected is not None:
        out["tool_choice"] = selected


def _plain(target: ResolvedDeployment, asked: Mapping[str, Any], out: dict[str, Any]) -> None:
    for name in ("temperature", "top_p"):
        value = asked.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            bad(name, "a number is needed")
        if value > 1:
            cannot_take(target, name, "Anthropic takes 0 to 1")
        else:
            out[name] = value
    if asked.get("n", 1) != 1:
        cannot_take(target, "n", "Anthropic gives one answer a request")
    _labels(target, asked, out)


def _labels(target: ResolvedDeployment, asked: Mapping[str, Any], out: dict[str, Any]) -> None:
    user, metadata = asked.get("user"), asked.get("metadata")
    if isinstance(user, str):
        out["metadata"] = {"user_id": user}
    if isinstance(metadata, dict) and isinstance(metadata.get("user_id"), str):
        out["metadata"] = {"user_id": metadata["user_id"]}
    elif metadata:
        cannot_take(target, "metadata", "Anthropic takes metadata.user_id only")
    tier = asked.get("service_tier")
    if tier in {"auto", "standard_only"}:
        out["service_tier"] = tier
    elif tier == "default":
        out["service_tier"] = "standard_only"
    elif tier is not None:
        cannot_take(target, "service_tier", "Anthropic has auto and standard_only")


def _thinking(target: ResolvedDeployment, asked: Mapping[str, Any], out: dict[str, Any]) -> None:
    effort, model = asked.get("reasoning_effort"), target.deployment.model
    if effort is None or effort == "none":
        return
    if not isinstance(effort, str) or effort not in EFFORTS:
        bad("reasoning_effort", f"one of none, {', '.join(EFFORTS)} is needed")
    if _UNTHINKING.search(model):
        cannot_take(target, "reasoning_effort", f"{model} does not think")
        return
    forced = out.get("tool_choice", {}).get("type") in {"any", "tool"}
    if forced:
        cannot_take(target, "reasoning_effort", "thinking and a forced tool exclude each other")
        return
    if out.get("temperature", 1) != 1:
        cannot_take(target, "temperature", "thinking takes no temperature but 1")
        del out["temperature"]
    if _BUDGETED.search(model):
        budget = BUDGETS.get(effort, BUDGETS["xhigh"])
        out["thinking"] = {"type": "enabled", "budget_tokens": budget}
        out["max_tokens"] += budget  # the bound covers both, and the caller meant the answer
    else:
        out["thinking"] = {"type": "adaptive"}
        out["output_config"] = {**out.get("output_config", {}), "effort": EFFORTS[effort]}


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
        found = message_of(body, target.deployment.model, forced=_forced(target, asked))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise BadUpstreamResponse("the upstream's answer is not a message") from None
    result = openai.result(target, endpoint, asked, found, orjson.dumps(found), headers)
    usage = body.get("usage")
    return result if not isinstance(usage, dict) else replace(result, usage=replace(result.usage, raw=usage))


def _forced(target: ResolvedDeployment, asked: Mapping[str, Any]) -> bool:
    return forced_format(target, given(target, asked)) is not None


def stream(target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any]) -> Stream:
    """Return what puts a streamed answer together."""
    return AnthropicStream(endpoint, target.deployment.model, forced=_forced(target, asked), inside=inside)


def inside(body: Mapping[str, Any]) -> RequestError:
    """Return the error that came where an answer was expected."""
    told = body.get("error")
    kind = told.get("type") if isinstance(told, dict) else None
    status = TYPES.get(kind, 500) if isinstance(kind, str) else 500
    return error(status, {}, orjson.dumps({"error": told}), 0.0)


def error(status: int, headers: Mapping[str, str], raw: bytes, now: float) -> RequestError:
    """Return the error of an answer whose status is not 2xx; `now` is unix seconds."""
    return openai.error(status, headers, raw, now)


__all__ = ["answer", "error", "outbound", "stream", "streamed", "usage_of"]
