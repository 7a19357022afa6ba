"""The OpenAI dialect as the others are: what is sent is what came, what came is handed on. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from schemas.request import RERANK, RESPONSES, SPEECH, TRANSCRIPTIONS
from workers.providers.base import CallResult, Outbound
from workers.providers.catalog import ResolvedDeployment
from workers.providers.dialect import Stream
from workers.providers.dialects import rerank
from workers.providers.openai import STREAMED, error, parse, request, result, url
from workers.providers.openai import answer as plain_answer
from workers.providers.openai_shapes import CHECKS, ResponseStream, form, spoken, written
from workers.providers.openai_stream import Completion

__all__ = ["answer", "error", "outbound", "stream", "streamed"]


def streamed(endpoint: str) -> bool:
    """Whether answers of `endpoint` can be streamed."""
    return endpoint in STREAMED


def outbound(target: ResolvedDeployment, endpoint: str, body: Mapping[str, Any], *, streams: bool) -> Outbound:
    """Return the request to send. Raises `InvalidRequest` where the body cannot be written as JSON, or as a form."""
    where = url(target, endpoint)
    raw = request(target, body, streams=streams, asks_usage=endpoint != RESPONSES)
    if endpoint == TRANSCRIPTIONS:
        content, content_type = form(orjson.loads(raw))
        return Outbound(where, content, (("content-type", content_type),))
    if endpoint == SPEECH:
        return Outbound(where, raw, (("accept", "*/*"),))
    return Outbound(where, raw)


def answer(
    target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any], raw: bytes, headers: Mapping[str, str]
) -> CallResult:
    """Read an answer, as the contract says; what is no JSON over HTTP becomes JSON here."""
    check = CHECKS.get(endpoint)
    if check is None:
        return plain_answer(target, endpoint, asked, raw, headers)
    content_type = headers.get("content-type", "")
    if endpoint == SPEECH and "json" not in content_type:
        body: Any = spoken(raw, content_type)
        raw = orjson.dumps(body)
    else:
        if endpoint == TRANSCRIPTIONS:
            raw = written(raw, content_type)
        body = parse(raw)
    if isinstance(body, dict) and not body.get("error"):
        check(body)
    found = result(target, endpoint, asked, body, raw, headers)
    return replace(found, usage=rerank.usage_of(asked, body)) if endpoint == RERANK else found


def stream(target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any]) -> Stream:
    """Return what puts a streamed answer together."""
    del target, asked
    return ResponseStream() if endpoint == RESPONSES else Completion(endpoint)
