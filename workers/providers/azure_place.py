"""What a deployment of Azure says of itself: its address in one of three APIs, its version, the application it is.

Sources: learn.microsoft.com/azure/ai-foundry/openai/reference (deployment URLs, api-version),
…/openai/api-version-lifecycle (the v1 API), …/foundry-models/concepts/endpoints and
…/ai-studio/reference/reference-model-inference-api (`/models`, `extra-parameters`), and
learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow. Imports configuration models and errors.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import SplitResult, parse_qs, quote

from pydantic import SecretStr

from broker.config import Deployment
from broker.config.clouds import Azure
from broker.errors import ConfigError
from workers.providers.place import Place, address_of, origin_of, token_url, without_endpoint
from workers.providers.provider import Provider
from workers.providers.table import MAX_TOKENS

API_VERSION: Final = "2025-02-01-preview"
"""Of a deployment that names none: LiteLLM's own default, so that a file means the same here."""
MODELS_VERSION: Final = "2024-05-01-preview"
"""The latest of the model inference API (`/models`)."""
V1: Final = frozenset({"v1", "latest", "preview"})
"""Values of `api_version` that mean the v1 API, which has no dated versions; `preview` is sent, the others are not."""
COMPLETION_TOKENS_SINCE: Final = "2024-09-01-preview"
"""The first version that knows `max_completion_tokens` and `stream_options` (what's new, September 2024)."""
AUTHORITY: Final = "https://login.microsoftonline.com"
SCOPE: Final = "https://cognitiveservices.azure.com/.default"
OPENAI_HOST: Final = ".openai.azure.com"
FOUNDRY_HOST: Final = ".services.ai.azure.com"

DEPLOYMENTS: Final = "/openai/deployments/"
OPENAI_V1: Final = "/openai/v1"
MODELS: Final = "/models"

_VERSION: Final = re.compile(r"\d{4}-\d\d-\d\d(-preview)?|preview")


@dataclass(frozen=True, slots=True)
class Application:
    """An application registered in Entra; `url` is where it trades its secret for a token."""

    url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str


def azure(deployment: Deployment, provider: Provider) -> Place:
    """Return where a deployment of Azure OpenAI is called: its own URL, or the v1 API's.

    Raises `ConfigError` naming the deployment and the field that is missing or wrong.
    """
    _check_proof(deployment)
    parts = address_of(deployment)
    path = without_endpoint(parts.path)
    version = _version(deployment, parts)
    base, named, rest = path.partition(DEPLOYMENTS)
    if path.endswith(OPENAI_V1) or version in V1:
        base = base.removesuffix(OPENAI_V1).removesuffix("/openai") + OPENAI_V1
        return Place(origin_of(parts) + base, provider, "?api-version=preview" if version == "preview" else "")
    version = version or API_VERSION
    name = rest.partition("/")[0] if named else quote(deployment.model, safe="")
    base = base if named else base.removesuffix("/openai")
    knows = version[:10] >= COMPLETION_TOKENS_SINCE[:10]
    row = provider if knows else replace(provider, asks_usage=False, renames=MAX_TOKENS)
    return Place(f"{origin_of(parts)}{base}{DEPLOYMENTS}{name}", row, f"?api-version={version}")


def azure_ai(deployment: Deployment, provider: Provider) -> Place:
    """Return where a model of Azure AI Foundry is called: `/models` of a resource, a serverless endpoint, or `azure`'s.

    Raises `ConfigError` as `azure` does.
    """
    _check_proof(deployment)
    parts = address_of(deployment)
    path, host = without_endpoint(parts.path), parts.hostname or ""
    version = _version(deployment, parts)
    if "/openai" in path or host.endswith(OPENAI_HOST) or (host.endswith(FOUNDRY_HOST) and version in V1):
        return azure(deployment, provider)
    row = replace(provider, renames=MAX_TOKENS)
    if host.endswith(FOUNDRY_HOST) or path.endswith(MODELS):
        base = path.removesuffix(MODELS) + MODELS
        row = replace(row, extra=(*row.extra, ("extra-parameters", "pass-through")))
        return Place(origin_of(parts) + base, row, f"?api-version={version or MODELS_VERSION}")
    row = replace(row, auth="bearer") if deployment.api_key is not None else row
    query = f"?{parts.query}" if parts.query else ""
    return Place(origin_of(parts) + (path or "/v1"), row, query)


def _version(deployment: Deployment, parts: SplitResult) -> str | None:
    """Return the API version: the address's own where users pasted one, else the deployment's."""
    pasted = parse_qs(parts.query).get("api-version")
    if pasted is None:
        return deployment.azure.api_version if deployment.azure else None
    if not _VERSION.fullmatch(pasted[0]):
        raise ConfigError(f"deployment {deployment.name}: the api-version in `api_base` is not a date")
    return pasted[0]


def _check_proof(deployment: Deployment) -> None:
    if not (deployment.api_key or static_token(deployment) or has_own_header(deployment)):
        application(deployment)


def has_own_header(deployment: Deployment) -> bool:
    """Whether the configuration's own headers authorise the calls."""
    return not {"api-key", "authorization"}.isdisjoint(name.lower() for name in deployment.headers)


def static_token(deployment: Deployment) -> str:
    """Return the Entra token that the configuration gives, empty where it gives none.

    Raises `ConfigError` for one that LiteLLM would trade for another (`oidc/…`).
    """
    token = _text(deployment.azure.ad_token if deployment.azure else None)
    if token.startswith("oidc/"):
        raise ConfigError(
            f"deployment {deployment.name}: `azure_ad_token` is a reference to another token, which is not followed; "
            "give `tenant_id`, `client_id` and `client_secret`"
        )
    return token


def application(deployment: Deployment) -> Application:
    """Return the application that calls. Raises `ConfigError` naming the deployment and what is missing."""
    said = deployment.azure or Azure()
    values = {"tenant_id": said.tenant_id, "client_id": said.client_id, "client_secret": _text(said.client_secret)}
    missing = [f"`{name}`" for name, value in values.items() if not value]
    if len(missing) == len(values):
        raise ConfigError(
            f"deployment {deployment.name}: provider {deployment.provider} needs `api_key`, `azure_ad_token`, or "
            "`tenant_id`, `client_id` and `client_secret`"
        )
    if missing:
        raise ConfigError(f"deployment {deployment.name}: an application of Entra needs {' and '.join(missing)} too")
    authority = token_url(said.authority or AUTHORITY, deployment, "azure_authority_host")
    return Application(
        f"{authority}/{said.tenant_id}/oauth2/v2.0/token",
        said.client_id or "",
        values["client_secret"] or "",
        said.scope or SCOPE,
    )


def _text(secret: SecretStr | None) -> str:
    return secret.get_secret_value().strip() if secret else ""
