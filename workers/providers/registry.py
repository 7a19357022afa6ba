"""The dialects by name: what a provider's row says it speaks."""

from typing import Final

from workers.providers.dialect import Dialect
from workers.providers.dialects import anthropic, gemini, openai

DIALECTS: Final[dict[str, Dialect]] = {"openai": openai, "anthropic": anthropic, "gemini": gemini}
