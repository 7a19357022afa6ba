"""Every endpoint there is, and where each API begins."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from broker.simulate import (
    anthropic_api,
    azure_api,
    bedrock_api,
    cohere_api,
    gemini_api,
    openai_chat,
    openai_media,
    openai_responses,
    openai_text,
    rerank_api,
    token_api,
    vertex_api,
)
from broker.simulate.api import Refused, Route

ROUTES: Final = (
    *openai_chat.ROUTES, *openai_text.ROUTES, *openai_responses.ROUTES, *openai_media.ROUTES, *anthropic_api.ROUTES,
    *gemini_api.ROUTES, *cohere_api.ROUTES, *rerank_api.ROUTES, *bedrock_api.ROUTES, *azure_api.ROUTES,
    *vertex_api.ROUTES, *token_api.ROUTES,
)  # fmt: skip
BASES: Final[Mapping[str, str]] = {
    "openai": "/v1", "anthropic": "/v1", "gemini": "/v1beta", "cohere": "/v2", "jina": "/jina/v1",
    "voyage": "/voyage/v1", "bedrock": "", "azure": "", "azure_v1": "/openai/v1", "vertex": "/v1",
    "entra_token": "/oauth2/v2.0/token", "google_token": "/token", "stats": "/-/stats",
}  # fmt: skip
"""API → where its base URL ends, as its official client wants it."""


def find(method: str, path: str) -> tuple[Route, Mapping[str, str]]:
    """Return the endpoint and what its path names. Raises `Refused` where there is none."""
    found, allowed = _matching(path)
    for route, names in found:
        if route.method == method:
            return route, names
    if allowed:
        raise Refused(f"{path} takes {' or '.join(allowed)}", "path", status=405)
    raise Refused(f"nothing is served at {path}", "path")


@lru_cache(maxsize=1024)
def _matching(path: str) -> tuple[tuple[tuple[Route, Mapping[str, str]], ...], tuple[str, ...]]:
    matches = ((route, route.pattern.fullmatch(path)) for route in ROUTES)
    found = tuple(
        (route, {name: unquote(value) for name, value in match.groupdict().items()})
        for route, match in matches
        if match is not None
    )
    return found, tuple(route.method for route, _ in found)
