"""The error tree. Each class carries the status, code and type a reply sends; none of them imports a client library.

BrokerError
├── ConfigError                   the configuration cannot be used; ends a command with exit code 2
├── Unavailable                   a part we need (log, Redis, ClickHouse) cannot be reached
└── RequestError                  ends one request with a reply; `status`, `code`, `type`, `param`
    ├── InvalidRequest            400 invalid_request
    │   └── Undecodable           400 invalid_request, and a dead letter
    ├── ContextLengthExceeded     400 context_length_exceeded
    ├── ContentPolicyViolation    400 content_policy_violation
    ├── InvalidApiKey             401 invalid_api_key
    ├── ModelNotAllowed           403 model_not_allowed
    ├── ModelNotFound             404 model_not_found
    ├── UpstreamTimeout           408 upstream_timeout
    ├── RequestIdConflict         409 request_id_conflict
    ├── AnswerExpired             410 answer_expired
    ├── BudgetExceeded            422 budget_exceeded
    ├── RateLimitExceeded         429 rate_limit_exceeded, with `retry_after`
    ├── Cancelled                 499 cancelled
    ├── InternalError             500 internal_error, and a dead letter
    ├── Poisoned                  500 poisoned, and a dead letter
    ├── BadUpstreamResponse       502 bad_upstream_response
    ├── UpstreamUnreachable       502 upstream_unreachable
    ├── OutcomeUnknown            502 outcome_unknown
    ├── DeadlineExceeded          504 deadline_exceeded
    └── UpstreamError             the upstream's own status, code and message
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final

import orjson

RETRIABLE_STATUSES: Final = frozenset({408, 409, 429})
"""Statuses below 500 after which the same call may succeed (delivery.md)."""


class Fault(StrEnum):
    """What an upstream's error says is wrong: by its status, then by its typed field, only then by its words."""

    BAD_REQUEST = "bad_request"
    """The request itself; no deployment of this kind would take it."""
    AUTH = "auth"
    """The deployment's credential, or what it may do."""
    NOT_FOUND = "not_found"
    """The deployment's model or address."""
    QUOTA = "quota"
    """The deployment's account is spent: waiting does not help, another deployment does."""
    RATE_LIMIT = "rate_limit"
    """Too much at once: it passes."""
    OVERLOADED = "overloaded"
    """The provider has too much to do: it passes."""
    TIMEOUT = "timeout"
    SERVER = "server"
    """The provider failed."""


_FAULTS: Final = {
    401: Fault.AUTH,
    402: Fault.QUOTA,
    403: Fault.AUTH,
    404: Fault.NOT_FOUND,
    408: Fault.TIMEOUT,
    429: Fault.RATE_LIMIT,
    503: Fault.OVERLOADED,
    504: Fault.TIMEOUT,
    529: Fault.OVERLOADED,
}
"""By status (RFC 9110; 529 is Anthropic's); every other one below 500 is the request's, the rest the server's."""

DEPLOYMENT_FAULTS: Final = frozenset({Fault.AUTH, Fault.NOT_FOUND, Fault.QUOTA})
"""Faults of a deployment, not of the request: it cools down, and another one is called (delivery.md)."""


def fault_of(status: int) -> Fault:
    """Return what a status by itself says is wrong."""
    return _FAULTS.get(status) or (Fault.SERVER if status >= 500 else Fault.BAD_REQUEST)  # noqa: PLR2004 - HTTP class


def is_retriable(status: int) -> bool:
    """Whether a call that ended with `status` may be tried again."""
    return status >= 500 or status in RETRIABLE_STATUSES  # noqa: PLR2004 - the HTTP class of server errors


class BrokerError(Exception):
    """Root of every error this project raises on purpose."""


class ConfigError(BrokerError):
    """The configuration cannot be used; the message names the field."""


class Unavailable(BrokerError):
    """A part the broker needs cannot be reached; nothing is lost, the caller may try again."""


class RequestError(BrokerError):
    """Ends one request, or one attempt of it."""

    status: int = 500
    code: str = "internal_error"
    type: ClassVar[str] = "api_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after

    @property
    def retriable(self) -> bool:
        """Whether another attempt may succeed."""
        return is_retriable(self.status)

    def body(self) -> dict[str, Any]:
        """Return the OpenAI error body."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def encode(self, **extra: object) -> bytes:
        """Return the body as JSON, with `extra` beside the message; text that is not Unicode is mended."""
        body = self.body()
        body["error"].update(extra)
        try:
            return orjson.dumps(body)
        except TypeError:
            body["error"]["message"] = self.message.encode("utf-8", "replace").decode()
            return orjson.dumps(body, default=str)


class InvalidRequest(RequestError):
    """The body is not JSON, not the endpoint's shape, or has a parameter the target cannot take."""

    status, code, type = 400, "invalid_request", "invalid_request_error"


class Undecodable(InvalidRequest):
    """The record cannot be read at all; it is dead-lettered as well."""


class ContextLengthExceeded(RequestError):
    """The conversation does not fit the model."""

    status, code, type = 400, "context_length_exceeded", "invalid_request_error"


class ContentPolicyViolation(RequestError):
    """The provider refuses the content."""

    status, code, type = 400, "content_policy_violation", "invalid_request_error"


class InvalidApiKey(RequestError):
    """The virtual key is unknown, expired or blocked."""

    status, code, type = 401, "invalid_api_key", "authentication_error"


class ModelNotAllowed(RequestError):
    """The key may not use this alias."""

    status, code, type = 403, "model_not_allowed", "permission_error"


class ModelNotFound(RequestError):
    """No such alias."""

    status, code, type = 404, "model_not_found", "invalid_request_error"


class UpstreamTimeout(RequestError):
    """The call took longer than its timeout."""

    status, code, type = 408, "upstream_timeout", "timeout_error"


class RequestIdConflict(RequestError):
    """The request id belongs to a request of another tenant."""

    status, code, type = 409, "request_id_conflict", "invalid_request_error"


class AnswerExpired(RequestError):
    """The same request was answered before, and its body is no longer kept; it is not called again."""

    status, code, type = 410, "answer_expired", "invalid_request_error"


class BudgetExceeded(RequestError):
    """The key, or its tenant, has spent its budget."""

    status, code, type = 422, "budget_exceeded", "budget_error"


class RateLimitExceeded(RequestError):
    """The caller's own key is over its limit; `retry_after` is the true remaining time in seconds."""

    status, code, type = 429, "rate_limit_exceeded", "rate_limit_error"


class Cancelled(RequestError):
    """Cancelled through the control topic."""

    status, code, type = 499, "cancelled", "cancelled_error"


class InternalError(RequestError):
    """A defect of ours met this request; the record is dead-lettered so that it can be replayed."""

    status, code = 500, "internal_error"


class Poisoned(RequestError):
    """Every worker that called for this request died or stalled; it is dead-lettered and not called again."""

    status, code = 500, "poisoned"


class BadUpstreamResponse(RequestError):
    """The upstream answered something that is not the contract."""

    status, code = 502, "bad_upstream_response"


class UpstreamUnreachable(RequestError):
    """No connection, or one that broke before an answer."""

    status, code = 502, "upstream_unreachable"


class OutcomeUnknown(RequestError):
    """A worker died during the call, and the alias asks that such calls are not repeated (`on_unknown: fail`)."""

    status, code = 502, "outcome_unknown"


class ReplyUndeliverable(RequestError):
    """The log refuses the reply for good (too large, no such topic); the answer stays readable by request id."""

    status, code = 502, "reply_undeliverable"


class DeadlineExceeded(RequestError):
    """The request's deadline passed, queued or running."""

    status, code, type = 504, "deadline_exceeded", "timeout_error"


class UpstreamError(RequestError):
    """The upstream's own error: its status and its body in OpenAI's shape."""

    def __init__(  # noqa: PLR0913 - the fields of the OpenAI error body
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        kind: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        fault: Fault | None = None,
    ) -> None:
        super().__init__(message, param=param, retry_after=retry_after)
        self.status = status
        self.fault = fault or fault_of(status)
        self.code = code or f"upstream_{status}"
        self.headers: Mapping[str, str] = {}
        """The provider's rate-limit headers, names in lower case."""
        self.kind = kind or ("rate_limit_error" if status == 429 else "api_error")  # noqa: PLR2004 - HTTP status

    def body(self) -> dict[str, Any]:
        """Return the OpenAI error body with the upstream's own type."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}
