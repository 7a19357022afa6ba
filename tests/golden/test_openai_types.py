"""What a caller is given parses, strictly, with the types of OpenAI's own package, whatever provider answered."""

import json
import struct
from base64 import b64decode
from typing import Any, Final

import pytest
from openai.types import Completion, CreateEmbeddingResponse, ImagesResponse, ModerationCreateResponse
from openai.types.audio import Transcription
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from schemas.request import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    IMAGES,
    MODERATIONS,
    RERANK,
    RESPONSES,
    TRANSCRIPTIONS,
)
from tests.golden.cases import cases, dialect_of, stream_of, target
from tests.golden.test_dialects import raw

TYPES: Final[dict[str, type[BaseModel]]] = {
    CHAT: ChatCompletion,
    COMPLETIONS: Completion,
    EMBEDDINGS: CreateEmbeddingResponse,
    IMAGES: ImagesResponse,
    MODERATIONS: ModerationCreateResponse,
    RESPONSES: Response,
    TRANSCRIPTIONS: Transcription,
}
"""By endpoint; rerank is in Cohere's shape, which OpenAI has no type for."""

EVENT: Final[TypeAdapter[Any]] = TypeAdapter(ResponseStreamEvent)


def decoded(body: bytes) -> bytes:
    """Return an answer with embeddings in base64 as numbers, as OpenAI's own client makes them before it parses."""
    found = json.loads(body)
    for item in found.get("data") or ():
        if isinstance(item.get("embedding"), str):
            packed = b64decode(item["embedding"])
            item["embedding"] = list(struct.unpack(f"<{len(packed) // 4}f", packed))
    return json.dumps(found).encode()


@pytest.mark.parametrize(("folder", "case"), cases("answers"))
def test_an_answer_parses_with_openais_own_type(folder: str, case: dict[str, Any]) -> None:
    if case["endpoint"] == RERANK:
        assert folder not in {"anthropic", "gemini"}
        return
    resolved = target(case["deployment"])
    found = dialect_of(resolved).answer(
        resolved, case["endpoint"], case["asked"], raw(case["answer"]), case.get("headers", {})
    )
    TYPES[case["endpoint"]].model_validate_json(decoded(found.body), strict=True)


@pytest.mark.parametrize(("folder", "case"), cases("streams"))
def test_every_chunk_and_the_whole_parse_with_openais_own_types(folder: str, case: dict[str, Any]) -> None:
    resolved = target(case["deployment"])
    stream = dialect_of(resolved).stream(resolved, case["endpoint"], case["asked"])
    raws = [chunk for chunk, _ in stream.feed(stream_of(folder, case["stream"]))]
    TYPES[case["endpoint"]].model_validate(stream.body(), strict=True)
    if case["endpoint"] == RESPONSES:
        assert [EVENT.validate_json(chunk).type for chunk in raws] == [chunk["type"] for chunk in case["chunks"]]
        return
    if case["endpoint"] == COMPLETIONS:
        return  # the package has no type for a chunk of it: in its own a choice has ended
    chunks = [ChatCompletionChunk.model_validate_json(chunk, strict=True) for chunk in raws]
    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk.usage is not None for chunk in chunks].count(True) <= 1
