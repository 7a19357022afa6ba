"""The OpenAI dialect as the others are: what is sent is what came, what came is handed on. Pure."""

from collections.abc import Mapping
from typing import Any

from workers.providers.base import Outbound
from workers.providers.catalog import ResolvedDeployment
from workers.providers.openai import STREAMED, answer, error, request, url
from workers.providers.openai_stream import Completion

__all__ = ["answer", "error", "outbound", "stream", "streamed"]


def streamed(endpoint: str) -> bool:
    """Whether answers of `endpoint` can be streamed."""
    return endpoint in STREAMED


def outbound(target: ResolvedDeployment, endpoint: str, body: Mapping[str, Any], *, streams: bool) -> Outbound:
    """Return the request to send. Raises `InvalidRequest` where the body cannot be written as JSON."""
    return Outbound(url(target, endpoint), request(target, body, streams=streams))


def stream(target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any]) -> Completion:
    """Return what puts a streamed answer together."""
    del target, asked
    return Completion(endpoint)
