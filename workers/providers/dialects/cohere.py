"""The Cohere dialect: v2 chat, embed and rerank. Request out, answer and error in; streams in `cohere_stream`. Pure.

Sources: docs.cohere.com/v2/reference/chat, …/embed, …/rerank, …/errors; docs.cohere.com/docs/reasoning,
…/structured-outputs, …/compatibility-api; and the v2 types of the official Python SDK.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from broker.errors import (
    BadUpstreamResponse,
    ContentPolicyViolation,
    ContextLengthExceeded,
    Fault,
    InvalidRequest,
    RequestError,
    UpstreamError,
    fault_of,
)
from schemas.request import CHAT, EMBEDDINGS, RERANK
from workers.providers import openai
from workers.providers.base import CallResult, Outbound
from workers.providers.catalog import ResolvedDeployment
from workers.providers.conversation import Choice, Format, bad, most_tokens, response_format, stops
from workers.providers.dialect import Stream, cannot_take, encoded, given, refuse_absent
from workers.providers.dialects import rerank
from workers.providers.dialects.cohere_answer import ANSWER_TOOL, completion_of
from workers.providers.dialects.cohere_embed import embedded, embeddings
from workers.providers.dialects.cohere_messages import Block, choice, conversation, offered
from workers.providers.dialects.cohere_stream import CohereStream
from workers.providers.dialects.retrieval import UNREADABLE, own

BUDGETS: Final = {"minimal": 1_024, "low": 1_024, "medium": 8_192}
"""Thinking tokens by `reasoning_effort`; every higher effort is unlimited, as docs.cohere.com/docs/reasoning advises.
The budgets are those of Google's own OpenAI endpoint: Cohere's has none between `none` and `high`."""
UNLIMITED: Final = frozenset({"high", "xhigh", "max"})

_UNTHINKING: Final = re.compile(r"(command-(r|light|nightly)|command$|c4ai-|command-a-(03|vision|translate))")
"""Models without reasoning: docs.cohere.com/docs/models."""

MOST_STOPS: Final = 5
LEAST_P, MOST_P = 0.01, 0.99
"""Bounds of `p`; 0 and 1 are OpenAI's, and mean the nearest."""
PENALTIES: Final = ("frequency_penalty", "presence_penalty")
"""Of 0 to 1 here."""

OURS: Final = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "stop", "stream", "stream_options", "tools",
        "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "temperature", "top_p", "top_k",
        "seed", "logprobs", *PENALTIES,
    }
)  # fmt: skip
"""OpenAI's parameters that are written anew here."""
ABSENT: Final = frozenset(
    {
        "n", "top_logprobs", "logit_bias", "modalities", "audio", "web_search_options", "functions", "function_call",
        "verbosity", "service_tier", "moderation",
    }
)  # fmt: skip
"""OpenAI's parameters that this API does not have."""
BEFORE: Final = frozenset({"rank_fields", "max_chunks_per_doc"})
"""Parameters of a rerank that version 2 does not have."""

CANCELLED_THERE: Final = 499
"""A request that the upstream gave up: docs.cohere.com says to try again, and a reply's 499 is our own caller's."""
DENY_LISTED: Final = 498
"""The prompt or the answer has a deny-listed token (the SDK's `InvalidTokenError`)."""

SPENT: Final = 429
_A_MONTH: Final = "API calls / month"
"""A trial key has a thousand (docs.cohere.com/docs/rate-limits): waiting does not help."""

_TOO_LONG: Final = "too many tokens"
_TOO_MUCH_ASKED: Final = "max tokens must be"
_NO_FIELD: Final = re.compile(r"unknown field: parameter '?([\w.]+)'? is not a valid field")


def streamed(endpoint: str) -> bool:
    """Whether answers of `endpoint` can be streamed."""
    return endpoint == CHAT


def outbound(target: ResolvedDeployment, endpoint: str, body: Mapping[str, Any], *, streams: bool) -> Outbound:
    """Return the request to send, as the contract says."""
    asked, base = given(target, body), _base(target)
    if endpoint == CHAT:
        out = _chat(target, asked)
        return Outbound(f"{base}/chat", encoded({**out, "stream": True} if streams else out))
    if endpoint == EMBEDDINGS:
        return Outbound(f"{base}/embed", encoded(embeddings(target, asked)))
    if endpoint == RERANK:
        return Outbound(f"{base}/rerank", encoded(_rerank(target, asked)))
    raise InvalidRequest(f"Cohere does not serve {endpoint}", param="endpoint")


def _base(target: ResolvedDeployment) -> str:
    """Return the address of version 2: users of LiteLLM write that of an endpoint, or of the version before."""
    base = target.base_url
    for endpoint in ("/chat", "/embed", "/rerank"):
        base = base.removesuffix(endpoint)
    return base.removesuffix("/v1") + "/v2" if base.endswith("/v1") else base


def forced_format(asked: Mapping[str, Any]) -> Format | None:
    """Return the structured output that a forced tool has to stand in for; None where the API has its own way.

    The API's own does not go together with tools (`response_format`, "Limitation").
    """
    chosen = choice(asked)
    if not asked.get("tools") or (chosen is not None and chosen.kind == "none"):
        return None
    return _format(asked)


def _format(asked: Mapping[str, Any]) -> Format | None:
    """Return the structured output asked for; a schema beside `json_object` is Cohere's own way of writing it."""
    found, value = response_format(asked), asked.get("response_format")
    if found is not None and found.schema is None and isinstance(value, dict):
        schema = value.get("json_schema", value.get("schema"))
        return replace(found, schema=schema) if isinstance(schema, dict) else found
    return found


def _chat(target: ResolvedDeployment, asked: Mapping[str, Any]) -> dict[str, Any]:
    absent = refuse_absent(target, asked, ABSENT)
    out: dict[str, Any] = {"model": target.deployment.model, "messages": conversation(target, asked)}
    bound = most_tokens(asked)
    if bound is not None:
        out["max_tokens"] = bound
    _tools(target, asked, out)
    _plain(target, asked, out)
    if "thinking" not in asked:
        _thinking(target, asked, out)
    return {**out, **own(target, asked, OURS | absent)}


def _tools(target: ResolvedDeployment, asked: Mapping[str, Any], out: dict[str, Any]) -> None:
    chosen, wanted, forced = choice(asked), _format(asked), forced_format(asked)
    found, strict = offered(asked, chosen)
    parallel = asked.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        bad("parallel_tool_calls", "true or false is needed")
    if parallel is False and found:
        cannot_take(target, "parallel_tool_calls")
    if forced is not None:
        found.append(_stand_in(forced))
        strict, chosen = strict or forced.strict, Choice("required")
    elif wanted is not None and asked.get("documents"):
        cannot_take(target, "response_format", "Cohere does not take it together with documents")
    elif wanted is not None:
        schema = {} if wanted.schema is None else {"json_schema": wanted.schema}
        out["response_format"] = {"type": "json_object", **schema}
        found = []  # none may be called, and the two do not go together
    if found:
        out["tools"] = found
        if strict:
            out["strict_tools"] = True
        if chosen is not None:
            out["tool_choice"] = "NONE" if chosen.kind == "none" else "REQUIRED"


def _stand_in(forced: Format) -> Block:
    schema = {"type": "object"} if forced.schema is None else dict(forced.schema)
    function = {"name": ANSWER_TOOL, "description": "Give the answer as JSON.", "parameters": schema}
    return {"type": "function", "function": function}


def _plain(target: ResolvedDeployment, asked: Mapping[str, Any], out: dict[str, Any]) -> None:
    for name, theirs in (("temperature", "temperature"), ("seed", "seed"), ("top_k", "k"), ("top_p", "p")):
        value = _number(asked, name)
        if value is not None:
            out[theirs] = min(max(value, LEAST_P), MOST_P) if theirs == "p" else value
    for name in PENALTIES:
        value = _number(asked, name)
        if value is None:
            continue
        if 0 <= value <= 1:
            out[name] = value
        else:
            cannot_take(target, name, "Cohere takes 0 to 1")
    sequences = stops(asked)
    if len(sequences) > MOST_STOPS:
        cannot_take(target, "stop", f"Cohere takes up to {MOST_STOPS}")
    elif sequences:
        out["stop_sequences"] = sequences
    if asked.get("logprobs") is not None:
        if not isinstance(asked["logprobs"], bool):
            bad("logprobs", "true or false is needed")
        out["logprobs"] = asked["logprobs"]


def _number(asked: Mapping[str, Any], name: str) -> float | None:
    value = asked.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        bad(name, "a number is needed")
    return value


def _thinking(target: ResolvedDeployment, asked: Mapping[str, Any], out: dict[str, Any]) -> None:
    effort, model = asked.get("reasoning_effort"), target.deployment.base_model or target.deployment.model
    if effort is None:
        return
    if not isinstance(effort, str) or effort not in {"none", *BUDGETS, *UNLIMITED}:
        bad("reasoning_effort", f"one of none, {', '.join([*BUDGETS, *sorted(UNLIMITED)])} is needed")
    if _UNTHINKING.match(model):
        if effort != "none":
            cannot_take(target, "reasoning_effort", f"{model} does not reason")
        return
    out["thinking"] = {"type": "disabled" if effort == "none" else "enabled"}
    if effort in BUDGETS:
        # The bound covers the thoughts too: half of it is left for the answer.
        bound = out.get("max_tokens", 2 * BUDGETS[effort])
        out["thinking"]["token_budget"] = min(BUDGETS[effort], max(1, bound // 2))


def _rerank(target: ResolvedDeployment, asked: Mapping[str, Any]) -> dict[str, Any]:
    out = rerank.request(target, asked, top="top_n", absent=BEFORE)
    return {**out, "documents": rerank.texts(asked)}


def answer(
    target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any], raw: bytes, headers: Mapping[str, str]
) -> CallResult:
    """Read an answer, as the contract says."""
    body = openai.parse(raw)
    if not isinstance(body, dict):
        raise BadUpstreamResponse("the upstream answered with JSON that is no object")
    asked, model = given(target, asked), target.deployment.model
    if endpoint == RERANK:
        return rerank.result(target, asked, body, body.get("results"), headers)
    try:
        if endpoint == EMBEDDINGS:
            found, usage = embedded(body, model, asked)
        else:
            found, usage = completion_of(body, model, forced=forced_format(asked) is not None), body.get("usage")
        out = orjson.dumps(found)
    except UNREADABLE:
        raise BadUpstreamResponse("the upstream's answer cannot be read") from None
    result = openai.result(target, endpoint, asked, found, out, headers)
    return result if not isinstance(usage, dict) else replace(result, usage=replace(result.usage, raw=usage))


def stream(target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any]) -> Stream:
    """Return what puts a streamed answer together."""
    forced = forced_format(given(target, asked)) is not None
    return CohereStream(endpoint, target.deployment.model, forced=forced)


def error(status: int, headers: Mapping[str, str], raw: bytes, now: float) -> RequestError:
    """Return the error of an answer whose status is not 2xx; `now` is unix seconds.

    The body is `{"id", "message"}`. A 400 that speaks of too many tokens is the prompt's, unless it is `max_tokens`
    that the model does not reach.
    """
    found = openai.error(status, headers, raw, now)
    message = found.message
    if status == DENY_LISTED:
        return ContentPolicyViolation(message)
    if status == CANCELLED_THERE and isinstance(found, UpstreamError):
        # It may succeed when tried again, which no status below 500 says.
        found.status = 503
        found.fault = fault_of(found.status)
        return found
    if status == SPENT and _A_MONTH in message and isinstance(found, UpstreamError):
        found.fault = Fault.QUOTA
    if status in {400, 422}:
        if _TOO_MUCH_ASKED in message and _TOO_LONG in message:
            return InvalidRequest(message, param="max_tokens")
        if _TOO_LONG in message:
            return ContextLengthExceeded(message)
        if field := _NO_FIELD.search(message):
            return InvalidRequest(message, param=field[1])
    return found
