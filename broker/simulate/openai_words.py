"""How OpenAI words its errors and limits; Azure has the most of it too.

Sources: platform.openai.com/docs/guides/error-codes, …/guides/rate-limits ("Rate limits in headers"), and what the
`openai` package's exceptions read of a body (`code`, `param`, `type`).
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from broker.simulate.api import Api, Failure, Limits, Refused, Sent, bearer, sse
from broker.simulate.shapes import Wrong, indexed, kind_of

TYPES: Final = {401: "invalid_request_error", 429: "requests", 500: "server_error", 503: "server_error"}
CODES: Final = {
    "auth": "invalid_api_key", "rate": "rate_limit_exceeded", "quota": "insufficient_quota",
    "model": "model_not_found", "context": "context_length_exceeded", "policy": "content_policy_violation",
    "permission": "unsupported_country_region_territory",
}  # fmt: skip
WORDS: Final = {
    "auth": "Incorrect API key provided: ****. You can find your API key at"
    " https://platform.openai.com/account/api-keys.",
    "quota": "You exceeded your current quota, please check your plan and billing details.",
    "rate": "Rate limit reached for requests.",
    "model": "The model `{model}` does not exist or you do not have access to it.",
    "policy": "Your request was rejected as a result of our safety system.",
    "overloaded": "The engine is currently overloaded, please try again later",
    "unavailable": "That model is currently overloaded with other requests. You can retry your request.",
}


def authorize(sent: Sent) -> None:
    """Refuse a call without a key."""
    if bearer(sent) is None:
        raise Refused(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
            "auth (i.e. Authorization: Bearer YOUR_KEY).",
            "auth",
        )


RULES: Final[Mapping[str, tuple[str, str]]] = {
    "unknown": ("Unknown parameter: '{name}'.", "unknown_parameter"),
    "missing": ("Missing required parameter: '{name}'.", "missing_required_parameter"),
    "type": ("Invalid type for '{name}': expected {bound}, but got {kind} instead.", "invalid_type"),
    "value": ("Invalid value: '{got}'. Supported values are: {allowed}.", "invalid_value"),
    "low": ("Invalid '{name}': {number} below minimum value. Expected a value >= {bound}.", "{number}_below_min_value"),
    "high": (
        "Invalid '{name}': {number} above maximum value. Expected a value <= {bound}.",
        "{number}_above_max_value",
    ),
    "few": ("Invalid '{name}': empty array. Expected an array with minimum length {bound}.", "empty_array"),
    "many": (
        "Invalid '{name}': array too long. Expected an array with maximum length {bound}.",
        "array_above_max_length",
    ),
    "short": ("Invalid '{name}': empty string. Expected a string with minimum length {bound}.", "empty_string"),
    "long": (
        "Invalid '{name}': string too long. Expected a string with maximum length {bound}.",
        "string_above_max_length",
    ),
    "form": ("Invalid '{name}'. Expected {bound}.", "invalid_value"),
}
"""Rule → message and code."""


def phrase(wrong: Wrong) -> Refused:
    """Word a broken rule."""
    kind = kind_of(wrong.got)
    allowed = wrong.expected if isinstance(wrong.expected, tuple) else ()
    words = {
        "name": indexed(wrong.place),
        "bound": wrong.expected,
        "got": wrong.got,
        "kind": f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}",
        "number": "integer" if isinstance(wrong.got, int) else "decimal",
        "allowed": ", ".join(f"'{value}'" for value in allowed),
    }
    message, code = (told.format(**words) for told in RULES[wrong.rule])
    return Refused(message, param=indexed(wrong.place), code=code)


def fail(refused: Refused) -> Failure:
    """Write an error."""
    status = 503 if refused.reason == "overloaded" else refused.status
    kind = "insufficient_quota" if refused.reason == "quota" else TYPES.get(status, "invalid_request_error")
    if refused.reason == "server" and status not in TYPES:
        kind = "server_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004 - server errors
    code = refused.code or CODES.get(refused.reason)
    told: dict[str, Any] = {"message": refused.message, "type": kind, "param": refused.param, "code": code}
    return Failure(status, {"error": told}, wait_headers(refused))


def wait_headers(refused: Refused) -> dict[str, str]:
    """Tell how long to wait, in milliseconds and in seconds."""
    if refused.wait <= 0:
        return {}
    return {"retry-after-ms": str(max(1, round(refused.wait * 1000))), "retry-after": str(math.ceil(refused.wait))}


def duration(seconds: float) -> str:
    """Write a time as the reset headers do: `6m0s`, `1.5s`, `20ms`."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    told = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + told


def limit_headers(limits: Limits) -> Mapping[str, str]:
    """Tell what is left."""
    headers: dict[str, str] = {}
    for name, limit, left, reset in (
        ("requests", limits.rpm, limits.requests_left, limits.requests_reset),
        ("tokens", limits.tpm, limits.tokens_left, limits.tokens_reset),
    ):
        if limit is not None:
            headers |= {
                f"x-ratelimit-limit-{name}": str(limit),
                f"x-ratelimit-remaining-{name}": str(left),
                f"x-ratelimit-reset-{name}": duration(reset),
            }
    return headers


def context(tokens: int, window: int) -> Refused:
    """Word a prompt that is too long."""
    return Refused(
        f"This model's maximum context length is {window} tokens. However, your messages resulted in {tokens} tokens. "
        "Please reduce the length of the messages.",
        "context",
        param="messages",
    )


def crowded(prompt: int, most: int, window: int) -> Refused:
    """Word a prompt that leaves too little room for the answer."""
    return Refused(
        f"This model's maximum context length is {window} tokens. However, you requested {prompt + most} tokens "
        f"({prompt} in the messages, {most} in the completion). Please reduce the length of the messages or "
        "completion.",
        "context",
        param="messages",
    )


OPENAI: Final = Api(
    name="openai",
    phrase=phrase,
    fail=fail,
    limits=limit_headers,
    context=context,
    crowded=crowded,
    error_event=lambda failure: sse(failure.body),
    identify=lambda identity: {"x-request-id": f"req_{identity}", "openai-version": "2020-10-01"},
    words=WORDS,
)
