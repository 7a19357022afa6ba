"""What clients write and read: a new request, a reply, a cancel control."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from broker.envelope import headers as h
from broker.records import OutRecord, Record
from broker.topics import Lane, TopicNames
from schemas.request import CHAT


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRequest:
    """A request as a client publishes it; what is None is left to the broker's default."""

    alias: str
    body: bytes
    request_id: str
    lane: Lane = Lane.INTERACTIVE
    endpoint: str = CHAT
    reply_to: str | None = None
    reply_partition: int | None = None
    key: str | None = field(default=None, repr=False)
    deadline: int | None = None
    """Unix milliseconds."""
    priority: int | None = None
    idempotency_key: str | None = None
    tags: Mapping[str, str] | None = None
    metadata: bytes | None = None
    """JSON, echoed untouched in every reply record."""
    traceparent: str | None = None


def encode_request(request: NewRequest, names: TopicNames) -> OutRecord:
    """Write a request as the record of the wire contract; keyed by its id, so that requests spread over partitions."""
    pairs: list[tuple[str, bytes]] = [(h.REQUEST_ID, request.request_id.encode())]
    if request.endpoint != CHAT:
        pairs.append((h.ENDPOINT, request.endpoint.encode()))
    if request.key is not None:
        pairs.append((h.AUTHORIZATION, f"Bearer {request.key}".encode()))
    if request.tags:
        pairs.append((h.TAGS, orjson.dumps(dict(request.tags))))
    if request.metadata is not None:
        pairs.append((h.METADATA, request.metadata))
    optional: tuple[tuple[str, str | int | None], ...] = (
        (h.REPLY_TO, request.reply_to),
        (h.REPLY_PARTITION, request.reply_partition),
        (h.DEADLINE, request.deadline),
        (h.PRIORITY, request.priority),
        (h.IDEMPOTENCY_KEY, request.idempotency_key),
        (h.TRACEPARENT, request.traceparent),
    )
    pairs += [(name, str(value).encode()) for name, value in optional if value is not None]
    return OutRecord(names.lane(request.alias, request.lane), request.body, request.request_id.encode(), pairs)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply record as a client reads it: a chunk (`final` false, `seq` set) or the final answer."""

    request_id: str
    value: bytes = field(repr=False)
    final: bool
    status: int = 0
    seq: int | None = None
    attempt: int = 0
    alias: str = ""
    served_by: str = ""
    model: str = ""
    attempts: int = 0
    fallbacks: int = 0
    cost: Decimal | None = None
    queue_ms: int = 0
    upstream_ms: int = 0
    retry_after: float | None = None
    metadata: bytes | None = None

    def body(self) -> Any:  # noqa: ANN401 - whatever JSON the provider answered
        """Parse the value as JSON; raises `ValueError` where it is none."""
        return orjson.loads(self.value)


def read_reply(record: Record) -> Reply | None:
    """Read a reply record; None for a record that is no reply of ours."""
    raw = dict(record.headers)
    request_id = raw.get(h.REQUEST_ID)
    if request_id is None or record.value is None:
        return None

    def text(name: str) -> str:
        return (raw.get(name) or b"").decode(errors="replace")

    def number(name: str) -> int:
        value = text(name)
        return int(value) if value.isascii() and value.isdigit() else 0

    retry_after = _decimal(text(h.RETRY_AFTER))
    return Reply(
        request_id=request_id.decode(errors="replace"),
        value=record.value,
        final=raw.get(h.FINAL) == b"1",
        status=number(h.STATUS),
        seq=number(h.SEQ) if h.SEQ in raw else None,
        attempt=number(h.ATTEMPT),
        alias=text(h.ALIAS),
        served_by=text(h.SERVED_BY),
        model=text(h.MODEL),
        attempts=number(h.ATTEMPTS),
        fallbacks=number(h.FALLBACKS),
        cost=_decimal(text(h.COST)),
        queue_ms=number(h.QUEUE_MS),
        upstream_ms=number(h.UPSTREAM_MS),
        retry_after=float(retry_after) if retry_after is not None else None,
        metadata=raw.get(h.METADATA),
    )


def _decimal(text: str) -> Decimal | None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def encode_cancel(request_id: str, names: TopicNames, now_ms: int) -> OutRecord:
    """Write a cancel control for the control topic, keyed by request id so that compaction keeps one."""
    return OutRecord(names.control, orjson.dumps({"cancel": True, "at": now_ms}), request_id.encode(), partition=0)


def read_cancel(record: Record) -> tuple[str, int] | None:
    """Request id and unix milliseconds of a cancel control; None for anything else."""
    if record.key is None or record.value is None:
        return None
    try:
        value = orjson.loads(record.value)
        request_id = record.key.decode()
    except (orjson.JSONDecodeError, UnicodeDecodeError):
        return None
    if not isinstance(value, dict) or value.get("cancel") is not True:
        return None
    at = value.get("at")
    return request_id, at if isinstance(at, int) else record.timestamp
