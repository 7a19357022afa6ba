"""Usage events as lines of ClickHouse's JSONEachRow, grouped so that each INSERT is atomic. Imports no client library.

ClickHouse wraps integers that do not fit and clamps dates without a sign: what would not be stored as it was sent is
refused here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from operator import itemgetter
from typing import Any, Final

import orjson

from broker.ports import LedgerRow

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
_TIMES: Final = ("created_at", "started_at", "finished_at")
_small = itemgetter(*_SMALL)
_large = itemgetter(*_LARGE)
_times = itemgetter(*_TIMES)
_PLACES: Final = Decimal("1e-12")


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
    fields = dict(row.event.__dict__)
    reason = _misfit(fields)
    if reason is not None:
        return reason
    cost = fields["cost"]
    if cost is not None:
        fields["cost"] = format(cost.quantize(_PLACES), "f")
    fields["usage_partition"] = row.partition
    fields["usage_offset"] = row.offset
    try:
        return orjson.dumps(fields)[:-1]
    except TypeError as error:
        return str(error)


def _misfit(fields: Mapping[str, Any]) -> str | None:
    """Why the table would not hold the event as it is; None when it would."""
    small, large = _small(fields), _large(fields)
    if min(small) < 0 or max(small) >= _U32:
        return _outside(fields, _SMALL, _U32)
    if min(large) < 0 or max(large) >= _U64:
        return _outside(fields, _LARGE, _U64)
    if not 0 <= fields["status"] < _U16:
        return _outside(fields, ("status",), _U16)
    ttft = fields["ttft_ms"]
    if ttft is not None and not 0 <= ttft < _U32:
        return _outside(fields, ("ttft_ms",), _U32)
    cost = fields["cost"]
    if cost is not None and not -MAX_COST < cost < MAX_COST:
        return f"cost {cost} is beyond {MAX_COST} USD"
    return _misdated(fields)


def _misdated(fields: Mapping[str, Any]) -> str | None:
    if all(at.year in YEARS for at in _times(fields)):
        return None
    name = next(name for name in _TIMES if fields[name].year not in YEARS)
    return f"{name} {fields[name].isoformat()} is outside {YEARS.start}–{YEARS.stop - 1}"


def _outside(fields: Mapping[str, Any], names: Sequence[str], limit: int) -> str:
    name = next(name for name in names if not 0 <= fields[name] < limit)
    return f"{name} {fields[name]} is outside 0–{limit - 1}"


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC) if at.utcoffset() else at
