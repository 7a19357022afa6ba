"""What only the real tables have: migrations, views, rollups, times to live, errors of a server."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from pydantic import SecretStr

from broker.adapters.clickhouse import ClickHouseLedger
from broker.adapters.clickhouse_migrations import migrations, statements, ttl
from broker.config import ClickHouse
from broker.embedded.probe import free_port
from broker.errors import ConfigError, Unavailable
from broker.ledger.price_list import RECORDED_SQL
from broker.ports import LedgerRow
from schemas.usage import Outcome, UsageEvent

pytestmark = pytest.mark.embedded

NOW = datetime.now(UTC).replace(microsecond=123_000)


def attempt(number: int, **changes: Any) -> LedgerRow:
    plain: dict[str, Any] = {
        "usage_id": f"r{number}:1",
        "request_id": f"r{number}",
        "attempt": 1,
        "tenant": "acme",
        "alias": "gpt",
        "provider": "openai",
        "deployment": "gpt/0",
        "model": "gpt-4o",
        "endpoint": "/v1/chat/completions",
        "lane": "interactive",
        "tags": {"job": "a'b\\c"},
        "outcome": Outcome.ANSWERED,
        "billable": True,
        "status": 200,
        "input_tokens": 10,
        "output_tokens": 5,
        "cost": Decimal("0.000000000001"),
        "created_at": NOW,
        "started_at": NOW,
        "finished_at": NOW,
        "upstream_ms": 20,
    }
    return LedgerRow(UsageEvent(**(plain | changes)), 3, number)


async def one(ledger: ClickHouseLedger, sql: str) -> dict[str, Any]:
    table = await ledger.query(sql)
    assert len(table.rows) == 1, table.rows
    return dict(zip(table.columns, table.rows[0], strict=True))


async def test_every_column_is_read_back_as_it_was_sent(clickhouse: ClickHouseLedger) -> None:
    sent = attempt(1, ttft_ms=7, raw_usage='{"a": "é\\n"}', user="ü", trace_id="t", offset=(1 << 64) - 1)
    await clickhouse.insert([sent])
    row = await one(clickhouse, "SELECT * FROM attempts FINAL")
    assert (row.pop("usage_partition"), row.pop("usage_offset"), row.pop("usage_resume")) == (3, 1, 2)
    for name in ("created_at", "started_at", "finished_at"):
        row[name] = row[name].replace(tzinfo=UTC)
    assert row == sent.event.model_dump()


async def test_money_is_exact_and_finer_amounts_are_rounded(clickhouse: ClickHouseLedger) -> None:
    costs = ["0.1", "0.000000000001", "999999.999999999999", "0.0000000000016"]
    await clickhouse.insert([attempt(number, cost=Decimal(cost)) for number, cost in enumerate(costs)])
    table = await clickhouse.query("SELECT cost FROM attempts FINAL ORDER BY usage_offset")
    found = [row[0] for row in table.rows]
    assert found == [Decimal("0.1"), Decimal("1e-12"), Decimal("999999.999999999999"), Decimal("2e-12")]


async def test_spend_counts_a_duplicate_once_and_tells_what_it_could_not_price(clickhouse: ClickHouseLedger) -> None:
    batch = [
        attempt(1),
        attempt(2, cost=None),
        attempt(3, cost=None, billable=False, outcome=Outcome.FAILED, input_tokens=0, output_tokens=0, status=503),
    ]
    await clickhouse.insert(batch)
    await clickhouse.insert(batch)
    daily = await one(clickhouse, "SELECT * FROM spend_daily")
    counts = {name: daily[name] for name in ("cost", "attempts", "requests", "priced", "unpriced", "input_tokens")}
    assert counts == {
        "cost": Decimal("1e-12"), "attempts": 3, "requests": 2, "priced": 1, "unpriced": 1, "input_tokens": 20,
    }  # fmt: skip
    assert (await one(clickhouse, "SELECT * FROM spend_by_tenant"))["unpriced"] == 1
    assert (await one(clickhouse, "SELECT * FROM spend_by_model"))["priced"] == 1
    assert (await one(clickhouse, "SELECT * FROM unpriced"))["attempts"] == 1
    wasted = await one(clickhouse, "SELECT * FROM waste")
    assert (wasted["outcome"], wasted["attempts"], wasted["cost"], wasted["priced"]) == ("failed", 1, None, 0)
    latency = await one(clickhouse, "SELECT * FROM latency_by_deployment")
    assert (latency["attempts"], latency["answered"], latency["upstream_ms_p50_p95_p99"][0]) == (3, 2, 20)
    assert latency["output_tokens_per_second"] == pytest.approx(250)


@pytest.mark.parametrize(("rollup", "width"), [("rollup_minute", "minute"), ("rollup_hour", "hour")])
async def test_a_rollup_counts_a_duplicate_once(clickhouse: ClickHouseLedger, rollup: str, width: str) -> None:
    for _ in range(2):
        await clickhouse.insert([attempt(number, cost=Decimal(1)) for number in range(6)])
    await clickhouse.refresh(f"{rollup}_refresh")
    found = await one(clickhouse, f"SELECT {width}, attempts, priced, cost FROM {rollup}")  # noqa: S608 - our own names
    assert (found["attempts"], found["priced"], found["cost"]) == (6, 6, Decimal(6))


async def test_rows_are_forgotten_after_the_configured_days(fresh_dsn: str) -> None:
    for days in (30, 31):
        ledger = ClickHouseLedger(ClickHouse(dsn=SecretStr(fresh_dsn), ttl_days=days))
        await ledger.start()
        await ledger.migrate()
        tables = "SELECT engine_full FROM system.tables WHERE name = 'attempts' AND database = currentDatabase()"
        create = (await one(ledger, tables))["engine_full"]
        await ledger.stop()
        assert f"toIntervalDay({days})" in create


async def test_migrations_are_remembered_by_name(clickhouse: ClickHouseLedger) -> None:
    table = await clickhouse.query("SELECT name FROM schema_migrations FINAL ORDER BY name")
    assert [row[0] for row in table.rows] == [each.name for each in migrations()]


async def test_running_every_migration_again_does_no_harm(clickhouse: ClickHouseLedger) -> None:
    await clickhouse.insert([attempt(1)])
    client = clickhouse._started()  # noqa: SLF001 - as after a migration that failed half-way
    await asyncio.to_thread(client.command, "TRUNCATE TABLE schema_migrations")
    assert await clickhouse.migrate() == [each.name for each in migrations()]
    assert (await one(clickhouse, "SELECT count() AS n FROM attempts"))["n"] == 1


async def test_two_processes_may_migrate_at_once(fresh_dsn: str) -> None:
    ledgers = [ClickHouseLedger(ClickHouse(dsn=SecretStr(fresh_dsn))) for _ in range(2)]
    await asyncio.gather(*(ledger.start() for ledger in ledgers))
    await asyncio.gather(*(ledger.migrate() for ledger in ledgers))
    assert await ledgers[0].insert([attempt(1)]) == []
    await asyncio.gather(*(ledger.stop() for ledger in ledgers))


async def test_a_row_the_server_refuses_is_found_by_halving(
    clickhouse: ClickHouseLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = clickhouse._started()  # noqa: SLF001 - a server's refusal that our own checks let through
    insert = client.raw_insert
    sizes: list[int] = []

    def picky(table: str, *, insert_block: bytes, **more: Any) -> object:
        sizes.append(insert_block.count(b"\n") + 1)
        if b'"r5:1"' in insert_block:
            raise DatabaseError("Code: 27. DB::Exception: Cannot parse", code=27)
        return insert(table, insert_block=insert_block, **more)

    monkeypatch.setattr(client, "raw_insert", picky)
    refused = await clickhouse.insert([attempt(number) for number in range(8)])
    assert [(row.offset, reason) for row, reason in refused] == [(5, "Code: 27. DB::Exception: Cannot parse")]
    assert sizes == [8, 4, 4, 2, 1, 1, 2]
    assert (await one(clickhouse, "SELECT count() AS n FROM attempts"))["n"] == 7
    assert await clickhouse.next_offsets() == {}


async def test_an_error_that_is_not_about_the_rows_is_unavailable(
    clickhouse: ClickHouseLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise DatabaseError("Code: 252. DB::Exception: Too many parts", code=252)

    monkeypatch.setattr(clickhouse._started(), "raw_insert", full)  # noqa: SLF001 - as above
    with pytest.raises(Unavailable, match="Too many parts"):
        await clickhouse.insert([attempt(1)])


async def test_tables_that_do_not_exist_say_what_to_do(fresh_dsn: str) -> None:
    ledger = ClickHouseLedger(ClickHouse(dsn=SecretStr(fresh_dsn)))
    await ledger.start()
    with pytest.raises(Unavailable, match="run `broker clickhouse migrate`"):
        await ledger.next_offsets()
    await ledger.stop()


@pytest.mark.parametrize(("scheme", "place"), [("clickhouse", "http"), ("clickhouses", "https")])
async def test_a_server_that_is_not_there_is_unavailable_for_one_short_cause(
    caplog: pytest.LogCaptureFixture, scheme: str, place: str
) -> None:
    port = free_port()
    ledger = ClickHouseLedger(ClickHouse(dsn=SecretStr(f"{scheme}://me:secret@127.0.0.1:{port}/x")))
    with pytest.raises(Unavailable) as found:
        await ledger.start()
    assert str(found.value) == f"ClickHouse at {place}://127.0.0.1:{port}: connection refused"
    assert caplog.messages == []


def test_no_attribute_shows_the_password() -> None:
    ledger = ClickHouseLedger(ClickHouse(dsn=SecretStr("clickhouse://u:p%40ss@ch/db")))
    shown = repr(vars(ledger))
    assert "p@ss" not in shown
    assert "p%40ss" not in shown


async def test_a_query_cannot_write(clickhouse: ClickHouseLedger) -> None:
    with pytest.raises(Unavailable):
        await clickhouse.query("DROP TABLE attempts")
    assert (await one(clickhouse, "SELECT count() AS n FROM attempts"))["n"] == 0


async def test_parameters_are_values_and_not_sql(clickhouse: ClickHouseLedger) -> None:
    await clickhouse.insert([attempt(1, tenant="a' OR 1=1 --")])
    table = await clickhouse.query("SELECT tenant FROM attempts WHERE tenant = {t:String}", {"t": "a' OR 1=1 --"})
    assert table.rows == [("a' OR 1=1 --",)]


@pytest.mark.parametrize("dsn", [None, "mysql://x", "clickhouse://", "127.0.0.1:8123"])
def test_a_dsn_that_names_no_server_is_refused(dsn: str | None) -> None:
    with pytest.raises(ConfigError, match=r"clickhouse\.dsn"):
        ClickHouseLedger(ClickHouse(dsn=None if dsn is None else SecretStr(dsn)))


def test_credentials_of_a_dsn_are_percent_decoded_and_ports_have_defaults() -> None:
    plain = ClickHouseLedger(ClickHouse(dsn=SecretStr("clickhouse://u:p%40ss@ch/db")))
    secure = ClickHouseLedger(ClickHouse(dsn=SecretStr("clickhouses://ch")))
    assert (plain.address, secure.address) == ("ch:8123/db", "ch:8443/default")
    assert plain._password.get_secret_value() == "p@ss"  # noqa: SLF001 - goes nowhere else
    assert secure._target["interface"] == "https"  # noqa: SLF001 - as above


def test_statements_end_at_a_semicolon_at_the_end_of_a_line() -> None:
    assert statements("A ';' x;\n-- b\nB;  \nC") == ["A ';' x", "-- b\nB", "C"]


def test_a_time_to_live_that_is_set_already_is_not_set_again() -> None:
    assert ttl("ReplacingMergeTree ... TTL toDateTime(created_at) + toIntervalDay(400) SETTINGS x", 400) is None
    assert ttl("ReplacingMergeTree", 7) == "ALTER TABLE attempts MODIFY TTL toDateTime(created_at) + toIntervalDay(7)"


async def test_the_last_price_version_of_a_model_is_found(clickhouse: ClickHouseLedger) -> None:
    earlier = NOW - timedelta(hours=1)
    await clickhouse.insert(
        [
            attempt(1, price_version="new+2"),
            attempt(2, price_version="old+1", created_at=earlier),
            attempt(3, price_version="failed+3", outcome=Outcome.FAILED),
            attempt(4, price_version="long-ago+0", deployment="gone/0", created_at=NOW - timedelta(days=20)),
        ]
    )
    found = await clickhouse.query(RECORDED_SQL, {"since": (NOW - timedelta(days=1)).timestamp()})
    assert [tuple(row) for row in found.rows] == [("gpt/0", "gpt-4o", "new+2", 2)]


async def test_old_rows_fall_into_their_own_month(clickhouse: ClickHouseLedger) -> None:
    await clickhouse.insert([attempt(number, created_at=NOW - timedelta(days=31 * number)) for number in range(14)])
    parts = await one(clickhouse, "SELECT uniqExact(_partition_id) AS n FROM attempts")
    assert parts["n"] >= 13
