"""Where a deployment is served, as its configuration, its address or its model's name say, and whose prices hold there.

Prices depend on it: OpenAI's data residency, Vertex's and Bedrock's regional endpoints, Azure's data zones. A region is
"" where the provider's global price holds. Imports the package's types as data, no I/O.
"""

import re
from dataclasses import dataclass
from typing import Final

from genai_prices.types import ModelInfo, Provider

from broker.config import Deployment
from broker.ledger.overrides import GLOBAL, UNKNOWN_REGION
from broker.ledger.published import find_model, provider_at, provider_of

PACKAGE_NAMES: Final = {
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "jina_ai": "jina",
    "moonshot": "moonshotai",
    "text-completion-openai": "openai",
    "together_ai": "together",
    "voyage": "voyageai",
    "xai": "x-ai",
    "azure_ai": "azure",
    "azure_text": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "vertex_ai": "google",
    "vertex_ai_beta": "google",
}
"""Our provider names (LiteLLM's) to the package's, where they differ."""

SELLERS: Final = {"azure": "azure", "aws": "bedrock", "bedrock": "bedrock", "vertex_ai": "vertex_ai"} | {
    "azure_ai": "azure",
    "azure_text": "azure",
    "bedrock_converse": "bedrock",
    "vertex_ai_beta": "vertex_ai",
}
"""Clouds that sell others' models at prices of their own; what stands for them in overrides."""

JINA: Final = "https://api.jina.ai/"
"""The one address that our list knows and the package does not."""

_LOOPBACK: Final = re.compile(r"^https?://(localhost|127\.|\[::1\]|0\.0\.0\.0)", re.IGNORECASE)
_OPENAI: Final = re.compile(r"^https://([a-z]{2})\.api\.openai\.com(?:[/:]|$)")
"""Data residency: developers.openai.com/api/docs/guides/data-residency."""
_VERTEX: Final = re.compile(
    r"^https://(?:([a-z0-9-]+)-aiplatform\.googleapis\.com|aiplatform\.([a-z]+)\.rep\.googleapis\.com)(?:[/:]|$)"
)
"""Regional and multi-regional endpoints: docs.cloud.google.com/vertex-ai/generative-ai/docs/learn/locations."""
_BEDROCK: Final = re.compile(r"^https://bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:[/:]|$)")
_ARN: Final = re.compile(r"^arn:aws[a-z-]*:bedrock:([a-z0-9-]*):\d*:(foundation-model|inference-profile)/(.+)$")
"""docs.aws.amazon.com/service-authorization: of an application's own profile the model cannot be told."""
_BEFORE: Final = re.compile(r"^(?:(?!arn:)[^/]+/)+")
"""LiteLLM's words before a Bedrock model: an API, a family, a region (docs.litellm.ai/docs/providers/bedrock)."""
_REGION: Final = re.compile(r"[a-z]{2,4}(?:-[a-z]+)+-\d{1,2}")
_PROFILE: Final = re.compile(r"^(global|us-gov|us|eu|apac|au|jp|ca|in)\.(.+)$")
"""Cross-region inference profiles: docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-support.html."""
_VERSION: Final = re.compile(r"(?:-20\d{6})?(?:-v\d+)?(?::\d+)?$")
"""What a model id may say of its version; the package's own patterns tell versions of different prices apart."""
_AZURE_ZONE: Final = re.compile(r"^(eu|us|global|global-standard)/(.+)$")
"""LiteLLM's names of Azure's data zones, before the model."""


@dataclass(frozen=True, slots=True)
class Seller:
    """Whose list holds for a deployment: `name` in overrides, the package's provider, and the region."""

    name: str
    provider: Provider | None
    region: str
    base_model: str | None = None
    """What every answer is priced as, where the configuration says so."""


def seller_of(deployment: Deployment) -> Seller | None:  # noqa: PLR0911 - one return a rule
    """Return who sells a deployment's answers: by its base model, the address called, then the provider's name.

    None where nobody publishes prices: an address of the user's own, an Azure deployment without a base model.
    """
    named = deployment.base_model
    if named:
        head, _, tail = named.partition("/")
        known = head in SELLERS or (tail and provider_of(PACKAGE_NAMES.get(head, head)) is not None)
        provider, model = (head, tail) if tail and known else (deployment.provider, named)
        return _seller(provider, deployment, model)
    if deployment.provider in {"azure", "azure_ai", "azure_text"}:
        return None
    row = deployment.row
    if row is not None and row.prices_as:
        return _seller(row.prices_as, deployment, None)
    base = deployment.api_base or (row.base_url if row is not None else None)
    if base is None or deployment.provider in SELLERS:
        return _seller(deployment.provider, deployment, None)
    if _LOOPBACK.match(base):
        return None
    if _OPENAI.match(base):
        return _seller("openai", deployment, None)
    found = provider_at(base)
    if found is None:
        return _seller("jina_ai", deployment, None) if base.startswith(JINA) else None
    return None if found.id in {"azure", "aws"} else _seller(found.id, deployment, None)


def _seller(provider: str, deployment: Deployment, model: str | None) -> Seller:
    package = PACKAGE_NAMES.get(provider, provider)
    name = SELLERS.get(provider, package)
    cloud = deployment.aws.region if deployment.aws else deployment.vertex.location if deployment.vertex else None
    region = (deployment.region or cloud or "").lower()
    base = (deployment.api_base or "").lower()
    if name == "azure":
        zone = _AZURE_ZONE.match(model or "")
        found = zone[1] if zone else region
        return Seller(name, provider_of(package), _global(found, "global-standard"), zone[2] if zone else model)
    if name == "vertex_ai":
        at = _VERTEX.match(base)
        found = region or (at[1] or at[2] if at else "")
        told = found or bool(model) or base.startswith("https://aiplatform.googleapis.com")
        return Seller(name, provider_of(package), _global(found) if told else UNKNOWN_REGION, model)
    if name == "bedrock":
        at = _BEDROCK.match(base)
        spelled = (deployment.region or "").lower() or _spelled_region(deployment.model)
        return Seller(name, provider_of(package), spelled or region or (at[1] if at else ""), model)
    at = _OPENAI.match(base) if name == "openai" else None
    return Seller(name, provider_of(package), _global(region or (at[1] if at else "")), model)


def _global(region: str, *others: str) -> str:
    return GLOBAL if region in {"global", *others} else region


def _spelled_region(model: str) -> str:
    """Return the region that stands before a Bedrock model, which is the one called; empty where none does."""
    before = _BEFORE.match(model.lower())
    words = before[0].split("/") if before else []
    return next((word for word in words if _REGION.fullmatch(word)), "")


def bedrock_model(provider: Provider, name: str, region: str) -> ModelInfo | None:
    """Return the package's entry for a Bedrock model id, profile or ARN served from `region`; None where unknown.

    The package lists `global.` profiles, `regional.` ones (any other profile, or a region itself), and models whose
    prices are those of the United States.
    """
    name = name.lower()
    region, name = region or _spelled_region(name), _BEFORE.sub("", name)
    arn = _ARN.match(name)
    if arn:
        region, name = region or arn[1], arn[3]
    profile = _PROFILE.match(name)
    place, model = (profile[1], profile[2]) if profile else ("", name)
    if place == "us-gov" or region.startswith("us-gov"):
        return None
    for each in provider.models:
        head, _, rest = each.id.lower().partition(".")
        if _VERSION.sub("", rest) != _VERSION.sub("", model) or not each.is_match(name):
            continue
        if (head == "global") == (place == "global") and head in {"global", "regional"}:
            return each
    american = place == "us" or (not place and region.startswith("us-"))
    plain = (each for each in provider.models if _is_called(each, model) and each.is_match(name))
    return next(plain, None) if american else None


def _is_called(model: ModelInfo, name: str) -> bool:
    known = model.id.lower()
    if known.startswith(("global.", "regional.")):
        return False
    return _VERSION.sub("", known) == _VERSION.sub("", name)


def cloud_model(seller: Seller, name: str) -> ModelInfo | None:
    """Return the package's entry for a model that a cloud sells, its own or another maker's; None where unknown."""
    provider = seller.provider
    if provider is None:
        return None
    if seller.name == "bedrock":
        return bedrock_model(provider, name, seller.region)
    found = find_model(provider, name.removesuffix("@default"))
    if found is None:
        others = (provider_of(each) for each in provider.fallback_model_providers or ())
        found = next((model for each in others if each and (model := find_model(each, name))), None)
    return found
