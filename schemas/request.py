"""The shapes a request body must have, one model an endpoint; fields we do not act on pass through untouched."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
EMBEDDINGS: Final = "/v1/embeddings"


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


BODIES: Final[dict[str, type[_Body]]] = {
    CHAT: ChatCompletionRequest,
    COMPLETIONS: CompletionRequest,
    EMBEDDINGS: EmbeddingRequest,
}
"""Endpoint path to the shape its body must have; an endpoint that is not here is not served."""
