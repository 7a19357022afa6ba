"""What Claude's generations differ in: thinking, sampling, structured outputs, forced tools. Pure; by a model's name.

platform.claude.com/docs/en/build-with-claude/thinking, …/effort, …/structured-outputs, …/about-claude/models/migration
-guide; the models that always think and that cannot be forced to a tool as LiteLLM's users know them.
"""

import re
from typing import Any, Final

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
_UNSAMPLED: Final = re.compile(r"(opus-4-[7-9]|(opus|sonnet|haiku)-[5-9](?!\d)|fable|mythos)")
"""From Opus 4.7 on: no temperature, top_p and top_k, thoughts are not shown unless asked for, effort `xhigh`."""
_ONE_SAMPLER: Final = re.compile(r"claude-(opus-4-[1-6]|(sonnet|haiku)-4-[5-6])")
"""From Opus 4.1 on: temperature or top_p, not both."""
_UNASKED: Final = re.compile(r"((opus|sonnet|haiku)-[5-9](?!\d)|fable|mythos)")
"""Models that think unless told not to."""
_ALWAYS: Final = re.compile(r"((opus|sonnet)-5-5|fable|mythos)")
"""Models that refuse to be told not to think."""
_UNFORCED: Final = re.compile(r"((opus|sonnet)-5-5|(fable|mythos)-5-[1-9])(?!\d)")
"""Models that refuse `tool_choice` `any` and `tool`."""


def thinks(model: str) -> bool:
    """Whether a model can think at all."""
    return not _UNTHINKING.search(model)


def thinks_unasked(model: str) -> bool:
    """Whether it thinks unless told not to."""
    return bool(_UNASKED.search(model))


def always_thinks(model: str) -> bool:
    """Whether it refuses to be told not to think."""
    return bool(_ALWAYS.search(model))


def structured(model: str) -> bool:
    """Whether it has structured outputs."""
    return not _UNSTRUCTURED.search(model)


def sampled(model: str) -> bool:
    """Whether it takes temperature, top_p and top_k."""
    return not _UNSAMPLED.search(model)


def one_sampler(model: str) -> bool:
    """Whether it takes temperature or top_p, but not both."""
    return bool(_ONE_SAMPLER.search(model))


def forceable(model: str) -> bool:
    """Whether it can be made to call a tool."""
    return not _UNFORCED.search(model)


def budget(model: str, effort: str) -> int | None:
    """Return the thinking tokens of an effort; None where the model thinks adaptively."""
    return BUDGETS.get(effort, BUDGETS["xhigh"]) if _BUDGETED.search(model) else None


def adaptive(model: str) -> dict[str, Any]:
    """Return what makes a model think adaptively and show it."""
    return {"type": "adaptive"} if sampled(model) else {"type": "adaptive", "display": "summarized"}


def level(model: str, effort: str) -> str:
    """Return the level of an effort; the models of 4.6 have none between high and max."""
    found = EFFORTS[effort]
    return "max" if found == "xhigh" and sampled(model) else found
