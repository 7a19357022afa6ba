"""What every ledger keeps: rows once each, refusals by reason, and where to resume."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from broker.adapters.clickhouse import ClickHouseLedger
from broker.adapters.memory_ledger import MemoryLedger
from broker.ports import Ledger, LedgerRow
from schemas.usage import Outcome, UsageEvent

NOW = datetime.now(UTC).replace(day=15, hour=12, microsecond=123_000)


def event(number: int, **changes: Any) -> UsageEvent:
    plain: dict[str, Any] = {
        "usage_id": f"r{number}:1",
        "request_id": f"r{number}",
        "attempt": 1,
        "tenant": "acme",
        "alias": "local",
        "endpoint": "/v1/chat/completions",
        "lane": "interactive",
        "outcome": Outcome.ANSWERED,
        "billable": True,
        "status": 200,
        "created_at": NOW,
        "started_at": NOW,
        "finished_at": NOW,
    }
    return UsageEvent(**(plain | changes))


def rows(numbers: range, partition: int = 0, **changes: Any) -> list[LedgerRow]:
    return [LedgerRow(event(number, **changes), partition, number) for number in numbers]


async def held(ledger: Ledger) -> dict[str, int]:
    """Usage id to offset of what the ledger holds, each once."""
    if isinstance(ledger, MemoryLedger):
        return {usage_id: row.offset for usage_id, row in ledger.rows.items()}
    table = await ledger.query("SELECT usage_id, usage_offset FROM attempts FINAL")
    return {str(usage_id): int(offset) for usage_id, offset in table.rows}


async def test_rows_are_kept_and_told_where_to_resume(ledger: Ledger) -> None:
    assert await ledger.insert(rows(range(3), 4)) == []
    assert await held(ledger) == {"r0:1": 0, "r1:1": 1, "r2:1": 2}
    assert await ledger.next_offsets() == {4: 3}


async def test_an_empty_ledger_resumes_nowhere(ledger: Ledger) -> None:
    assert await ledger.insert([]) == []
    assert await ledger.next_offsets() == {}


async def test_an_identical_batch_written_twice_counts_once(ledger: Ledger) -> None:
    batch = rows(range(50))
    await ledger.insert(batch)
    await ledger.insert(batch)
    assert len(await held(ledger)) == 50
    assert await ledger.next_offsets() == {0: 50}


async def test_of_two_events_with_one_id_the_later_in_the_topic_stays(ledger: Ledger) -> None:
    await ledger.insert([LedgerRow(event(1), 0, 9)])
    await ledger.insert([LedgerRow(event(1), 0, 5)])
    assert await held(ledger) == {"r1:1": 9}
    assert await ledger.next_offsets() == {0: 10}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input_tokens": 1 << 40}, "input_tokens 1099511627776 is outside"),
        ({"output_tokens": -1}, "output_tokens -1 is outside"),
        ({"offset": -1}, "offset -1 is outside"),
        ({"queue_ms": 1 << 70}, "queue_ms"),
        ({"status": 70_000}, "status 70000 is outside"),
        ({"ttft_ms": -5}, "ttft_ms -5 is outside"),
        ({"cost": Decimal("1e7")}, "beyond 1000000 USD"),
        ({"created_at": datetime(1, 1, 1, tzinfo=UTC)}, "created_at 0001"),
        ({"finished_at": datetime(9999, 1, 1, tzinfo=UTC)}, "finished_at 9999"),
        ({"error_code": "\ud800"}, "surrogates"),
    ],
)
async def test_a_row_that_would_be_changed_in_the_table_is_refused_and_the_others_go_on(
    ledger: Ledger, changes: dict[str, Any], reason: str
) -> None:
    bad = LedgerRow(event(7).model_copy(update=changes), 0, 7)
    refused = await ledger.insert([*rows(range(7)), bad, *rows(range(8, 10))])
    assert [row for row, _ in refused] == [bad]
    assert reason in refused[0][1]
    assert set(await held(ledger)) == {f"r{number}:1" for number in range(10) if number != 7}


async def test_a_batch_with_a_refused_row_does_not_say_where_to_resume_until_the_next_one(ledger: Ledger) -> None:
    await ledger.insert([*rows(range(3)), *rows(range(3, 4), status=-1)])
    assert await ledger.next_offsets() == {}
    await ledger.insert(rows(range(4, 6)))
    assert await ledger.next_offsets() == {0: 6}


async def test_rows_of_several_months_and_partitions_are_one_call(ledger: Ledger) -> None:
    old = NOW - timedelta(days=62)
    batch = [
        *rows(range(2), 0),
        *rows(range(2, 4), 0, created_at=old),
        *rows(range(4, 6), 0),
        *rows(range(6, 8), 1, created_at=old),
    ]
    assert await ledger.insert(batch) == []
    assert len(await held(ledger)) == 8
    assert await ledger.next_offsets() == {0: 6, 1: 8}


async def test_migrating_twice_applies_nothing_the_second_time(ledger: Ledger) -> None:
    await ledger.migrate()
    assert await ledger.migrate() == []


def test_both_are_ledgers() -> None:
    found: list[type[Ledger]] = [ClickHouseLedger, MemoryLedger]
    assert len(found) == 2
