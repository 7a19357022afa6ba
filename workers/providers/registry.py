"""The dialects and the credentials by name: what a provider's row says it speaks, and how its calls are authorised."""

from collections.abc import Mapping
from typing import Final

from workers.providers import credential_azure, credential_google
from workers.providers.credential import MakeCredential
from workers.providers.dialect import Dialect
from workers.providers.dialects import anthropic, azure, cohere, gemini, jina, openai, vertex, voyage

DIALECTS: Final[dict[str, Dialect]] = {
    "openai": openai,
    "anthropic": anthropic,
    "azure": azure,
    "gemini": gemini,
    "vertex": vertex,
    "cohere": cohere,
    "jina": jina,
    "voyage": voyage,
}

CREDENTIALS: Final[Mapping[str, MakeCredential]] = {"azure": credential_azure.make, "google": credential_google.make}
"""Authentication style → what makes its credential, asked where the deployment has no key of its own."""
