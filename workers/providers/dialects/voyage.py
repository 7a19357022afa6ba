"""The Voyage dialect: embeddings and rerank. Pure.

Sources: docs.voyageai.com/reference/embeddings-api, …/reranker-api, docs.voyageai.com/docs/error-codes.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from broker.errors import BadUpstreamResponse, InvalidRequest, RequestError
from schemas.request import EMBEDDINGS, RERANK
from workers.providers import openai
from workers.providers.base import CallResult, Outbound
from workers.providers.catalog import ResolvedDeployment
from workers.providers.conversation import bad
from workers.providers.dialect import encoded, given
from workers.providers.dialects import rerank
from workers.providers.dialects.retrieval import encoding, inputs, is_image, own, stream, streamed, too_long
from workers.providers.openai_stream import written

__all__ = ["answer", "error", "outbound", "stream", "streamed"]

OURS: Final = frozenset({"model", "input", "dimensions", "encoding_format"})
_TOO_LONG: Final = ("max allowed tokens", "too many tokens")


def outbound(target: ResolvedDeployment, endpoint: str, body: Mapping[str, Any], *, streams: bool) -> Outbound:
    """Return the request to send, as the contract says."""
    del streams
    asked = given(target, body)
    if endpoint == EMBEDDINGS:
        return Outbound(openai.url(target, endpoint), encoded(_embeddings(target, asked)))
    if endpoint == RERANK:
        return Outbound(openai.url(target, endpoint), encoded(_rerank(target, asked)))
    raise InvalidRequest(f"Voyage does not serve {endpoint}", param="endpoint")


def _embeddings(target: ResolvedDeployment, asked: Mapping[str, Any]) -> dict[str, Any]:
    found = inputs(asked, "Voyage")
    if any(map(is_image, found)):
        bad("input", "this endpoint of Voyage embeds texts only")
    out: dict[str, Any] = {"model": target.deployment.model, "input": found}
    if encoding(asked) == "base64":  # the other is what comes where nothing is said
        out["encoding_format"] = "base64"
    if asked.get("dimensions") is not None:
        out["output_dimension"] = asked["dimensions"]
    return {**out, **own(target, asked, OURS)}


def _rerank(target: ResolvedDeployment, asked: Mapping[str, Any]) -> dict[str, Any]:
    out = rerank.request(target, asked, top="top_k")
    out["documents"] = rerank.texts(asked)
    if asked.get("return_documents") is True:
        out["return_documents"] = True
    return out


def answer(
    target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any], raw: bytes, headers: Mapping[str, str]
) -> CallResult:
    """Read an answer, as the contract says."""
    body = openai.parse(raw)
    if not isinstance(body, dict):
        raise BadUpstreamResponse("the upstream answered with JSON that is no object")
    if endpoint == RERANK:
        return rerank.result(target, given(target, asked), body, body.get("data"), headers)
    usage = body.get("usage")
    tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
    if type(tokens) is int and tokens >= 0:
        # OpenAI's answer tells the tokens of the prompt too, and they are all.
        body = {**body, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    found = openai.result(target, endpoint, asked, body, written(body), headers)
    return replace(found, usage=replace(found.usage, raw=usage)) if isinstance(usage, dict) else found


def error(status: int, headers: Mapping[str, str], raw: bytes, now: float) -> RequestError:
    """Return the error of an answer whose status is not 2xx; `now` is unix seconds."""
    return too_long(openai.error(status, headers, raw, now), status, _TOO_LONG)
