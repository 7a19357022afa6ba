"""The parameters of a chat as Converse's fields: bounds, sampling, thinking, tiers, labels, and a model's own. Pure.

docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html; LiteLLM's names where its users know one.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from workers.providers import openai
from workers.providers.catalog import HARMLESS, ResolvedDeployment
from workers.providers.conversation import bad, most_tokens, stops, without
from workers.providers.dialect import cannot_take, refuse_absent
from workers.providers.dialects.bedrock_models import Model, Thinking

Block = dict[str, Any]

DEFAULT_MAX_TOKENS: Final = 4096
"""Of an answer after thoughts with a budget, whose request sets no bound; what LiteLLM sends as well."""
BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 8192}
"""Thinking tokens by `reasoning_effort`: 1,024 is the least Claude takes; the others are LiteLLM's users' numbers."""
EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
THREE: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
"""For models that know three efforts."""
_NO_XHIGH: Final = re.compile(r"claude-(opus|sonnet)-4-6")
"""Their efforts go from high to max."""

THINKING_TOKENS: Final = "/usage/output_tokens_details"
"""Where Claude tells the tokens of its thoughts, which Converse's usage leaves out; ignored where it is missing."""

TOP_K: Final = {"anthropic": "top_k", "mistral": "top_k", "cohere": "k", "": "top_k", "qwen": "top_k"}
"""The name of `top_k` in a family's own parameters; Nova has it in an `inferenceConfig` of its own."""
OWN_NAMES: Final[Mapping[str, frozenset[str]]] = {
    "cohere": frozenset({"seed", "presence_penalty", "frequency_penalty"}),
    "ai21": frozenset({"presence_penalty", "frequency_penalty"}),
}
"""OpenAI's parameters that a family has among its own: model-parameters-cohere-command-r-plus, …-jamba."""

TIERS: Final = {
    "default": "default",
    "flex": "flex",
    "priority": "priority",
    "scale": "reserved",
    "reserved": "reserved",
}
"""Bedrock's service tier by OpenAI's; `auto` is what Bedrock does unasked."""

WRITTEN: Final = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "stop", "stream", "stream_options", "tools",
        "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "metadata", "service_tier",
        "temperature", "top_p", "top_k", "n", "store", "web_search_options", "latency", "thinking", "output_config",
    }
)  # fmt: skip
"""Parameters that are written anew."""
ABSENT: Final = frozenset(
    {
        "seed", "logprobs", "top_logprobs", "presence_penalty", "frequency_penalty", "logit_bias", "modalities",
        "audio", "functions", "function_call", "verbosity", "moderation",
    }
)  # fmt: skip
"""OpenAI's parameters that Converse does not have."""
NATIVE: Final = frozenset(
    {
        "guardrailConfig", "performanceConfig", "requestMetadata", "promptVariables", "projectIdentifier",
        "additionalModelResponseFieldPaths", "serviceTier",
    }
)  # fmt: skip
"""Converse's own fields, which pass through by name; `MERGED` go under what is written here."""
MERGED: Final = frozenset({"inferenceConfig", "additionalModelRequestFields", "outputConfig"})

_LABEL: Final = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}")
_MOST_LABELS: Final = 16


def absent_of(target: ResolvedDeployment, model: Model, asked: Mapping[str, Any]) -> frozenset[str]:
    """Refuse what neither Converse nor the model has, and return what not to send, as `dialect.refuse_absent` does."""
    absent = refuse_absent(target, asked, ABSENT, own=OWN_NAMES.get(model.family, ()))
    if asked.get("n", 1) != 1:
        cannot_take(target, "n", "Bedrock gives one answer a request")
    return absent


def inference(target: ResolvedDeployment, model: Model, asked: Mapping[str, Any]) -> Block:
    """Return `inferenceConfig`: `maxTokens`, `temperature`, `topP`, `stopSequences`."""
    config: Block = {**_section(asked, "inferenceConfig")}
    bound, sequences = most_tokens(asked), stops(asked)
    if bound is not None:
        config["maxTokens"] = bound
    for name, theirs in (("temperature", "temperature"), ("top_p", "topP")):
        value = asked.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            bad(name, "a number is needed")
        if not 0 <= value <= 1:
            cannot_take(target, name, "Bedrock takes 0 to 1")
        elif model.samples:
            config[theirs] = value
        elif value != 1:
            cannot_take(target, name, f"{model.name} takes none")
    if model.family == "anthropic" and any(not each.strip() for each in sequences):
        cannot_take(target, "stop", "Claude takes none of white space alone")
        sequences = [each for each in sequences if each.strip()]
    if sequences:
        config["stopSequences"] = sequences
    return config


def extras(target: ResolvedDeployment, model: Model, asked: Mapping[str, Any]) -> Block:
    """Return `additionalModelRequestFields` but for thinking: a model's own parameters, by its own names."""
    found: Block = {**_section(asked, "additionalModelRequestFields")}
    known = WRITTEN | absent_of(target, model, asked) | HARMLESS | NATIVE | MERGED | openai.CONTROL
    found.update((name, value) for name, value in without(asked, known) if not name.startswith("aws_"))
    top_k = asked.get("top_k")
    if top_k is None:
        return found
    if type(top_k) is not int or top_k < 0:
        bad("top_k", "a whole number is needed")
    if model.name.startswith("amazon.nova"):
        found["inferenceConfig"] = {"topK": top_k}
    elif model.family in TOP_K and model.samples:
        found[TOP_K[model.family]] = top_k
    else:
        cannot_take(target, "top_k", f"{model.name} takes none")
    return found


def think(target: ResolvedDeployment, model: Model, asked: Mapping[str, Any], out: Block, own: Block) -> None:
    """Add what makes the model think: to the request `out`, and to the model's own fields `own`."""
    for name in ("thinking", "output_config"):  # as LiteLLM's users write them, in Claude's own words
        if asked.get(name) is not None:
            own[name] = asked[name]
    effort = asked.get("reasoning_effort")
    if effort is None:
        told = own.get("thinking")
        budget = told.get("budget_tokens") if isinstance(told, dict) else None
        if type(budget) is int:
            out["inferenceConfig"].setdefault("maxTokens", budget + DEFAULT_MAX_TOKENS)
        _count_thoughts(model, out, own)
        return
    if not isinstance(effort, str) or effort not in {"none", *EFFORTS}:
        bad("reasoning_effort", f"one of none, {', '.join(EFFORTS)} is needed")
    if effort == "none" and model.thinking is not Thinking.NESTED:
        if model.thinking is Thinking.EFFORT:
            cannot_take(target, "reasoning_effort", f"{model.name} always thinks")
        return
    _effort(target, model, effort, out, own)


def _effort(target: ResolvedDeployment, model: Model, effort: str, out: Block, own: Block) -> None:
    if model.thinking is Thinking.NESTED:
        own["reasoning"] = {"effort": effort}
    elif model.thinking is Thinking.NEVER:
        cannot_take(target, "reasoning_effort", f"{model.name} {Thinking.NEVER.value}")
    elif model.thinking is Thinking.EFFORT:
        own["reasoning_effort"] = THREE[effort] if model.family else effort
    elif model.thinking is Thinking.NOVA:
        _nova(target, THREE[effort], out, own)
    else:
        _claude(target, model, effort, out, own)


def _nova(target: ResolvedDeployment, effort: str, out: Block, own: Block) -> None:
    own["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": effort}
    if effort != "high":
        return
    for theirs, name in (("temperature", "temperature"), ("topP", "top_p"), ("maxTokens", "max_tokens")):
        if theirs in out["inferenceConfig"]:
            cannot_take(target, name, "Nova takes none while it thinks with high effort")
            del out["inferenceConfig"][theirs]


def _claude(target: ResolvedDeployment, model: Model, effort: str, out: Block, own: Block) -> None:
    if out.get("toolConfig", {}).get("toolChoice", {}).keys() & {"any", "tool"}:
        cannot_take(target, "reasoning_effort", "thinking and a forced tool exclude each other")
        return
    config = out["inferenceConfig"]
    if config.get("temperature", 1) != 1:
        cannot_take(target, "temperature", "thinking takes no temperature but 1")
        del config["temperature"]
    if own.pop("top_k", None) is not None:
        cannot_take(target, "top_k", "thinking takes none")
    if model.thinking is Thinking.BUDGET:
        budget = BUDGETS[effort]
        own["thinking"] = {"type": "enabled", "budget_tokens": budget}
        config["maxTokens"] = config.get("maxTokens", DEFAULT_MAX_TOKENS) + budget  # it covers both
    else:
        told = "max" if effort == "xhigh" and _NO_XHIGH.search(model.name) else EFFORTS[effort]
        own["thinking"] = {"type": "adaptive"}
        out["outputConfig"] = {**out.get("outputConfig", {}), "effort": told}
    _count_thoughts(model, out, own)


def _count_thoughts(model: Model, out: Block, own: Block) -> None:
    if model.family == "anthropic" and "thinking" in own:
        out.setdefault("additionalModelResponseFieldPaths", [THINKING_TOKENS])


def labels(target: ResolvedDeployment, asked: Mapping[str, Any], *, streams: bool) -> Block:
    """Return the tier, the latency, the request's labels, and Converse's own fields by name."""
    found: Block = {name: asked[name] for name in asked.keys() & NATIVE}
    guardrail = found.get("guardrailConfig")
    if isinstance(guardrail, dict) and not streams:
        found["guardrailConfig"] = {name: guardrail[name] for name in guardrail if name != "streamProcessingMode"}
    tier, metadata, latency = asked.get("service_tier"), asked.get("metadata"), asked.get("latency")
    if isinstance(tier, str) and tier in TIERS:
        found["serviceTier"] = {"type": TIERS[tier]}
    elif tier not in {None, "auto"} if isinstance(tier, str | None) else True:
        cannot_take(target, "service_tier", f"Bedrock has auto, {', '.join(TIERS)}")
    if latency is not None:
        if latency not in ("standard", "optimized"):
            bad("latency", "standard or optimized is needed")
        found["performanceConfig"] = {"latency": latency}
    if metadata:
        _metadata(target, metadata, found)
    return found


def _metadata(target: ResolvedDeployment, metadata: object, found: Block) -> None:
    if not isinstance(metadata, dict):
        bad("metadata", "an object is needed")
    fits = all(isinstance(text, str) and _LABEL.fullmatch(text) for pair in metadata.items() for text in pair)
    if fits and all(metadata) and len(metadata) <= _MOST_LABELS:
        found.setdefault("requestMetadata", metadata)
    else:
        cannot_take(target, "metadata", "Bedrock takes 16 texts of at most 256 letters, digits, spaces and :_@$#=/+,.-")


def _section(asked: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = asked.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        bad(name, "an object is needed")
    return value
