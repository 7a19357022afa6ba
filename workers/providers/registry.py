"""The dialects and the credentials by name: what a provider's row says it speaks, and how its calls are authorised."""

from collections.abc import Mapping
from typing import Final

from broker.clock import Clock
from workers.providers import credential_azure, credential_google
from workers.providers.catalog import ResolvedDeployment
from workers.providers.credential import Credential, MakeCredential
from workers.providers.dialect import Dialect
from workers.providers.dialects import anthropic, azure, bedrock, cohere, gemini, jina, openai, vertex, voyage
from workers.providers.transport import Transport

DIALECTS: Final[dict[str, Dialect]] = {
    "openai": openai,
    "anthropic": anthropic,
    "azure": azure,
    "gemini": gemini,
    "vertex": vertex,
    "bedrock": bedrock,
    "cohere": cohere,
    "jina": jina,
    "voyage": voyage,
}


def _signed(target: ResolvedDeployment, transport: Transport, clock: Clock) -> Credential:
    from workers.providers.credential_aws import AwsCredential  # noqa: PLC0415 - 240 ms that only Bedrock's calls need

    del transport
    return AwsCredential(target, clock)


CREDENTIALS: Final[Mapping[str, MakeCredential]] = {
    "azure": credential_azure.make,
    "google": credential_google.make,
    "sigv4": _signed,
}
"""Authentication style → what makes its credential, asked where the deployment has no key of its own."""
