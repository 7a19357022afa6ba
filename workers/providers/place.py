"""Where a deployment is called, worked out of what the configuration says. Imports configuration models and errors."""

from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from broker.config import Deployment
from broker.errors import ConfigError
from schemas.request import CHAT, COMPLETIONS, EMBEDDINGS, IMAGES, RESPONSES, SPEECH, TRANSCRIPTIONS
from workers.providers.provider import Provider

LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
ENDPOINTS: Final = tuple(
    endpoint.removeprefix("/v1")
    for endpoint in (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, IMAGES, SPEECH, TRANSCRIPTIONS)
)


class Place(NamedTuple):
    """`base_url` has no slash at its end, `query` is empty or begins with `?`, `provider` is the row as it is here."""

    base_url: str
    provider: Provider
    query: str = ""


def address_of(deployment: Deployment) -> SplitResult:
    """Return the parts of `api_base`. Raises `ConfigError` where there is none, or where it is no URL."""
    if not deployment.api_base:
        raise ConfigError(f"deployment {deployment.name}: provider {deployment.provider} needs `api_base`")
    return url_parts(deployment.api_base, deployment, "api_base")


def url_parts(text: str, deployment: Deployment, field: str) -> SplitResult:
    """Return the parts of a URL. Raises `ConfigError` naming the field, and not quoting what stands in it."""
    try:
        parts = urlsplit(text.strip())
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"deployment {deployment.name}: `{field}` is not an http or https URL")
    return parts


def without_endpoint(path: str) -> str:
    """Return a path without a slash at its end, and without the endpoint that users paste along with it."""
    path = path.rstrip("/")
    found = next((endpoint for endpoint in ENDPOINTS if path.endswith(endpoint)), "")
    return path.removesuffix(found).rstrip("/")


def origin_of(parts: SplitResult) -> str:
    """Return a URL without path and query."""
    return f"{parts.scheme}://{parts.netloc}"


def token_url(text: str, deployment: Deployment, field: str) -> str:
    """Return a token service's URL without a slash at its end; it is sent secrets, so they travel encrypted.

    Raises `ConfigError` where it is no https URL and not of this machine.
    """
    url = text.strip().rstrip("/")
    parts = url_parts(url if "://" in url else f"https://{url}", deployment, field)
    if parts.scheme != "https" and parts.hostname not in LOCAL:
        raise ConfigError(f"deployment {deployment.name}: `{field}` is not an https URL, and secrets go there")
    return origin_of(parts) + parts.path
