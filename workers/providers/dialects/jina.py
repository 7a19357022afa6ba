"""The Jina dialect: embeddings as OpenAI has them but for their encoding and pictures, and rerank. Pure.

Source: api.jina.ai/redoc. Errors are FastAPI's, `{"detail": …}`.
"""

from collections.abc import Mapping
from typing import Any, Final

from broker.errors import BadUpstreamResponse, InvalidRequest, RequestError
from schemas.request import EMBEDDINGS, RERANK
from workers.providers import openai
from workers.providers.base import CallResult, Outbound
from workers.providers.catalog import ResolvedDeployment
from workers.providers.dialect import encoded, given
from workers.providers.dialects import rerank
from workers.providers.dialects.retrieval import encoding, inputs, is_image, own, stream, streamed, too_long

__all__ = ["answer", "error", "outbound", "stream", "streamed"]

OURS: Final = frozenset({"model", "input", "encoding_format"})
_TOO_LONG: Final = ("text cannot exceed",)


def outbound(target: ResolvedDeployment, endpoint: str, body: Mapping[str, Any], *, streams: bool) -> Outbound:
    """Return the request to send, as the contract says."""
    del streams
    asked = given(target, body)
    if endpoint == EMBEDDINGS:
        return Outbound(openai.url(target, endpoint), encoded(_embeddings(target, asked)))
    if endpoint == RERANK:
        return Outbound(openai.url(target, endpoint), encoded(_rerank(target, asked)))
    raise InvalidRequest(f"Jina does not serve {endpoint}", param="endpoint")


def _embeddings(target: ResolvedDeployment, asked: Mapping[str, Any]) -> dict[str, Any]:
    found: list[Any] = list(inputs(asked, "Jina"))
    if any(map(is_image, found)):
        found = [{"image": each.partition(",")[2]} if is_image(each) else {"text": each} for each in found]
    out: dict[str, Any] = {"model": target.deployment.model, "input": found}
    if encoding(asked) == "base64":
        out["embedding_type"] = "base64"
    return {**out, **own(target, asked, OURS)}


def _rerank(target: ResolvedDeployment, asked: Mapping[str, Any]) -> dict[str, Any]:
    out = rerank.request(target, asked, top="top_n")
    found = [each["text"] if isinstance(each, dict) and each.keys() == {"text"} else each
             for each in rerank.documents(asked)]  # fmt: skip
    # Documents come back unless they are not wanted.
    return {**out, "documents": found, "return_documents": asked.get("return_documents") is True}


def answer(
    target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any], raw: bytes, headers: Mapping[str, str]
) -> CallResult:
    """Read an answer, as the contract says."""
    if endpoint != RERANK:
        return openai.answer(target, endpoint, asked, raw, headers)
    body = openai.parse(raw)
    if not isinstance(body, dict):
        raise BadUpstreamResponse("the upstream answered with JSON that is no object")
    return rerank.result(target, given(target, asked), body, body.get("results"), headers)


def error(status: int, headers: Mapping[str, str], raw: bytes, now: float) -> RequestError:
    """Return the error of an answer whose status is not 2xx; `now` is unix seconds."""
    return too_long(openai.error(status, headers, raw, now), status, _TOO_LONG)
