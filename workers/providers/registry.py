"""The dialects and the credentials by name: what a provider's row says it speaks, and how its calls are authorised."""

from collections.abc import Mapping
from typing import Final

from workers.providers.credential import MakeCredential
from workers.providers.dialect import Dialect
from workers.providers.dialects import anthropic, cohere, gemini, jina, openai, voyage

DIALECTS: Final[dict[str, Dialect]] = {
    "openai": openai,
    "anthropic": anthropic,
    "gemini": gemini,
    "cohere": cohere,
    "jina": jina,
    "voyage": voyage,
}

CREDENTIALS: Final[Mapping[str, MakeCredential]] = {}
"""Authentication style → what makes its credential, asked where the deployment has no key of its own."""
