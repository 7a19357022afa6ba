"""Providers as rows of data, named as LiteLLM's users write them, and what a deployment resolves to.

A provider without a row is an OpenAI-compatible server when the configuration names its address. Imports configuration
models and broker errors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from broker.config import Deployment
from broker.errors import ConfigError
from workers.providers import aws
from workers.providers.provider import Provider
from workers.providers.table import PROVIDERS

AUTH: Final[dict[str, tuple[str, str]]] = {
    "bearer": ("authorization", "Bearer "),
    "x-api-key": ("x-api-key", ""),
    "api-key": ("api-key", ""),
    "x-goog-api-key": ("x-goog-api-key", ""),
    "sigv4": ("authorization", "Bearer "),
}
"""Style → header and what stands before the key in it. A style that is not here is signed call by call;
`sigv4` is where there is no key."""

ADDRESSES: Final[Mapping[str, Callable[[Deployment], str]]] = {"sigv4": aws.address}
"""Style → what works out a deployment's address where it hangs on more than the row, and checks its credentials."""

OWN_API: Final = frozenset(
    {
        "azure",
        "azure_ai",
        "azure_text",
        "cohere",
        "cohere_chat",
        "palm",
        "replicate",
        "sagemaker",
        "sagemaker_chat",
        "vertex_ai",
        "vertex_ai_beta",
        "watsonx",
    }
)
"""Providers whose own API is not OpenAI's; without their dialect they cannot be called, whatever the address."""


@dataclass(frozen=True, slots=True)
class ResolvedDeployment:
    """All of a deployment that a call needs, worked out once. `headers` has credentials in it."""

    deployment: Deployment
    provider: Provider
    base_url: str
    headers: tuple[tuple[str, str], ...]
    defaults: Mapping[str, Any]
    """Parameters of the configuration, under the caller's own."""
    dropped: frozenset[str]
    """Parameters that are not sent."""
    secrets: tuple[str, ...]
    """What no message may quote."""


def resolve(deployment: Deployment) -> ResolvedDeployment:
    """Work out where and how a deployment is called.

    Raises `ConfigError` naming the deployment when its provider's API is not spoken here, when nobody says its
    address, or when the address is not a URL.
    """
    provider = PROVIDERS.get(deployment.provider)
    if deployment.provider in OWN_API:
        raise ConfigError(
            f"deployment {deployment.name}: provider {deployment.provider} has an API of its own that is not spoken "
            "yet; put an OpenAI-compatible endpoint before it and name that with `openai/…` and `api_base`"
        )
    if provider is None and deployment.api_base is None:
        raise ConfigError(
            f"deployment {deployment.name}: provider {deployment.provider} is not known; "
            "an OpenAI-compatible server needs `api_base`"
        )
    provider = provider or Provider()
    return ResolvedDeployment(
        deployment,
        provider,
        _base_url(deployment, provider),
        _headers(deployment, provider),
        deployment.extra_body,
        frozenset(deployment.additional_drop_params),
        deployment.secrets,
    )


def _base_url(deployment: Deployment, provider: Provider) -> str:
    worked_out = ADDRESSES.get(provider.auth)
    base = worked_out(deployment) if worked_out is not None else deployment.api_base or provider.base_url
    if not base:
        raise ConfigError(f"deployment {deployment.name}: provider {deployment.provider} needs `api_base`")
    base = base.strip().rstrip("/")
    for endpoint in ("/chat/completions", "/completions", "/embeddings"):
        base = base.removesuffix(endpoint)
    try:
        parts = urlsplit(base)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"deployment {deployment.name}: `api_base` is not an http or https URL")
    return base if parts.path else base + provider.path


def _headers(deployment: Deployment, provider: Provider) -> tuple[tuple[str, str], ...]:
    """Return the headers of every call; the configuration's own win."""
    key = deployment.api_key.get_secret_value().strip() if deployment.api_key else ""
    own = {name.lower(): value.get_secret_value().strip() for name, value in deployment.headers.items()}
    headers = {"content-type": "application/json", "accept": "application/json", **dict(provider.extra)}
    if key and provider.auth in AUTH:
        name, before = AUTH[provider.auth]
        headers[name] = before + key
    headers.update(own)
    return tuple(headers.items())
