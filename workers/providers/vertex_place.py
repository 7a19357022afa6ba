"""What a deployment of Vertex AI says of itself: project, location, publisher, and the credential file it names.

Sources: cloud.google.com/vertex-ai/generative-ai/docs/learn/locations (hosts; `us` and `eu` as the official SDKs write
them), …/start/express-mode/overview (API keys), and the fields of a credential file that google-auth reads. Imports
configuration models and errors.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import orjson

from broker.config import Deployment
from broker.config.clouds import Vertex
from broker.errors import ConfigError
from workers.providers.place import Place, origin_of, url_parts
from workers.providers.provider import Provider

VERSION: Final = "/v1"
GLOBAL: Final = "global"
MULTI_REGIONS: Final = frozenset({"us", "eu"})
TOKEN_URL: Final = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "service_account": ("client_email", "private_key"),
    "authorized_user": ("client_id", "client_secret", "refresh_token"),
}
"""Kind of a credential file → fields that must be texts in it."""


def vertex(deployment: Deployment, provider: Provider) -> Place:
    """Return where the models of a publisher are called: `…/publishers/google`, or `…/publishers/anthropic`.

    With `api_key` and no location it is express mode: no project in the URL. A credential file is opened only where
    nothing else names the project. Raises `ConfigError` naming the deployment and the field that is missing or wrong.
    """
    said = deployment.vertex or Vertex()
    if "/" in deployment.model:
        raise ConfigError(
            f"deployment {deployment.name}: of Vertex AI the models of Google and Anthropic are spoken, and "
            f"{deployment.model} names another publisher"
        )
    if not deployment.api_key and not _has_own_header(deployment):
        credential(deployment)
    origin, path = _host(deployment, said)
    if "/projects/" not in path:
        path += _scope(deployment, said)
    publisher = "anthropic" if is_claude(deployment) else "google"
    return Place(f"{origin}{path}/publishers/{publisher}", replace(provider, path=""))


def is_claude(deployment: Deployment) -> bool:
    """Whether the model is Anthropic's."""
    return deployment.model.startswith("claude")


def _host(deployment: Deployment, said: Vertex) -> tuple[str, str]:
    if deployment.api_base:
        parts = url_parts(deployment.api_base, deployment, "api_base")
        path = parts.path.rstrip("/").partition("/publishers/")[0]
        return origin_of(parts), path or VERSION
    location = said.location
    if location in {None, GLOBAL}:
        return "https://aiplatform.googleapis.com", VERSION
    if location in MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com", VERSION
    return f"https://{location}-aiplatform.googleapis.com", VERSION


def _scope(deployment: Deployment, said: Vertex) -> str:
    if deployment.api_key and not (said.project and said.location):
        return ""
    project = said.project or _project_of(deployment)
    for field, value in (("vertex_project", project), ("vertex_location", said.location)):
        if not value:
            raise ConfigError(f"deployment {deployment.name}: provider {deployment.provider} needs `{field}`")
    return f"/projects/{project}/locations/{said.location}"


def _project_of(deployment: Deployment) -> str:
    if _has_own_header(deployment):
        return ""
    text = credential(deployment)
    found = parsed(text if text.startswith("{") else read(text, deployment), deployment).get("project_id")
    return found if isinstance(found, str) else ""


def _has_own_header(deployment: Deployment) -> bool:
    return any(name.lower() in {"authorization", "x-goog-api-key"} for name in deployment.headers)


def credential(deployment: Deployment) -> str:
    """Return a credential file's JSON or its path; empty where the configuration's own headers authorise the calls.

    Raises `ConfigError` where there is none, or where it is JSON and cannot be used.
    """
    secret = deployment.vertex.credentials if deployment.vertex else None
    text = secret.get_secret_value().strip() if secret else ""
    if text.startswith("{"):
        parsed(text, deployment)
    elif not text and not _has_own_header(deployment):
        raise ConfigError(
            f"deployment {deployment.name}: provider {deployment.provider} needs `vertex_credentials`, or `api_key`"
        )
    return text


def read(path: str, deployment: Deployment) -> str:
    """Return the text of a credential file, reading it now. Raises `ConfigError`; the path is not quoted."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise ConfigError(
            f"deployment {deployment.name}: the file that `vertex_credentials` names cannot be read"
        ) from None


def parsed(text: str, deployment: Deployment) -> Mapping[str, Any]:
    """Return the fields of a credential file. Raises `ConfigError` naming the one that is missing."""
    where = f"deployment {deployment.name}: `vertex_credentials`"
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ConfigError(f"{where}: this is not JSON") from None
    kind = found.get("type") if isinstance(found, dict) else None
    if not isinstance(kind, str) or kind not in NEEDED:
        raise ConfigError(f"{where}: its type must be {' or '.join(NEEDED)}")
    for name in NEEDED[kind]:
        if not isinstance(found.get(name), str) or not found[name]:
            raise ConfigError(f"{where}: {name} is missing")
    return dict(found)
