"""A request as an application writes it, and how it becomes the record of the wire contract. Imports no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from broker.envelope import NewRequest
from broker.errors import InvalidRequest, ModelNotFound
from broker.topics import ALIAS_PATTERN, Lane
from schemas.request import CHAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a request is treated, beside what its body asks for; None leaves it to the broker."""

    deadline: float | None = None
    """Seconds from sending; work past it is never started."""
    priority: int | None = None
    """0 (first) … 9 inside the lane."""
    lane: Lane = Lane.INTERACTIVE
    tags: Mapping[str, str] | None = None
    """Lands in the ledger."""
    metadata: Any = None
    """Anything JSON can say; comes back in the reply's `metadata`."""
    idempotency_key: str | None = None
    traceparent: str | None = None


DEFAULTS = Options()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of any endpoint. `body` is an OpenAI body; one without `model` gets the alias as its model.

    The same `request_id` sent again is the same request; without one it gets a new id.
    """

    alias: str
    body: Mapping[str, Any]
    endpoint: str = CHAT
    options: Options = DEFAULTS
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Whom a client sends as, and where its replies go: what all its requests share."""

    reply_to: str
    reply_partition: int
    key: str | None
    alias_names: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Sender(reply_to={self.reply_to!r}, reply_partition={self.reply_partition})"

    def address(self, request: Request, request_id: str, now_ms: int) -> NewRequest:
        """Complete a request. Raises `ModelNotFound` for a name no alias can have, `InvalidRequest` for a bad body."""
        alias = self.alias_names.get(request.alias, request.alias)
        if not ALIAS_PATTERN.fullmatch(alias):
            raise ModelNotFound(f"no alias can be named {alias!r}", param="model")
        options = request.options
        return NewRequest(
            alias=alias,
            body=_json({"model": request.alias, **request.body}, "body"),
            request_id=request_id,
            lane=options.lane,
            endpoint=request.endpoint,
            reply_to=self.reply_to,
            reply_partition=self.reply_partition,
            key=self.key,
            deadline=None if options.deadline is None else now_ms + round(options.deadline * 1000),
            priority=options.priority,
            idempotency_key=options.idempotency_key,
            tags=options.tags,
            metadata=None if options.metadata is None else _json(options.metadata, "metadata"),
            traceparent=options.traceparent,
        )


def _json(value: Any, param: str) -> bytes:  # noqa: ANN401 - whatever the application gives
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise InvalidRequest(f"{param} cannot be written as JSON: {error}", param=param) from None
