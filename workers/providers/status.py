"""What an upstream's error means: by status first, then by its typed error fields, only then by its text. Pure."""

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from broker.errors import (
    ContentPolicyViolation,
    ContextLengthExceeded,
    RequestError,
    UpstreamError,
)

CONTEXT_CODES: Final = frozenset({"context_length_exceeded", "string_above_max_length", "model_max_length_exceeded"})
CONTENT_CODES: Final = frozenset({"content_policy_violation", "content_filter", "moderation_blocked"})

_CONTEXT_TEXTS: Final = (
    "maximum context length",
    "context length exceeded",
    "exceeds the available context size",
    "exceed_context_size_error",
    "context window",
    "prompt is too long",
)
"""What servers say that have no code for it: vLLM, llama.cpp, and others of the OpenAI API's family."""

_CONTENT_TEXTS: Final = ("content management policy", "content policy", "safety system")

_CLIENT_STATUSES: Final = frozenset({400, 413, 422})
"""Statuses under which a request itself can be at fault."""

MAX_MESSAGE: Final = 2_000
"""Characters of an upstream's message that are kept: some echo the whole prompt."""

SECONDS_A_DAY: Final = 86_400.0


def upstream_error(status: int, body: object, headers: Mapping[str, str], now: float) -> RequestError:
    """Return the error of an answer whose status, or whose body, says that the call failed.

    `body` is the parsed JSON, or text where it was none. `now` is unix seconds, for a Retry-After that is a date.
    """
    message, code, kind, param = _fields(status, body)
    retry_after = retry_after_seconds(headers, now)
    if status in _CLIENT_STATUSES:
        text = message.lower()
        if code in CONTEXT_CODES or kind == "exceed_context_size_error":
            return ContextLengthExceeded(message, param=param)
        if code in CONTENT_CODES:
            return ContentPolicyViolation(message, param=param)
        if any(phrase in text for phrase in _CONTEXT_TEXTS):
            return ContextLengthExceeded(message, param=param)
        if any(phrase in text for phrase in _CONTENT_TEXTS):
            return ContentPolicyViolation(message, param=param)
    return UpstreamError(message, status=status, code=code, kind=kind, param=param, retry_after=retry_after)


def error_status(body: Mapping[str, Any]) -> int | None:
    """Return the status of an error that came in a body with status 200 or in a stream; None where it names none."""
    error = body.get("error")
    if isinstance(error, Mapping):
        for name in ("status", "code"):
            value = error.get(name)
            number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
            if isinstance(number, int) and 400 <= number <= 599:  # noqa: PLR2004 - HTTP's error statuses
                return number
    return None


def _fields(status: int, body: object) -> tuple[str, str | None, str | None, str | None]:
    error: object = body
    if isinstance(body, Mapping):
        error = body.get("error", body)
    if isinstance(error, Mapping):
        # Most say `message`; FastAPI-based servers say `detail`.
        message = error.get("message") or error.get("detail") or error.get("error")
        return (
            _text(message) or f"the upstream answered {status}",
            _text(error.get("code")),
            _text(error.get("type")),
            _text(error.get("param")),
        )
    return _text(error) or f"the upstream answered {status}", None, None, None


def _text(value: object) -> str | None:
    """Return a field as text: `error.code` must be a string in the OpenAI body, and some upstreams send a number."""
    if value is None or value == "":
        return None
    return (value if isinstance(value, str) else str(value))[:MAX_MESSAGE]


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait, as the upstream's headers say; None where they do not, at most a day.

    `retry-after-ms` (OpenAI, Azure) is finer than `retry-after` (RFC 9110: seconds or a date) and goes first.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return min(milliseconds / 1000, SECONDS_A_DAY)
    text = headers.get("retry-after")
    if text is None:
        return None
    seconds = _number(text)
    if seconds is None:
        try:
            seconds = max(0.0, parsedate_to_datetime(text).timestamp() - now)
        except ValueError:
            return None
    return min(seconds, SECONDS_A_DAY)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
