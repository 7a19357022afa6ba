"""The shapes a request body must have, one model an endpoint; fields we do not act on pass through untouched."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
EMBEDDINGS: Final = "/v1/embeddings"
RESPONSES: Final = "/v1/responses"
MODERATIONS: Final = "/v1/moderations"
IMAGES: Final = "/v1/images/generations"
SPEECH: Final = "/v1/audio/speech"
TRANSCRIPTIONS: Final = "/v1/audio/transcriptions"
RERANK: Final = "/v1/rerank"
"""Cohere's shape, the one that rerank servers agree on."""


class _Body(BaseModel):
    """A body of the OpenAI API; unknown fields are the provider's business. Numbers and strings are not converted."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str | None = None
    stream: bool | None = None
    user: str | None = None
    n: int | None = Field(default=None, ge=1, le=128)


class ChatMessage(BaseModel):
    """One message of a conversation; `content` is a text, a list of parts, or absent beside tool calls."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: str = Field(min_length=1)
    content: str | list[dict[str, Any]] | None = None


class ChatCompletionRequest(_Body):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)


class CompletionRequest(_Body):
    """`POST /v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = Field(default=None, ge=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)


class EmbeddingRequest(_Body):
    """`POST /v1/embeddings`."""

    input: str | list[str] | list[int] | list[list[int]]
    dimensions: int | None = Field(default=None, ge=1)
    encoding_format: str | None = None


class ResponsesRequest(_Body):
    """`POST /v1/responses`."""

    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    background: bool | None = None


class ModerationRequest(_Body):
    """`POST /v1/moderations`."""

    input: str | list[str] | list[dict[str, Any]]


class ImageRequest(_Body):
    """`POST /v1/images/generations`."""

    prompt: str = Field(min_length=1)
    size: str | None = None
    response_format: str | None = None


class SpeechRequest(_Body):
    """`POST /v1/audio/speech`. The reply is JSON with the audio in base64: a record's value is no stream of bytes."""

    input: str = Field(min_length=1)
    voice: str | dict[str, Any]
    response_format: str | None = None
    speed: float | None = Field(default=None, ge=0.25, le=4)


class AudioFile(BaseModel):
    """A file inside a JSON body: its name, whose ending tells the format, and its bytes in base64."""

    model_config = ConfigDict(extra="forbid", strict=True)

    filename: str = Field(min_length=1, max_length=255)
    data: str = Field(min_length=1)


class TranscriptionRequest(_Body):
    """`POST /v1/audio/transcriptions`, which is a form over HTTP: `file` stands in base64 here."""

    file: AudioFile
    language: str | None = None
    prompt: str | None = None
    response_format: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=1)


class RerankRequest(_Body):
    """`POST /v1/rerank`."""

    query: str = Field(min_length=1)
    documents: list[str | dict[str, Any]] = Field(min_length=1)
    top_n: int | None = Field(default=None, ge=1)


BODIES: Final[dict[str, type[_Body]]] = {
    CHAT: ChatCompletionRequest,
    COMPLETIONS: CompletionRequest,
    EMBEDDINGS: EmbeddingRequest,
    RESPONSES: ResponsesRequest,
    MODERATIONS: ModerationRequest,
    IMAGES: ImageRequest,
    SPEECH: SpeechRequest,
    TRANSCRIPTIONS: TranscriptionRequest,
    RERANK: RerankRequest,
}
"""Endpoint path to the shape its body must have; an endpoint that is not here is not served."""
