"""What Gemini's generations differ in: how thinking is asked for. Pure; by a model's name.

ai.google.dev/gemini-api/docs/thinking (budgets and levels by model) and …/gemini-api/docs/openai (the budgets of each
effort); levels of the newest models as LiteLLM's users know them.
"""

import re
from typing import Any, Final

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

BUDGETS: Final = {
    "none": 0,
    "minimal": 1_024,
    "low": 1_024,
    "medium": 8_192,
    "high": 24_576,
    "xhigh": 24_576,
    "max": 24_576,
}
"""Thinking tokens by `reasoning_effort` for Gemini 2.5, those of Google's own OpenAI endpoint; higher ones as high."""
MOST_OF_PRO: Final = 32_768
"""Thinking tokens that 2.5 Pro takes at most; the others take 24,576."""

_BEFORE: Final = re.compile(r"gemini-(1|2\.0)|gemma-[123]|learnlm")
"""Models that do not think."""
_BUDGETED: Final = re.compile(r"gemini-2\.5")
_MINIMAL: Final = re.compile(r"gemini-3(\.[0-6])?-flash|gemini-flash-(lite-)?latest")
_XHIGH: Final = re.compile(r"gemini-4-hydrogen")


def thinks(model: str) -> bool:
    """Whether a model can think at all."""
    return not _BEFORE.search(model)


def can_rest(model: str) -> bool:
    """Whether it can be told not to think: the flash models of 2.5."""
    return bool(_BUDGETED.search(model)) and "pro" not in model


def thinking(model: str, effort: str) -> dict[str, Any]:
    """Return the `thinkingConfig` of an effort; the nearest level where the model has not that very one."""
    if _BUDGETED.search(model):
        most = effort in {"xhigh", "max"} and "pro" in model
        return {
            "thinkingBudget": MOST_OF_PRO if most else BUDGETS.get(effort, BUDGETS["high"]),
            "includeThoughts": effort != "none",
        }
    level = "xhigh" if effort == "max" else effort
    if effort == "minimal" and not _MINIMAL.search(model):
        level = "low"
    if level == "xhigh" and not _XHIGH.search(model):
        level = "high"
    return {"thinkingLevel": level, "includeThoughts": True}


def signs_calls(model: str) -> bool:
    """Whether it refuses a call of its own that has no thought signature: from Gemini 3 on."""
    return thinks(model) and not _BUDGETED.search(model) and "gemma" not in model
