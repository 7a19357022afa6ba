"""Providers as rows of data, named as LiteLLM's users write them, and what a deployment resolves to.

A provider without a row is an OpenAI-compatible server when the configuration names its address. Imports configuration
models and broker errors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from broker.config import Deployment
from broker.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A row. Capabilities default to what every server of the dialect has."""

    base_url: str | None = None
    """None where the address is the user's own: the configuration must name it."""
    dialect: str = "openai"
    auth: str = "bearer"
    """How the key is sent, one of `AUTH`."""
    extra: tuple[tuple[str, str], ...] = ()
    """Headers of every call that the provider wants, names in lower case."""
    path: str = ""
    """Completes an address that has no path, as users of LiteLLM write it."""
    asks_usage: bool = True
    """Whether a stream tells its usage only when asked by `stream_options`."""
    cost_field: str = ""
    """The field of `usage` that states what the call cost."""
    cost_exponent: int = 0
    """That field times ten to this power is USD."""


AUTH: Final[dict[str, tuple[str, str]]] = {
    "bearer": ("authorization", "Bearer "),
    "x-api-key": ("x-api-key", ""),
    "api-key": ("api-key", ""),
    "x-goog-api-key": ("x-goog-api-key", ""),
}
"""Style → header and what stands before the key in it. A style that is not here is signed call by call."""

PROVIDERS: Final[dict[str, Provider]] = {
    # platform.openai.com/docs/api-reference
    "openai": Provider(base_url="https://api.openai.com/v1"),
    "text-completion-openai": Provider(base_url="https://api.openai.com/v1"),
    # platform.claude.com/docs/en/api/overview: key in x-api-key, a version in every call
    "anthropic": Provider(
        base_url="https://api.anthropic.com/v1",
        dialect="anthropic",
        auth="x-api-key",
        extra=(("anthropic-version", "2023-06-01"),),
        path="/v1",
    ),
    # ai.google.dev/api: the key in x-goog-api-key
    "gemini": Provider(
        base_url="https://generativelanguage.googleapis.com/v1beta",
        dialect="gemini",
        auth="x-goog-api-key",
        path="/v1beta",
    ),
    # console.groq.com/docs/openai
    "groq": Provider(base_url="https://api.groq.com/openai/v1"),
    # docs.together.ai/docs/inference/openai-compatibility
    "together_ai": Provider(base_url="https://api.together.ai/v1"),
    # docs.fireworks.ai/tools-sdks/openai-compatibility
    "fireworks_ai": Provider(base_url="https://api.fireworks.ai/inference/v1"),
    # docs.mistral.ai/api: unknown fields are refused, and a stream's last chunk has the usage unasked
    "mistral": Provider(base_url="https://api.mistral.ai/v1", asks_usage=False),
    "codestral": Provider(base_url="https://codestral.mistral.ai/v1", asks_usage=False),
    # api-docs.deepseek.com
    "deepseek": Provider(base_url="https://api.deepseek.com/v1"),
    # docs.x.ai/developers/cost-tracking: 1 USD = 10^10 ticks
    "xai": Provider(base_url="https://api.x.ai/v1", cost_field="cost_in_usd_ticks", cost_exponent=-10),
    # docs.perplexity.ai: the address has no /v1, and every chunk has the usage
    "perplexity": Provider(base_url="https://api.perplexity.ai", asks_usage=False),
    # openrouter.ai/docs/use-cases/usage-accounting: usage unasked, cost in credits of one dollar
    "openrouter": Provider(base_url="https://openrouter.ai/api/v1", asks_usage=False, cost_field="cost"),
    # inference-docs.cerebras.ai/resources/openai
    "cerebras": Provider(base_url="https://api.cerebras.ai/v1"),
    # docs.sambanova.ai/docs/en/features/openai-compatibility
    "sambanova": Provider(base_url="https://api.sambanova.ai/v1"),
    # docs.api.nvidia.com/nim/reference
    "nvidia_nim": Provider(base_url="https://integrate.api.nvidia.com/v1"),
    # deepinfra.com/docs/openai_api
    "deepinfra": Provider(base_url="https://api.deepinfra.com/v1/openai"),
    # platform.moonshot.ai/docs
    "moonshot": Provider(base_url="https://api.moonshot.ai/v1"),
    # Servers of the user's own; their default ports are those of their documentation.
    "hosted_vllm": Provider(),  # docs.vllm.ai/en/latest/serving/openai_compatible_server.html
    "vllm": Provider(),
    "openai_like": Provider(),  # docs.litellm.ai/docs/providers/openai_compatible
    "custom_openai": Provider(),
    "litellm_proxy": Provider(),  # docs.litellm.ai/docs/providers/litellm_proxy
    "ollama": Provider(base_url="http://localhost:11434/v1", path="/v1"),  # docs.ollama.com/openai
    "ollama_chat": Provider(base_url="http://localhost:11434/v1", path="/v1"),
    "lm_studio": Provider(base_url="http://localhost:1234/v1"),  # lmstudio.ai/docs/app/api/endpoints/openai
    "llamafile": Provider(base_url="http://127.0.0.1:8080/v1"),  # docs.litellm.ai/docs/providers/llamafile
}

OWN_API: Final = frozenset(
    {
        "azure",
        "azure_ai",
        "azure_text",
        "bedrock",
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
    headers, secrets = _headers(deployment, provider)
    return ResolvedDeployment(
        deployment,
        provider,
        _base_url(deployment, provider),
        headers,
        deployment.extra_body,
        frozenset(deployment.additional_drop_params),
        secrets,
    )


def _base_url(deployment: Deployment, provider: Provider) -> str:
    base = deployment.api_base or provider.base_url
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


def _headers(deployment: Deployment, provider: Provider) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Return the headers of every call and the values that are secret; the configuration's own win."""
    key = deployment.api_key.get_secret_value().strip() if deployment.api_key else ""
    own = {name.lower(): value.get_secret_value().strip() for name, value in deployment.headers.items()}
    headers = {"content-type": "application/json", "accept": "application/json", **dict(provider.extra)}
    if key and provider.auth in AUTH:
        name, before = AUTH[provider.auth]
        headers[name] = before + key
    headers.update(own)
    return tuple(headers.items()), tuple(value for value in (key, *own.values()) if value)
