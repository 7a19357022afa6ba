"""The error body of the OpenAI API: the value of every reply whose status is not 200."""

from pydantic import BaseModel, ConfigDict


class ErrorDetail(BaseModel):
    """What went wrong. `code` is a string in OpenAI's API, never a number."""

    model_config = ConfigDict(frozen=True, extra="allow")

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """`{"error": {…}}`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    error: ErrorDetail
