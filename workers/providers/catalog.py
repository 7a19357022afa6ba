"""Providers as rows of data, named as LiteLLM's users write them, and what a deployment resolves to.

A provider without a row is an OpenAI-compatible server when the configuration names its address. Imports configuration
models and broker errors.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.config import Deployment, ProviderRow
from broker.errors import ConfigError, InvalidRequest
from workers.providers import aws
from workers.providers.azure_place import azure, azure_ai
from workers.providers.place import Place, url_parts
from workers.providers.provider import Provider
from workers.providers.table import PROVIDERS
from workers.providers.vertex_place import vertex

AUTH: Final[dict[str, tuple[str, str]]] = {
    "bearer": ("authorization", "Bearer "),
    "x-api-key": ("x-api-key", ""),
    "api-key": ("api-key", ""),
    "x-goog-api-key": ("x-goog-api-key", ""),
    "azure": ("api-key", ""),
    "google": ("x-goog-api-key", ""),
    "sigv4": ("authorization", "Bearer "),
}
"""Style → header and what stands before the key in it. A style that is not here is signed call by call; one that is in
`registry.CREDENTIALS` as well signs or fetches a token where there is no key."""

PLACES: Final[Mapping[str, Callable[[Deployment, Provider], Place]]] = {
    "azure": azure,
    "azure_ai": azure_ai,
    "bedrock": aws.place,
    "bedrock_converse": aws.place,
    "vertex_ai": vertex,
}
"""Providers whose address is made of more than a base URL."""

OWN_API: Final = frozenset(
    {
        "azure_text",
        "palm",
        "replicate",
        "sagemaker",
        "sagemaker_chat",
        "vertex_ai_beta",
        "watsonx",
    }
)
"""Providers whose own API is not OpenAI's; without their dialect they cannot be called, whatever the address."""


NOTHING_ASKED: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,), "logprobs": (False,), "top_logprobs": (0,), "presence_penalty": (0,), "frequency_penalty": (0,),
    "logit_bias": ({},), "temperature": (1,), "top_p": (1,), "parallel_tool_calls": (True,), "store": (False,),
    "service_tier": ("auto", "default"), "modalities": (["text"],), "metadata": ({},), "stop": ([],), "tools": ([],),
    "reasoning_effort": (), "verbosity": ("medium",), "functions": ([],), "moderation": ({},),
}  # fmt: skip
"""Values of OpenAI's parameters that are its defaults: whoever sends them asks for nothing."""

HARMLESS: Final = frozenset(
    {
        "user", "store", "metadata", "safety_identifier", "prediction", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention",
    }
)  # fmt: skip
"""Parameters that change nothing of an answer: who asks, how it is cached or kept, how it may be guessed. Where a
provider has none such they are left out without a word."""

_BOUNDS: Final = frozenset({"max_tokens", "max_completion_tokens"})
"""Two names of one bound."""


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
    lacks: frozenset[str] = frozenset()
    """Parameters the provider refuses for this model."""
    renames: tuple[tuple[str, str], ...] = ()
    """Parameters it knows by another name: OpenAI's and its own."""
    query: str = ""
    """Of every URL, with its `?`; empty where there is none."""

    def merged(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the caller's parameters over the deployment's; a bound of the caller's own is the only one."""
        out = {**self.defaults, **body}
        if any(body.get(name) is not None for name in _BOUNDS):
            for name in _BOUNDS - body.keys():
                out.pop(name, None)
        return out

    def cannot_take(self, param: str, why: str = "") -> None:
        """Refuse a parameter the provider does not have, unless the deployment drops such (`drop_params`).

        Raises `InvalidRequest` naming it.
        """
        if not self.deployment.drop_params:
            reason = why or f"{self.deployment.provider} has no such parameter"
            raise InvalidRequest(f"{param}: {reason}; set drop_params to leave it out", param=param)


UNLISTED: Final = Provider(source="the configuration")
"""A server that speaks OpenAI's API and that nobody listed."""


def row_of(deployment: Deployment) -> Provider | None:
    """Return the row of a deployment's provider: the configuration's own, else the table's; None without any."""
    return PROVIDERS.get(deployment.provider) if deployment.row is None else of_configuration(deployment.row)


def of_configuration(own: ProviderRow) -> Provider:
    """Return a row of the configuration as one of the table."""
    return Provider(
        source="the configuration",
        base_url=own.base_url,
        dialect=own.dialect,
        auth=own.auth,
        extra=tuple((name.lower(), value.get_secret_value()) for name, value in own.headers.items()),
        renames=tuple(own.renames.items()),
        lacks=frozenset(own.lacks),
        asks_usage=own.asks_usage,
        limits=tuple((name.lower(), told.lower()) for name, told in own.limit_headers.items()),
    )


def resolve(deployment: Deployment) -> ResolvedDeployment:
    """Work out where and how a deployment is called.

    Raises `ConfigError` naming the deployment when its provider's API is not spoken here, when nobody says its
    address, or when the address is not a URL.
    """
    provider = row_of(deployment)
    if provider is None and deployment.provider in OWN_API:
        raise ConfigError(
            f"deployment {deployment.name}: provider {deployment.provider} has an API of its own that is not spoken "
            "yet; put an OpenAI-compatible endpoint before it and name that with `openai/…` and `api_base`"
        )
    if provider is None and deployment.api_base is None:
        raise ConfigError(
            f"deployment {deployment.name}: provider {deployment.provider} is not known; "
            "an OpenAI-compatible server needs `api_base`"
        )
    place = _place(deployment, provider or UNLISTED)
    provider = place.provider
    model = deployment.base_model.rpartition("/")[2] if deployment.base_model else deployment.model
    quirk = next((each for each in provider.quirks if re.match(each.models, model)), None)
    lacks = provider.lacks | (quirk.lacks if quirk else frozenset())
    return ResolvedDeployment(
        deployment,
        provider,
        place.base_url,
        _headers(deployment, provider),
        deployment.extra_body,
        frozenset(deployment.additional_drop_params),
        deployment.secrets,
        lacks - frozenset(deployment.allowed_openai_params),
        provider.renames + (quirk.renames if quirk else ()),
        place.query,
    )


def _place(deployment: Deployment, provider: Provider) -> Place:
    if deployment.provider in PLACES and deployment.row is None:
        return PLACES[deployment.provider](deployment, provider)
    base = deployment.api_base or provider.base_url
    if not base:
        raise ConfigError(f"deployment {deployment.name}: provider {deployment.provider} needs `api_base`")
    base = base.strip().rstrip("/")
    for endpoint in ("/chat/completions", "/completions", "/embeddings", "/rerank"):
        base = base.removesuffix(endpoint)
    parts = url_parts(base, deployment, "api_base")
    return Place(base if parts.path else base + provider.path, provider)


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
