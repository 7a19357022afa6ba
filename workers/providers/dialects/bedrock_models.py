"""What the models on Bedrock can do, as data by the beginnings of their ids. Pure.

Sources: docs.aws.amazon.com/bedrock/latest/userguide: structured-output, prompt-caching, model-parameters-…,
conversation-inference-supported-models-features; docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking; and
for models newer than those pages the flags of LiteLLM's table of models. A model whose id tells nothing (an ARN of a
profile or of an import, without `base_model`) is given everything as it was asked for, and Bedrock decides.
"""

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

from workers.providers.aws import spelled
from workers.providers.catalog import ResolvedDeployment


class Thinking(Enum):
    """How a model is told to think."""

    NEVER = "it has no parameter for it"
    BUDGET = "Claude: `thinking` with a budget of tokens"
    ADAPTIVE = "Claude: adaptive `thinking` and an effort"
    NOVA = "Nova 2: `reasoningConfig`"
    EFFORT = "`reasoning_effort`"
    NESTED = "OpenAI's own models: `reasoning.effort`"


@dataclass(frozen=True, slots=True)
class Model:
    """A model, as far as its id tells. `family` is empty where it tells nothing."""

    id: str
    family: str
    name: str
    """Family and model, without region or maker of the profile: `anthropic.claude-…`."""
    thinking: Thinking
    structured: bool
    """Whether it takes a JSON schema for its answer, and strict tools."""
    samples: bool
    """Whether it takes temperature, top_p and top_k."""
    caches: bool
    """Whether it takes cache points."""
    keeps: bool
    """Whether a cache point's time to live can be told."""
    names_tool: bool
    """Whether it can be told which tool to call, and not only that it must call one."""
    choosy: bool
    """Whether Claude's own tool choice goes through: none at all, one at a time."""
    thoughts: bool
    """Whether its thoughts can be given back to it."""


_GEO: Final = re.compile(r"^(?:[a-z]{2}(?:-gov)?|apac|global)\.(?=[a-z0-9]+\.)")
_CLAUDE: Final = r"^anthropic\.claude-"

_UNTHINKING: Final = re.compile(_CLAUDE + r"(v\d|instant|2|3-(?!7)|(opus|sonnet|haiku)-3)")
_BUDGETED: Final = re.compile(_CLAUDE + r"(3-7|(opus|sonnet|haiku)-4(-[015])?(-2025\d{4}|@|$|-v\d|:))")
_FIRST_4_5: Final = re.compile(_CLAUDE + r"(v\d|instant|2|3|(opus|sonnet)-4(-[01])?(-2025\d{4}|@|$|-v\d|:))")
"""Models before 4.5: without structured outputs and without Claude's own tool choice."""
_UNSTRUCTURED: Final = re.compile(_CLAUDE + r"(opus-4-7|fable-5$|mythos-preview)")
_UNSAMPLED: Final = re.compile(_CLAUDE + r"(opus-4-[78]|(opus|sonnet|haiku|fable|mythos)-([5-9]|preview))")
_STRUCTURED: Final = re.compile(
    r"^(qwen\.qwen3-(?!coder-next)|deepseek\.v3|google\.gemma-3|minimax\.minimax-m2$|moonshot\.kimi-k2-thinking"
    r"|mistral\.(ministral-3|mistral-large-3|voxtral)|nvidia\.nemotron-nano-3|openai\.gpt-oss|zai\.glm-5)"
)


@lru_cache(maxsize=4096)
def model(written: str, base: str = "") -> Model:
    """Describe a model by its spelling in the configuration; `base` names the one that an ARN hides."""
    found = spelled(written)
    known = found.family or spelled(base).id or found.id
    known = known.rpartition("/")[2] if known.startswith("arn:") else known
    name = _GEO.sub("", known)
    family = name.partition(".")[0] if "." in name else ""
    claude = family == "anthropic"
    recent = claude and not _FIRST_4_5.search(name)
    native = recent and not _UNSTRUCTURED.search(name)
    return Model(
        id=found.id,
        family=family,
        name=name,
        thinking=_thinking(family, name),
        structured=native or bool(_STRUCTURED.search(name)),
        samples=not _UNSAMPLED.search(name),
        caches=family in {"", "anthropic"} or name.startswith("amazon.nova"),
        keeps=family in {"", "anthropic"},
        names_tool=family in {"", "anthropic"} or name.startswith("amazon.nova"),
        choosy=recent,
        thoughts=family in {"", "anthropic"} or name.startswith("amazon.nova"),
    )


def _thinking(family: str, name: str) -> Thinking:
    if family == "anthropic":
        if _UNTHINKING.search(name):
            return Thinking.NEVER
        return Thinking.BUDGET if _BUDGETED.search(name) else Thinking.ADAPTIVE
    if name.startswith("amazon.nova-2"):
        return Thinking.NOVA
    if name.startswith("openai.gpt-oss") or not family:
        return Thinking.EFFORT
    return Thinking.NESTED if name.startswith("openai.gpt-") else Thinking.NEVER


def of(target: ResolvedDeployment) -> Model:
    """Describe the model of a deployment."""
    return model(target.deployment.model, target.deployment.base_model or "")
