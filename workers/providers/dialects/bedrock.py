"""The Bedrock dialect: Converse, ConverseStream, InvokeModel for embeddings. Request out, answer and error in. Pure.

Sources: docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, …_ConverseStream.html,
…_InvokeModel.html, and botocore's model of the service.
"""

import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

import orjson

from broker.errors import BadUpstreamResponse, InvalidRequest
from schemas.request import CHAT, EMBEDDINGS
from workers.providers import openai
from workers.providers.base import CallResult, Outbound
from workers.providers.catalog import ResolvedDeployment
from workers.providers.dialect import Stream, given
from workers.providers.dialects import bedrock_embeddings as embeddings
from workers.providers.dialects.bedrock_answer import completion_of
from workers.providers.dialects.bedrock_errors import error, in_stream, kind_of
from workers.providers.dialects.bedrock_fields import extras, inference, labels, think
from workers.providers.dialects.bedrock_messages import conversation
from workers.providers.dialects.bedrock_models import Model, of
from workers.providers.dialects.bedrock_stream import BedrockStream
from workers.providers.dialects.bedrock_tools import forced_format, text_format, tool_config

__all__ = ["answer", "error", "outbound", "stream", "streamed"]

STREAM_TYPE: Final = "application/vnd.amazon.eventstream"
REQUEST_ID: Final = "x-amzn-requestid"
_BLOCKS_OF_TOOLS: Final = frozenset({"toolUse", "toolResult"})


def streamed(endpoint: str) -> bool:
    """Whether answers of `endpoint` can be streamed."""
    return endpoint == CHAT


def outbound(target: ResolvedDeployment, endpoint: str, body: Mapping[str, Any], *, streams: bool) -> Outbound:
    """Return the request to send, as the contract says. The model's id stands percent-encoded in the path."""
    asked, model = given(target, body), of(target)
    base = f"{target.base_url}/model/{quote(model.id, safe='-._~')}"
    if endpoint == EMBEDDINGS:
        return Outbound(f"{base}/invoke", _written(embeddings.request(target, model, asked)))
    if endpoint != CHAT:
        raise InvalidRequest(f"Bedrock does not serve {endpoint} here", param="endpoint")
    raw = _written(_chat(target, model, asked, streams=streams))
    if streams:
        return Outbound(f"{base}/converse-stream", raw, (("accept", STREAM_TYPE),))
    return Outbound(f"{base}/converse", raw)


def _written(out: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(out)
    except TypeError as error_:
        raise InvalidRequest(f"the body cannot be written as JSON: {error_}") from None


def _chat(target: ResolvedDeployment, model: Model, asked: Mapping[str, Any], *, streams: bool) -> dict[str, Any]:
    system, turns = conversation(target, model, asked)
    out: dict[str, Any] = {"messages": turns, "inferenceConfig": inference(target, model, asked)}
    if system:
        out["system"] = system
    uses = any(block.keys() & _BLOCKS_OF_TOOLS for turn in turns for block in turn["content"])
    config, choice = tool_config(target, model, asked, uses=uses)
    if config is not None:
        out["toolConfig"] = config
    own = {**extras(target, model, asked), **choice}
    _output(model, asked, out)
    out.update(labels(target, asked, streams=streams))
    think(target, model, asked, out, own)
    if own:
        out["additionalModelRequestFields"] = own
    if not out["inferenceConfig"]:
        del out["inferenceConfig"]
    return out


def _output(model: Model, asked: Mapping[str, Any], out: dict[str, Any]) -> None:
    own, form = asked.get("outputConfig"), text_format(model, asked)
    if own is not None and not isinstance(own, dict):
        raise InvalidRequest("outputConfig: an object is needed", param="outputConfig")
    found = {**(own or {}), **({} if form is None else {"textFormat": form})}
    if found:
        out["outputConfig"] = found


def _forced(target: ResolvedDeployment, asked: Mapping[str, Any]) -> bool:
    return forced_format(of(target), given(target, asked)) is not None


def answer(
    target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any], raw: bytes, headers: Mapping[str, str]
) -> CallResult:
    """Read an answer, as the contract says."""
    body = openai.parse(raw)
    if not isinstance(body, dict):
        raise BadUpstreamResponse("the upstream answered with JSON that is no object")
    if kind := kind_of(headers, body):
        raise in_stream(kind, body)
    model, identity = of(target), headers.get(REQUEST_ID, "")
    try:
        found = (
            embeddings.listed(body, model.id, given(target, asked), headers)
            if endpoint == EMBEDDINGS
            else completion_of(body, model.id, identity, forced=_forced(target, asked))
        )
        written = orjson.dumps(found)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError, struct.error, OverflowError):
        raise BadUpstreamResponse("the upstream's answer cannot be read") from None
    result = openai.result(target, endpoint, asked, found, written, headers)
    usage = body.get("usage")
    return result if not isinstance(usage, dict) else replace(result, usage=replace(result.usage, raw=usage))


def stream(target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any]) -> Stream:
    """Return what puts a streamed answer together."""
    return BedrockStream(endpoint, of(target).id, forced=_forced(target, asked))
