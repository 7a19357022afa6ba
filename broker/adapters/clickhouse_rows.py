"""Usage events as lines of ClickHouse's JSONEachRow, grouped so that each INSERT is atomic. Imports no client library.

ClickHouse wraps integers that do not fit and clamps dates without a sign: what would not be stored as it was sent is
refused here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Final

import orjson

from broker.ledger.money import to_pico, to_text
from broker.ports import LedgerRow
from schemas.usage import UsageEvent

MAX_COST: Final = Decimal(10**6)
"""USD; Decimal(18, 12) has six digits before the point."""

YEARS: Final = range(1970, 2200)
_U16: Final = 1 << 16
_U32: Final = 1 << 32
_U64: Final = 1 << 64

_SMALL: Final = (
    "attempt", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens",
    "audio_tokens", "upstream_ms", "partition",
)  # fmt: skip
_LARGE: Final = ("queue_ms", "offset")
_small = attrgetter(*_SMALL)
_large = attrgetter(*_LARGE)


@dataclass(frozen=True, slots=True)
class Line:
    """One row as JSON without its end, and the offset to resume from once its whole call is written."""

    row: LedgerRow
    head: bytes
    resume: int

    def json(self, *, tells: bool) -> bytes:
        """Return the row; `tells` puts the offset to resume from into it."""
        return b'%b,"usage_resume":%d}' % (self.head, self.resume if tells else 0)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Lines by the month of `created_at`, the table's partition, and the rows that cannot be stored with the reason."""

    months: Sequence[Sequence[Line]]
    refused: Sequence[tuple[LedgerRow, str]]


def prepare(rows: Sequence[LedgerRow]) -> Prepared:
    """Turn rows into lines.

    Of a usage partition whose rows fall into several months only the rows of the month written last tell where to
    resume: once they are in, so are the others.
    """
    refused: list[tuple[LedgerRow, str]] = []
    good: list[tuple[int, LedgerRow, bytes]] = []
    order: dict[int, int] = {}
    resume: dict[int, int] = {}
    last: dict[int, int] = {}
    for row in rows:
        head = _head(row)
        if isinstance(head, str):
            refused.append((row, head))
            continue
        at = _utc(row.event.created_at)
        rank = order.setdefault(at.year * 12 + at.month, len(order))
        good.append((rank, row, head))
        resume[row.partition] = max(resume.get(row.partition, 0), row.offset + 1)
        last[row.partition] = max(last.get(row.partition, 0), rank)
    months: list[list[Line]] = [[] for _ in order]
    for rank, row, head in good:
        months[rank].append(Line(row, head, resume[row.partition] if rank == last[row.partition] else 0))
    return Prepared(months, refused)


def _head(row: LedgerRow) -> bytes | str:
    """Return the row's JSON without its end, or, as a text, why the table cannot hold it."""
    event = row.event
    reason = _misfit(event)
    if reason is not None:
        return reason
    fields = dict(event.__dict__)
    if event.cost is not None:
        fields["cost"] = to_text(to_pico(event.cost))
    fields["usage_partition"] = row.partition
    fields["usage_offset"] = row.offset
    try:
        return orjson.dumps(fields)[:-1]
    except TypeError as error:
        return str(error)


def _misfit(event: UsageEvent) -> str | None:
    """Why the table would not hold the event as it is; None when it would."""
    small, large = _small(event), _large(event)
    if min(small) < 0 or max(small) >= _U32:
        return _outside(event, _SMALL, _U32)
    if min(large) < 0 or max(large) >= _U64:
        return _outside(event, _LARGE, _U64)
    if not 0 <= event.status < _U16:
        return _outside(event, ("status",), _U16)
    if event.ttft_ms is not None and not 0 <= event.ttft_ms < _U32:
        return _outside(event, ("ttft_ms",), _U32)
    if event.cost is not None and not -MAX_COST < event.cost < MAX_COST:
        return f"cost {event.cost} is beyond {MAX_COST} USD"
    return _misdated(event)


def _misdated(event: UsageEvent) -> str | None:
    for name, at in (
        ("created_at", event.created_at),
        ("started_at", event.started_at),
        ("finished_at", event.finished_at),
    ):
        if at.year not in YEARS:
            return f"{name} {at.isoformat()} is outside {YEARS.start}–{YEARS.stop - 1}"
    return None


def _outside(event: UsageEvent, names: Sequence[str], limit: int) -> str:
    name = next(name for name in names if not 0 <= getattr(event, name) < limit)
    return f"{name} {getattr(event, name)} is outside 0–{limit - 1}"


def _utc(at: datetime) -> datetime:
    return at if at.tzinfo is None or at.tzinfo is UTC else at.astimezone(UTC)
