"""The fields the simulator takes are those of the official packages' own request types."""

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

import pytest
from anthropic.types.message_create_params import MessageCreateParamsBase as Messages
from cohere.v2.client import V2Client
from google.genai import types as gemini
from openai.types.audio.speech_create_params import SpeechCreateParams
from openai.types.audio.transcription_create_params import TranscriptionCreateParamsBase
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as Chat
from openai.types.completion_create_params import CompletionCreateParamsBase as Completions
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.image_generate_params import ImageGenerateParamsBase
from openai.types.moderation_create_params import ModerationCreateParams
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from pydantic.alias_generators import to_camel

from broker.simulate import anthropic_shapes, cohere_shapes, gemini_shapes, openai_media, openai_responses, openai_text
from broker.simulate.openai_shapes import CHAT, EMBEDDINGS
from broker.simulate.shapes import Shape

STREAM = {"stream"}
"""The packages have it in types of its own."""
SAMPLING = {"temperature", "top_k", "top_p"}
"""Of version 2023-06-01; the package sends a newer one, which has them no more."""


@pytest.mark.parametrize(
    ("ours", "theirs", "more"),
    [
        (CHAT, Chat, STREAM),
        (EMBEDDINGS, EmbeddingCreateParams, set()),
        (openai_text.COMPLETIONS, Completions, STREAM),
        (openai_responses.RESPONSES, ResponseCreateParamsBase, STREAM),
        (openai_media.MODERATIONS, ModerationCreateParams, set()),
        (openai_media.IMAGES, ImageGenerateParamsBase, STREAM),
        (openai_media.SPEECH, SpeechCreateParams, set()),
        (anthropic_shapes.MESSAGES, Messages, STREAM | SAMPLING),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_openai_s_and_anthropic_s_fields(ours: Mapping[str, Shape], theirs: type, more: set[str]) -> None:
    assert set(ours) == set(get_type_hints(theirs)) | more


def test_the_fields_of_a_transcription_s_form() -> None:
    ours = {name.removesuffix("[]") for name in openai_media.TRANSCRIPTION}
    assert ours == set(get_type_hints(TranscriptionCreateParamsBase)) | STREAM


@pytest.mark.parametrize(
    ("ours", "method", "more"),
    [
        (cohere_shapes.CHAT, "chat", STREAM),
        (cohere_shapes.EMBED, "embed", set()),
        (cohere_shapes.RERANK, "rerank", set()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_cohere_s_fields(ours: Mapping[str, Shape], method: str, more: set[str]) -> None:
    theirs = set(inspect.signature(getattr(V2Client, method)).parameters) - {"self", "request_options"}
    assert set(ours) == theirs | more


def camel_fields(model: Any) -> set[str]:
    return {to_camel(name) for name in model.model_fields}


def test_gemini_s_parts() -> None:
    assert gemini_shapes.DATA.keys() | gemini_shapes.BESIDE.keys() == camel_fields(gemini.Part)


def test_gemini_s_generation_config() -> None:
    assert camel_fields(gemini.GenerationConfig) - gemini_shapes.CONFIG.keys() == set()
    assert gemini_shapes.CONFIG.keys() - camel_fields(gemini.GenerationConfig) == {"imageConfig"}


def test_gemini_s_tools() -> None:
    assert {*gemini_shapes.SERVED, "functionDeclarations"} == camel_fields(gemini.Tool)


def test_gemini_takes_the_proto_s_names_too_and_leaves_what_is_the_caller_s() -> None:
    body = {"system_instruction": {"parts": [{"inline_data": {"mime_type": "a/b", "data": ""}}]},
            "tools": [{"function_declarations": [{"name": "f", "parameters": {"max_tokens": 1}}]}],
            "generation_config": {"max_tokens": 1}}  # fmt: skip
    assert gemini_shapes.camel(body) == {
        "systemInstruction": {"parts": [{"inlineData": {"mimeType": "a/b", "data": ""}}]},
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": {"max_tokens": 1}}]}],
        "generationConfig": {"max_tokens": 1},
    }
