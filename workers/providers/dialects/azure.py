"""The dialect of Azure OpenAI and of the model inference API: OpenAI's, at other addresses. Pure.

What a deployment's version knows is in its row already (`azure_place`); here is what each API serves. Sources:
learn.microsoft.com/azure/ai-foundry/openai/reference, …/openai/latest (v1) and
…/ai-studio/reference/reference-model-inference-api.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from broker.errors import InvalidRequest
from schemas.request import CHAT, COMPLETIONS, EMBEDDINGS, IMAGES, RESPONSES, SPEECH, TRANSCRIPTIONS
from workers.providers.azure_place import DEPLOYMENTS, OPENAI_V1
from workers.providers.base import Outbound
from workers.providers.catalog import ResolvedDeployment
from workers.providers.dialect import Stream
from workers.providers.dialects import openai
from workers.providers.dialects.openai import answer, error, streamed
from workers.providers.openai_stream import Completion

__all__ = ["answer", "error", "outbound", "stream", "streamed"]

OF_A_DEPLOYMENT: Final = frozenset({CHAT, COMPLETIONS, EMBEDDINGS, IMAGES, SPEECH, TRANSCRIPTIONS})
OF_V1: Final = OF_A_DEPLOYMENT | {RESPONSES}
OF_MODELS: Final = frozenset({CHAT, COMPLETIONS, EMBEDDINGS})


def outbound(target: ResolvedDeployment, endpoint: str, body: Mapping[str, Any], *, streams: bool) -> Outbound:
    """Return the request to send, as the contract says."""
    if endpoint not in _served(target.base_url):
        hint = "; its v1 API does (api_version: v1)" if endpoint == RESPONSES and DEPLOYMENTS in target.base_url else ""
        raise InvalidRequest(f"Azure does not serve {endpoint} at this address{hint}", param="endpoint")
    return openai.outbound(target, endpoint, body, streams=streams)


def _served(base_url: str) -> frozenset[str]:
    if base_url.endswith(OPENAI_V1):
        return OF_V1
    return OF_A_DEPLOYMENT if DEPLOYMENTS in base_url else OF_MODELS


class AnnotatedCompletion(Completion):
    """A stream that begins with what the content filter says of the prompt: a chunk that has no names yet.

    It is held back until the first chunk that has them, and goes on by those.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self._unnamed: list[tuple[bytes, bool]] = []
        self._begun = False

    def feed(self, piece: bytes) -> Iterator[tuple[bytes, bool]]:
        """Take bytes; yield chunks, as `Stream` says."""
        for chunk, plain in super().feed(piece):
            if not self._begun:
                told = orjson.loads(chunk)
                if not told.get("choices") and not told.get("object"):
                    self._unnamed.append((chunk, plain))
                    continue
                self._begun = True
                names = {name: told[name] for name in ("id", "object", "created", "model") if name in told}
                for held, wanted in self._unnamed:
                    yield orjson.dumps({**orjson.loads(held), **names}), wanted
            yield chunk, plain


def stream(target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any]) -> Stream:
    """Return what puts a streamed answer together."""
    if endpoint == RESPONSES:
        return openai.stream(target, endpoint, asked)
    return AnnotatedCompletion(endpoint)
