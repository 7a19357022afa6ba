"""An attempt and the JSON of its usage event, made cheaply on the request's path. Imports schemas and orjson."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from broker.ledger.money import to_text
from schemas.usage import Outcome

_LARGEST: Final = (1 << 63) - 1
_MILLIS: Final = tuple(f".{n:03d}Z" for n in range(1000))
_SECONDS_KEPT: Final = 1024
_seconds: dict[int, str] = {}


@dataclass(slots=True, kw_only=True)
class Attempt:
    """The fields of `UsageEvent`, times as unix milliseconds and cost as whole pico-dollars (None: no price known).

    An empty `usage_id` stands for `request_id:attempt`, which is what it should be.
    """

    request_id: str
    attempt: int
    alias: str
    endpoint: str
    lane: str
    outcome: Outcome
    billable: bool
    status: int
    created_ms: int
    started_ms: int
    finished_ms: int
    usage_id: str = ""
    tenant: str = ""
    key_id: str = ""
    team: str = ""
    user: str = ""
    requested_model: str = ""
    provider: str = ""
    deployment: str = ""
    model: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    error_code: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    estimated: bool = False
    cost_pico: int | None = None
    price_version: str = ""
    raw_usage: str = ""
    queue_ms: int = 0
    upstream_ms: int = 0
    ttft_ms: int | None = None
    topic: str = ""
    partition: int = 0
    offset: int = 0
    worker: str = ""
    config_hash: str = ""
    trace_id: str = ""


def encode(event: Attempt) -> bytes:
    """Return the event's JSON as `schemas.usage.UsageEvent` reads it: times ISO 8601 in UTC, cost a decimal text.

    It never fails on what an upstream sent: text that is not Unicode has the bad characters replaced, numbers beyond
    64 bits are cut to the largest, so that the event is kept and the row can be looked at.
    """
    fields = _fields(event)
    try:
        return orjson.dumps(fields)
    except TypeError:
        return orjson.dumps({name: _mended(value) for name, value in fields.items()})


def iso(unix_ms: int) -> str:
    """UTC in ISO 8601 with milliseconds; the text of each second is kept, as events come many to a second."""
    second, millis = divmod(unix_ms, 1000)
    text = _seconds.get(second)
    if text is None:
        if len(_seconds) >= _SECONDS_KEPT:
            _seconds.clear()
        text = _seconds[second] = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return text + _MILLIS[millis]


def _fields(event: Attempt) -> dict[str, Any]:
    cost = event.cost_pico
    return {
        "usage_id": event.usage_id or f"{event.request_id}:{event.attempt}",
        "request_id": event.request_id,
        "attempt": event.attempt,
        "tenant": event.tenant,
        "key_id": event.key_id,
        "team": event.team,
        "user": event.user,
        "alias": event.alias,
        "requested_model": event.requested_model,
        "provider": event.provider,
        "deployment": event.deployment,
        "model": event.model,
        "endpoint": event.endpoint,
        "lane": event.lane,
        "tags": event.tags,
        "outcome": event.outcome,
        "billable": event.billable,
        "status": event.status,
        "error_code": event.error_code,
        "input_tokens": event.input_tokens,
        "cached_tokens": event.cached_tokens,
        "cache_write_tokens": event.cache_write_tokens,
        "output_tokens": event.output_tokens,
        "reasoning_tokens": event.reasoning_tokens,
        "audio_tokens": event.audio_tokens,
        "estimated": event.estimated,
        "cost": None if cost is None else to_text(cost),
        "price_version": event.price_version,
        "raw_usage": event.raw_usage,
        "created_at": iso(event.created_ms),
        "started_at": iso(event.started_ms),
        "finished_at": iso(event.finished_ms),
        "queue_ms": event.queue_ms,
        "upstream_ms": event.upstream_ms,
        "ttft_ms": event.ttft_ms,
        "topic": event.topic,
        "partition": event.partition,
        "offset": event.offset,
        "worker": event.worker,
        "config_hash": event.config_hash,
        "trace_id": event.trace_id,
    }


def _mended(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, int):
        return max(-_LARGEST, min(_LARGEST, value))
    if isinstance(value, Mapping):
        return {str(_mended(str(name))): _mended(str(text)) for name, text in value.items()}
    return value
