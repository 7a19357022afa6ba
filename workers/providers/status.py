"""What an upstream's error means: by status first, then by its typed error fields, only then by its text. Pure.

Also how long the upstream asks us to wait. Imports broker errors.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final

from broker.errors import (
    BadUpstreamResponse,
    ContentPolicyViolation,
    ContextLengthExceeded,
    Fault,
    InvalidRequest,
    RequestError,
    UpstreamError,
    fault_of,
)

MAX_MESSAGE: Final = 2_000
"""Characters of an upstream's message that are kept: some echo the whole prompt."""

SECONDS_A_DAY: Final = 86_400.0

_FIRST_ERROR: Final = 400
_LAST_ERROR: Final = 599
_SERVER: Final = 500


class _Meaning(Enum):
    """What a status says by itself."""

    INPUT = "the request is at fault; its code, then its words, tell the kind"
    REFUSED = "the credential or the content is at fault; only its code tells which"
    UPSTREAM = "the upstream, its limits or the deployment are at fault"
    NOT_AN_ANSWER = "not a status this API answers with"


_MEANINGS: Final[dict[int, _Meaning]] = {
    400: _Meaning.INPUT,
    403: _Meaning.REFUSED,
    413: _Meaning.INPUT,
    422: _Meaning.INPUT,
}

_BY_CODE: Final[dict[str, type[RequestError]]] = {
    "context_length_exceeded": ContextLengthExceeded,  # OpenAI, Azure, Groq, Cerebras
    "context_window_exceeded": ContextLengthExceeded,
    "model_max_length_exceeded": ContextLengthExceeded,
    "exceed_context_size_error": ContextLengthExceeded,  # llama.cpp's server
    "content_policy_violation": ContentPolicyViolation,  # OpenAI
    "content_filter": ContentPolicyViolation,  # Azure
    "responsibleaipolicyviolation": ContentPolicyViolation,  # Azure, inner error
    "contentfilter": ContentPolicyViolation,  # Azure, images
    "moderation_blocked": ContentPolicyViolation,  # OpenAI images
    "data_inspection_failed": ContentPolicyViolation,  # DashScope
}
"""By the error's `code` or `type`, in lower case."""

_BY_WORDS: Final[tuple[tuple[str, type[RequestError]], ...]] = (
    ("maximum context length", ContextLengthExceeded),  # vLLM, DeepSeek, OpenRouter, Mistral, Fireworks
    ("maximum prompt length", ContextLengthExceeded),  # xAI
    ("available context size", ContextLengthExceeded),  # llama.cpp's server
    ("context length exceeded", ContextLengthExceeded),
    ("exceeds the context window", ContextLengthExceeded),
    ("prompt is too long", ContextLengthExceeded),
    ("input is too long for", ContextLengthExceeded),
    ("`inputs` tokens + `max_new_tokens` must be", ContextLengthExceeded),  # Together, TGI
    ("content management policy", ContentPolicyViolation),  # Azure
    ("content exists risk", ContentPolicyViolation),  # DeepSeek
    ("rejected as a result of our safety system", ContentPolicyViolation),  # OpenAI
    ("violates our usage policies", ContentPolicyViolation),
)
"""What servers say that have no code for it."""


_FAULTS_BY_CODE: Final[dict[str, Fault]] = {
    "insufficient_quota": Fault.QUOTA,  # OpenAI, with 429
    "billing_hard_limit_reached": Fault.QUOTA,  # OpenAI, with 400
    "billing_not_active": Fault.QUOTA,  # OpenAI, with 429
    "account_deactivated": Fault.AUTH,
    "billing_error": Fault.QUOTA,  # Anthropic
    "exceeded_current_quota_error": Fault.QUOTA,  # Moonshot, with 429
    "insufficient_balance": Fault.QUOTA,
    "overloaded_error": Fault.OVERLOADED,  # Anthropic
    "engine_overloaded_error": Fault.OVERLOADED,  # Moonshot, with 429
    "model_not_found": Fault.NOT_FOUND,  # OpenAI, Groq; also with 400
    "deploymentnotfound": Fault.NOT_FOUND,  # Azure
    "invalid_api_key": Fault.AUTH,  # also with 400
}
"""What a typed error field says beyond its status; `code` or `type`, in lower case."""

_FAULTS_BY_WORDS: Final[tuple[tuple[str, Fault], ...]] = (
    ("credit balance is too low", Fault.QUOTA),  # Anthropic, an invalid_request_error with 400
    ("exceeded your current quota, please check your plan and billing", Fault.QUOTA),  # OpenAI's, where code is lost
    ("insufficient balance", Fault.QUOTA),  # DeepSeek
)


@dataclass(frozen=True, slots=True)
class _Detail:
    """An upstream's error, whatever shape it came in. `flagged`: its data say that moderation refused."""

    message: str
    kind: str | None = None
    code: str | None = None
    param: str | None = None
    flagged: bool = False


def upstream_error(status: int, body: object, headers: Mapping[str, str], now: float) -> RequestError:
    """Return the error of an answer whose status, or whose body, says that the call failed.

    `body` is the parsed JSON, or text where it was none. `now` is unix seconds, for a Retry-After that is a date.
    """
    meaning = _MEANINGS.get(status, _Meaning.UPSTREAM if status >= _FIRST_ERROR else _Meaning.NOT_AN_ANSWER)
    if meaning is _Meaning.NOT_AN_ANSWER:
        return BadUpstreamResponse(f"the upstream answered {status}, which is neither an answer nor an error")
    detail = _detail(body) or _Detail(f"the upstream answered {status}")
    message = detail.message[:MAX_MESSAGE]
    if meaning is not _Meaning.UPSTREAM and (kind := _kind(detail, by_words=meaning is _Meaning.INPUT)):
        return kind(message, param=detail.param)
    fault = _fault(status, detail)
    if meaning is _Meaning.INPUT and detail.param is not None and fault is Fault.BAD_REQUEST:
        return InvalidRequest(message, param=detail.param)
    code = None if detail.code == str(status) else detail.code  # vLLM and OpenRouter repeat the status there
    return UpstreamError(
        message,
        status=status,
        code=code,
        kind=detail.kind,
        param=detail.param,
        retry_after=retry_after_seconds(headers, now),
        fault=fault,
    )


def _fault(status: int, detail: _Detail) -> Fault:
    """Return what is wrong, by the typed field where it says more than the status does, then by the words."""
    for text in (detail.code, detail.kind):
        if text and (fault := _FAULTS_BY_CODE.get(text.lower())):
            return fault
    words = detail.message.lower() if status < _SERVER else ""
    return next((fault for part, fault in _FAULTS_BY_WORDS if part in words), fault_of(status))


def _kind(detail: _Detail, *, by_words: bool) -> type[RequestError] | None:
    for text in (detail.code, detail.kind):
        if text and (kind := _BY_CODE.get(text.lower())):
            return kind
    if detail.flagged:
        return ContentPolicyViolation
    words = detail.message.lower() if by_words else ""
    return next((kind for part, kind in _BY_WORDS if part in words), None)


_STATUS_BY_CODE: Final[dict[str, int]] = {
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "overloaded_error": 503,
}
"""What a typed field of an error stands for that has no status: platform.openai.com/docs/guides/error-codes, and the
types of Anthropic's that gateways hand on."""


def error_status(body: Mapping[str, Any]) -> int | None:
    """Return the status of an error that came in a body with status 200 or in a stream; None where it names none."""
    error = body.get("error")
    if isinstance(error, Mapping):
        for name in ("status", "code", "status_code"):  # the last is Groq's, inside a stream
            value = error.get(name)
            number = int(value) if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value) else value
            if isinstance(number, int) and _FIRST_ERROR <= number <= _LAST_ERROR:
                return number
        for name in ("code", "type"):
            kind = error.get(name)
            if isinstance(kind, str) and kind.lower() in _STATUS_BY_CODE:
                return _STATUS_BY_CODE[kind.lower()]
    return None


def _detail(payload: object) -> _Detail | None:
    """Find the error in any of the shapes that OpenAI-compatible servers answer with; None where there is none.

    `{"error": {…}}` OpenAI · `{"error": "…"}` · `{"message": …, "type": …}` Mistral, vLLM · `{"detail": …}` FastAPI,
    a text or a list of `{"loc": […], "msg": …}` · a list with one of these inside, Gemini · plain text.
    """
    if isinstance(payload, list) and payload:
        payload = payload[0]
    if isinstance(payload, str):
        return _Detail(payload) if payload else None
    if not isinstance(payload, Mapping):
        return None
    error = payload.get("error") or payload
    if isinstance(error, str):
        return _Detail(error, _text(payload.get("type")), _text(payload.get("code")))
    if not isinstance(error, Mapping):
        return None
    message, param = _words(error.get("message", error.get("detail")))
    kind, code = _text(error.get("type")), _text(error.get("code"))
    inner = error.get("innererror", error.get("inner_error"))
    if isinstance(inner, Mapping) and str(inner.get("code", "")).lower() in _BY_CODE:
        code = str(inner["code"])
    metadata = error.get("metadata")
    flagged = isinstance(metadata, Mapping) and ("reasons" in metadata or "flagged_input" in metadata)  # OpenRouter
    if not (message or kind or code):
        return None
    return _Detail(message or kind or code or "", kind, code, _text(error.get("param")) or param, flagged)


def _words(message: object) -> tuple[str | None, str | None]:
    """Return message and parameter of a text, or of FastAPI's list of faults."""
    if isinstance(message, Mapping):
        message = message.get("detail", message.get("message"))
    if isinstance(message, list) and message and isinstance(message[0], Mapping):
        place = message[0].get("loc")
        param = ".".join(str(part) for part in place if part != "body") if isinstance(place, list) else None
        return _text(message[0].get("msg")), param or None
    return _text(message), None


def _text(value: object) -> str | None:
    """Return a field as text: `error.code` must be a string in the OpenAI body, and some upstreams send a number."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) and value != "" else None


_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": SECONDS_A_DAY}
_WINDOWS: Final = ("requests", "tokens")


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait, as the upstream's headers say; None where they do not, at most a day.

    `retry-after-ms` (OpenAI, Azure) is finer than `retry-after` (RFC 9110: seconds or a date) and goes first. A date
    is held against the answer's own `date`, so that skewed clocks do no harm. Without either, the windows that have
    nothing left tell when they reset (`x-ratelimit-reset-requests` and `-tokens` of OpenAI and Groq, as `6m0s`).
    """
    wait = _stated_wait(headers, now)
    return None if wait is None else min(wait, SECONDS_A_DAY)


def _stated_wait(headers: Mapping[str, str], now: float) -> float | None:
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    if text := headers.get("retry-after"):
        seconds = _number(text)
        return seconds if seconds is not None else _until(text, headers.get("date"), now)
    waits = [
        wait
        for window in _WINDOWS
        if headers.get(f"x-ratelimit-remaining-{window}") == "0"
        and (wait := _duration(headers.get(f"x-ratelimit-reset-{window}", ""))) is not None
    ]
    return max(waits, default=None)


def _number(text: str | None) -> float | None:
    """Read a plain decimal of at least zero, and nothing like `inf` or `1e9`."""
    return float(text) if text and re.fullmatch(r"\s*\d{1,15}(\.\d{1,15})?\s*", text) else None


def _until(text: str, date: str | None, now: float) -> float | None:
    with suppress(ValueError, TypeError, OverflowError):
        now = parsedate_to_datetime(date).timestamp() if date else now
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _duration(text: str) -> float | None:
    """Read `6m0s`, `20ms`, `2m59.56s`, or plain seconds."""
    if (seconds := _number(text)) is not None:
        return seconds
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
