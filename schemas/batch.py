"""Lines of OpenAI batch files: input, output and error file have these shapes."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class BatchLine(BaseModel):
    """One line of an input file."""

    model_config = ConfigDict(extra="ignore", strict=True)

    custom_id: str = Field(min_length=1)
    method: Literal["POST"] = "POST"
    url: str = "/v1/chat/completions"
    body: dict[str, Any]


class BatchResponse(BaseModel):
    """`response` of an output line."""

    model_config = ConfigDict(frozen=True)

    status_code: int
    request_id: str
    body: dict[str, Any]


class BatchError(BaseModel):
    """`error` of a line that never became an HTTP answer."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str


class BatchOutputLine(BaseModel):
    """One line of an output or error file; exactly one of `response` and `error` is set."""

    model_config = ConfigDict(frozen=True)

    id: str
    custom_id: str
    response: BatchResponse | None = None
    error: BatchError | None = None
