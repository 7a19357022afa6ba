"""Answers as applications read them: OpenAI bodies with attributes, and how the broker came by them in `.reply`.

Fields that are not listed here are kept and readable as attributes too. Imports pydantic, the envelope and no I/O.
"""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from broker.client.errors import bad_body
from broker.envelope import Reply


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Usage(_Part):
    """Tokens, as the provider counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class Function(_Part):
    """Name of a function the model wants called, and its arguments as JSON text."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(_Part):
    """One call of a tool; in a chunk only the fields that are new."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function = Function()


class Message(_Part):
    """What the model said; in a chunk (`delta`) only what is new."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(_Part):
    """One of `n` answers."""

    index: int = 0
    message: Message = Message()
    finish_reason: str | None = None


class TextChoice(_Part):
    """One of `n` continuations."""

    index: int = 0
    text: str = ""
    finish_reason: str | None = None


class ChunkChoice(_Part):
    """What is new in one of `n` answers."""

    index: int = 0
    delta: Message = Message()
    finish_reason: str | None = None


class Vector(_Part):
    """Embedding of one input: floats, or base64 text where `encoding_format` asked for it."""

    index: int = 0
    embedding: list[float] | str = []


class _Answer(_Part):
    """A body and the reply record that brought it."""

    _reply: Reply = PrivateAttr()

    @property
    def reply(self) -> Reply:
        """The reply record: request_id, served_by, attempts, fallbacks, cost (USD or None), queue_ms, upstream_ms."""
        return self._reply

    @classmethod
    def of(cls, reply: Reply) -> Self:
        """Read the body of a reply; raises `RequestFailed` (502) where it is not this endpoint's."""
        try:
            answer = cls.model_validate(reply.body())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = ".".join(str(part) for part in first["loc"]) or "body"
            raise bad_body(reply, f"the reply is no {cls.__name__}: {path}: {first['msg']}") from None
        except ValueError as error:
            raise bad_body(reply, f"the reply's body is not JSON: {error}") from None
        answer._reply = reply  # noqa: SLF001 - the class's own private field
        return answer


class ChatCompletion(_Answer):
    """Answer of `/v1/chat/completions`."""

    id: str = ""
    model: str = ""
    created: int = 0
    choices: list[Choice]
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """Content of the first choice; empty where the model called tools instead."""
        return (self.choices[0].message.content or "") if self.choices else ""


class Completion(_Answer):
    """Answer of `/v1/completions`."""

    id: str = ""
    model: str = ""
    created: int = 0
    choices: list[TextChoice]
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """Text of the first choice."""
        return self.choices[0].text if self.choices else ""


class Embeddings(_Answer):
    """Answer of `/v1/embeddings`."""

    model: str = ""
    data: list[Vector]
    usage: Usage | None = None


class ChatChunk(_Answer):
    """One piece of a streamed chat completion. When `attempt` grows, the text begins anew: forget what came before."""

    id: str = ""
    model: str = ""
    created: int = 0
    choices: list[ChunkChoice] = []
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """New content of the first choice; empty where there is none."""
        return (self.choices[0].delta.content or "") if self.choices else ""

    @property
    def attempt(self) -> int:
        """Attempt that produced the piece."""
        return self._reply.attempt

    @property
    def seq(self) -> int:
        """Position in the attempt's stream, from 0."""
        return self._reply.seq or 0


def usage_of(body: Any) -> tuple[int, int]:  # noqa: ANN401 - whatever JSON the provider answered
    """Input and output tokens of a body; zeros where it tells none."""
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return 0, 0
    counted = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    tokens_in, tokens_out = (count if isinstance(count, int) else 0 for count in counted)
    return tokens_in, tokens_out
