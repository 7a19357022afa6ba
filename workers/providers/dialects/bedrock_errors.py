"""Bedrock's errors: by status, then by the exception's name, then by words. Pure.

docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html, …/APIReference/CommonErrors.html, and
the exceptions of botocore's model, each with its status.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from broker.errors import RequestError
from workers.providers import openai

STATUSES: Final = {
    "AccessDeniedException": 403, "ValidationException": 400, "ModelTimeoutException": 408, "ModelErrorException": 424,
    "ModelStreamErrorException": 424, "ModelNotReadyException": 429, "ThrottlingException": 429,
    "ResourceNotFoundException": 404, "ConflictException": 400, "InternalServerException": 500,
    "ServiceUnavailableException": 503, "ServiceQuotaExceededException": 429,
}  # fmt: skip
"""Status by exception: of those inside a stream, which have none, and of those whose own says the wrong thing.

A service quota that is spent says 400, and that the request may be sent again later: that is a limit.
"""
_OVERRULED: Final = frozenset({"ServiceQuotaExceededException"})

_UNAUTHORIZED: Final = frozenset(
    {"IncompleteSignature", "IncompleteSignatureException", "RequestExpired", "NotAuthorized",
     "MissingAuthenticationToken", "MissingAuthenticationTokenException", "OptInRequired"}
)  # fmt: skip
"""Faults of the deployment's credential that come with status 400: they count as 401, or the caller would be blamed."""
_REQUEST: Final = 400

CODES: Final = {
    "ThrottlingException": "rate_limit_exceeded", "ServiceQuotaExceededException": "quota_exceeded",
}  # fmt: skip
"""Codes that OpenAI has a word for."""

_CONTEXT: Final = (
    "input is too long", "too many input tokens", "input tokens exceeded", "exceeds the maximum number of input tokens",
    "exceed context limit", "exceeds the model's maximum context length", "maximum context length",
    "too many tokens: ",
    "input length and `max_tokens`", "expected maxlength:", "prompt: length: 1..",
)  # fmt: skip
_MODEL: Final = ("provided model identifier is invalid", "on-demand throughput isn", "model isn't supported")
"""Faults of the deployment that come as a malformed request: it names a model that is not there, or not in this way."""
_CONTENT: Final = ("blocked by our content filters", "blocked by content filter", "content filtered")


def error(status: int, headers: Mapping[str, str], raw: bytes, now: float) -> RequestError:
    """Return the error of an answer whose status is not 2xx; `now` is unix seconds."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    told = body if isinstance(body, dict) else {}
    if isinstance(told.get("Output"), dict):
        told = told["Output"]  # AWS's own gateway, where no service was reached
    kind = kind_of(headers, told)
    if not kind and not message_of(told):
        return openai.error(status, headers, raw, now)
    return _typed(status, kind, told, headers, now)


def in_stream(kind: str, told: object) -> RequestError:
    """Return the error of an exception inside a stream; the model's own status counts where the event tells it."""
    found = told if isinstance(told, dict) else {}
    name = kind[:1].upper() + kind[1:]
    original = found.get("originalStatusCode")
    status = original if isinstance(original, int) and 400 <= original <= 599 else STATUSES.get(name, 500)  # noqa: PLR2004
    return _typed(status, name, found, {}, 0.0)


def kind_of(headers: Mapping[str, str], body: Mapping[str, Any]) -> str:
    """Return the name of an exception: from its header, else from the body; without namespace and address."""
    for value in (headers.get("x-amzn-errortype"), body.get("__type"), body.get("code")):
        if isinstance(value, str) and value:
            return value.partition(":")[0].rpartition("#")[2]
    return ""


def message_of(body: Mapping[str, Any]) -> str:
    """Return what an exception says; empty where it says nothing."""
    for name in ("message", "Message", "errorMessage", "originalMessage"):
        value = body.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def _typed(status: int, kind: str, body: Mapping[str, Any], headers: Mapping[str, str], now: float) -> RequestError:
    message = message_of(body) or kind
    if kind in _OVERRULED:
        status = STATUSES[kind]
    elif status == _REQUEST and kind in _UNAUTHORIZED:
        status = 401
    code = CODES.get(kind)
    words = message.lower()
    if status == _REQUEST and any(part in words for part in _CONTEXT):
        code = "context_length_exceeded"
    elif status == _REQUEST and any(part in words for part in _CONTENT):
        code = "content_filter"
    elif status == _REQUEST and any(part in words for part in _MODEL):
        code = "model_not_found"
    told = {"message": message, "type": kind or None, "code": code}
    return openai.error(status, headers, orjson.dumps({"error": told}), now)
