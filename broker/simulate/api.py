"""What one simulated API is: how it checks a request, answers, streams and fails. The three of them are modules."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

Body = Mapping[str, Any]


class Refused(Exception):
    """The API refuses a request; `status` and `kind` are the provider's own."""

    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param


@dataclass(frozen=True)
class Wanted:
    """What a valid request asks for, whatever its API calls it."""

    model: str
    prompt: str
    """All texts that are sent, for counting tokens."""
    most: int | None = None
    """Bound on the output tokens."""
    streams: bool = False
    tool: tuple[str, Mapping[str, Any]] | None = None
    """The function that has to be called, and its schema."""
    schema: Mapping[str, Any] | None = None
    """What the answer has to fit."""
    texts: int = 1
    """Embeddings: how many."""
    more: dict[str, Any] = field(default_factory=dict)


def refuse(message: str, param: str | None = None) -> NoReturn:
    """Refuse a request as malformed."""
    raise Refused(400, message, param=param)


def only(body: Body, known: frozenset[str], where: str = "") -> None:
    """Refuse a field the API does not have."""
    for name in body:
        if name not in known:
            refuse(f"{where}{name}: extra inputs are not permitted", f"{where}{name}")


def need(body: Body, name: str, kind: type | tuple[type, ...], where: str = "") -> Any:  # noqa: ANN401 - any JSON
    """Return a field that has to be there and of a type."""
    value = body.get(name)
    if isinstance(value, bool) and kind is not bool:
        value = None
    if not isinstance(value, kind):
        refuse(f"{where}{name}: field required, or of the wrong type", f"{where}{name}")
    return value


def between(body: Body, name: str, low: float, high: float) -> None:
    """Refuse a number that is none, or out of its range."""
    value = body.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        refuse(f"{name}: a number from {low:g} to {high:g} is expected", name)
