"""The usage event: one per attempt, the value of every record on the usage topic and one row of the ledger."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Outcome(StrEnum):
    """How an attempt ended; the same words in the ledger's column and in the metrics' label."""

    ANSWERED = "answered"
    FAILED = "failed"
    REROUTED = "rerouted"
    CACHED = "cached"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REFUSED = "refused"
    ORPHAN = "orphan"
    UNKNOWN = "unknown"


class UsageEvent(BaseModel):
    """One attempt. Times are UTC; durations are milliseconds; `cost` is USD, None when no price is known.

    `usage_id` is `request_id:attempt`, so an event that is published twice meets itself in the ledger. Exactly one
    event of a request is `billable`: the one whose outcome the caller was told.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    usage_id: str
    request_id: str
    attempt: int
    tenant: str = ""
    key_id: str = ""
    team: str = ""
    user: str = ""
    alias: str
    requested_model: str = ""
    provider: str = ""
    deployment: str = ""
    model: str = ""
    endpoint: str
    lane: str
    tags: dict[str, str] = Field(default_factory=dict)
    outcome: Outcome
    billable: bool
    status: int
    error_code: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    estimated: bool = False
    cost: Decimal | None = None
    price_version: str = ""
    raw_usage: str = ""
    created_at: datetime
    started_at: datetime
    finished_at: datetime
    queue_ms: int = 0
    upstream_ms: int = 0
    ttft_ms: int | None = None
    topic: str = ""
    partition: int = 0
    offset: int = 0
    worker: str = ""
    config_hash: str = ""
    trace_id: str = ""
