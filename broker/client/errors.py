"""What the client raises beside the errors of `broker.errors`.

BrokerError
├── Unavailable                   Kafka cannot be reached, or the client is closed
├── RequestError                  the request cannot be sent: ModelNotFound, InvalidRequest
├── ReplyTimeout                  no final reply in time; the request may still be running
└── RequestFailed                 the final reply carries an error
"""

from typing import Any, Final

from broker.envelope import Reply
from broker.errors import BrokerError


class ReplyTimeout(BrokerError):
    """No final reply came within the timeout. The request was not cancelled: its answer can be read by `request_id`."""

    code: Final = "reply_timeout"
    status: Final = 408

    def __init__(self, request_id: str, seconds: float, *, why: str = "") -> None:
        reason = f" ({why})" if why else ""
        super().__init__(f"no reply to {request_id} within {seconds:g} s{reason}")
        self.request_id = request_id
        self.seconds = seconds


class RequestFailed(BrokerError):
    """The final reply is an error: `status` as HTTP sends it, `code` and `param` of the body, and the reply itself."""

    def __init__(self, reply: Reply, *, status: int, message: str, code: str | None, param: str | None) -> None:
        super().__init__(f"{status} {code or 'error'}: {message} [{reply.request_id}]")
        self.reply = reply
        self.status = status
        self.code = code
        self.param = param
        self.message = message

    @property
    def request_id(self) -> str:
        """Id of the request that failed."""
        return self.reply.request_id

    @property
    def body(self) -> Any:  # noqa: ANN401 - whatever JSON the provider answered
        """The reply's body as JSON; None where it is none."""
        return parsed(self.reply)


def parsed(reply: Reply) -> Any:  # noqa: ANN401 - whatever JSON the provider answered
    """Return the body of a reply, None where it is not JSON."""
    try:
        return reply.body()
    except ValueError:
        return None


def failure_of(reply: Reply) -> RequestFailed:
    """Build the exception that tells what an error reply says; tolerates any body."""
    body = parsed(reply)
    detail = body.get("error") if isinstance(body, dict) else None
    if not isinstance(detail, dict):
        detail = {"message": reply.value[:200].decode(errors="replace")}
    code, param = detail.get("code"), detail.get("param")
    return RequestFailed(
        reply,
        status=reply.status,
        message=str(detail.get("message") or "no message"),
        code=None if code is None else str(code),
        param=None if param is None else str(param),
    )


def bad_body(reply: Reply, why: str) -> RequestFailed:
    """Build the exception for a reply that says 200 and whose body is not what its endpoint answers."""
    return RequestFailed(reply, status=502, message=why, code="bad_upstream_response", param=None)
