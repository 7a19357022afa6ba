"""The dialect of Vertex AI: Gemini's and Anthropic's at Google's addresses, and its own embeddings. Pure.

Sources: cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference, …/text-embeddings-api, and
platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai (`anthropic_version`, no model in the body).
"""

from collections.abc import Mapping
from typing import Any, Final

from broker.errors import BadUpstreamResponse
from schemas.request import CHAT, EMBEDDINGS
from workers.providers import openai
from workers.providers.base import CallResult, Outbound
from workers.providers.catalog import ResolvedDeployment
from workers.providers.conversation import without
from workers.providers.dialect import Stream, encoded, given
from workers.providers.dialects import anthropic, gemini
from workers.providers.dialects.gemini import error
from workers.providers.vertex_place import is_claude

__all__ = ["answer", "error", "outbound", "stream", "streamed"]

ANTHROPIC_VERSION: Final = "vertex-2023-10-16"
OF_AN_INSTANCE: Final = frozenset({"task_type", "title"})
"""Parameters of an embedding that stand beside each text."""
PARAMETERS: Final = {"dimensions": "outputDimensionality", "auto_truncate": "autoTruncate"}


def streamed(endpoint: str) -> bool:
    """Whether answers of `endpoint` can be streamed."""
    return endpoint == CHAT


def outbound(target: ResolvedDeployment, endpoint: str, body: Mapping[str, Any], *, streams: bool) -> Outbound:
    """Return the request to send, as the contract says. An error of Google's or of Anthropic's is told by its shape."""
    model = f"{target.base_url}/models/{target.deployment.model}"
    if is_claude(target.deployment):
        out = anthropic.message(target, endpoint, body, streams=streams)
        del out["model"]
        out["anthropic_version"] = ANTHROPIC_VERSION
        return Outbound(f"{model}:{'streamRawPredict' if streams else 'rawPredict'}", encoded(out))
    if endpoint == EMBEDDINGS:
        return Outbound(f"{model}:predict", encoded(_instances(given(target, body))))
    return gemini.outbound(target, endpoint, body, streams=streams)


def _instances(asked: Mapping[str, Any]) -> dict[str, Any]:
    beside = {name: asked[name] for name in sorted(OF_AN_INSTANCE & asked.keys())}
    out: dict[str, Any] = {"instances": [{"content": text, **beside} for text in gemini.texts(asked)]}
    parameters = {theirs: asked[name] for name, theirs in PARAMETERS.items() if name in asked}
    parameters |= dict(without(asked, gemini.OF_EMBEDDINGS | OF_AN_INSTANCE | PARAMETERS.keys() | openai.CONTROL))
    return {**out, "parameters": parameters} if parameters else out


def answer(
    target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any], raw: bytes, headers: Mapping[str, str]
) -> CallResult:
    """Read an answer, as the contract says."""
    if is_claude(target.deployment):
        return anthropic.answer(target, endpoint, asked, raw, headers)
    if endpoint == EMBEDDINGS:
        return gemini.read(target, endpoint, asked, raw, headers, _predictions)
    return gemini.answer(target, endpoint, asked, raw, headers)


def _predictions(body: Mapping[str, Any], model: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    found = [each["embeddings"] for each in body["predictions"]]
    counts = [each["statistics"]["token_count"] for each in found if "statistics" in each]
    whole = gemini.embedded(found, model, asked)
    if len(counts) < len(found):
        return whole
    if any(isinstance(count, bool) or count != int(count) or count < 0 for count in counts):
        raise BadUpstreamResponse("the upstream's answer counts tokens that are no numbers")
    tokens = sum(map(int, counts))
    return {**whole, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def stream(target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any]) -> Stream:
    """Return what puts a streamed answer together."""
    if is_claude(target.deployment):
        return anthropic.stream(target, endpoint, asked)
    return gemini.stream(target, endpoint, asked)
