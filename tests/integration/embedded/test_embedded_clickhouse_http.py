# ruff: noqa: S608 - the table names are drawn by the tests themselves
"""The HTTP front of the in-process engine against the client written for a ClickHouse server."""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

pytestmark = pytest.mark.embedded

COLUMNS = """(
    id UInt64, cost Nullable(Decimal(18, 12)), tags Map(String, String), alias LowCardinality(String),
    at DateTime64(3, 'UTC'), note Nullable(String)
)"""


@pytest.fixture
def client(clickhouse_dsn: str) -> Iterator[Client]:
    with clickhouse_connect.get_client(dsn=clickhouse_dsn) as client:
        yield client


@pytest.fixture
def url(clickhouse_dsn: str) -> str:
    return clickhouse_dsn.replace("clickhouse://", "http://").rsplit("/", 1)[0]


@pytest.fixture
def table(client: Client, unique_prefix: str) -> str:
    name = unique_prefix.strip(".")
    client.command(f"CREATE TABLE {name} {COLUMNS} ENGINE = MergeTree ORDER BY id")
    return name


def _rows() -> list[list[Any]]:
    at = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)
    return [
        [1, Decimal("0.000000000001"), {"team": "a\tb'c\\"}, "local", at, None],
        [2, None, {}, "busy", at, "größer\n"],
    ]


@pytest.mark.parametrize("compress", ["false", "gzip", "lz4", "zstd"])
def test_rows_come_back_as_they_were_inserted(clickhouse_dsn: str, table: str, compress: str) -> None:
    with clickhouse_connect.get_client(dsn=clickhouse_dsn, compress=compress, tz_mode="aware") as client:
        summary = client.insert(table, _rows(), column_names=["id", "cost", "tags", "alias", "at", "note"])

        assert [list(row) for row in client.query(f"SELECT * FROM {table} ORDER BY id").result_rows] == _rows()
        assert summary.written_rows == 2


def test_parameters_are_bound_and_not_pasted(client: Client) -> None:
    text = "a\tb\n'c' \\ {x:String} größer"

    answer = client.query(
        "SELECT {s:String}, {n:UInt8} + 1, {l:Array(String)}, {none:Nullable(String)}",
        parameters={"s": text, "n": 41, "l": ["x", "y'"], "none": None},
    )

    assert answer.result_rows == [(text, 42, ["x", "y'"], None)]


def test_long_parameters_arrive_in_a_form(client: Client) -> None:
    text = "x" * 100_000

    assert client.query("SELECT length({s:String})", parameters={"s": text}).result_rows == [(100_000,)]


def test_an_error_of_the_engine_carries_its_code(client: Client) -> None:
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE") as caught:
        client.query("SELECT * FROM nowhere")

    assert caught.value.code == 60


def test_a_malformed_insert_is_refused_and_writes_nothing(url: str, client: Client, table: str) -> None:
    answer = httpx.post(url, params={"query": f"INSERT INTO {table} (id) FORMAT JSONEachRow"}, content=b'{"id": "x"}')

    assert answer.status_code >= 400
    assert answer.headers["X-ClickHouse-Exception-Code"].isdigit()
    assert client.command(f"SELECT count() FROM {table}") == 0


def test_a_query_without_rows_still_names_its_columns(client: Client, table: str) -> None:
    answer = client.query(f"SELECT id, alias FROM {table} WHERE id = 99")

    assert (answer.column_names, answer.result_rows) == (("id", "alias"), [])


def test_settings_hold_for_one_statement_only(client: Client) -> None:
    question = "SELECT getSetting('max_block_size')"
    before = client.query(question).result_rows

    during = client.query(question, settings={"max_block_size": 77}).result_rows

    assert during == [(77,)]
    assert client.query(question).result_rows == before


def test_an_unknown_setting_of_the_url_is_ignored(url: str) -> None:
    answer = httpx.post(url, params={"query": "SELECT 1", "session_id": "s", "no_such_thing": "1"})

    assert (answer.status_code, answer.text) == (200, "1\n")


def test_a_database_holds_for_one_statement_only(client: Client, url: str) -> None:
    answer = httpx.post(url, params={"query": "SELECT currentDatabase()", "database": "default"})

    assert answer.text == "default\n"
    assert client.command("SELECT currentDatabase()") == "broker"


def test_a_get_may_read_and_not_write(url: str, table: str) -> None:
    assert httpx.get(url, params={"query": f"SELECT count() FROM {table}"}).text == "0\n"

    refused = httpx.get(url, params={"query": f"INSERT INTO {table} (id) VALUES (1)"})

    assert refused.headers["X-ClickHouse-Exception-Code"] == "164"


def test_the_format_is_chosen_in_the_statement_or_by_default_format(url: str) -> None:
    in_statement = httpx.post(url, content="SELECT 1 AS one FORMAT JSONEachRow")
    by_default = httpx.post(url, params={"default_format": "CSVWithNames"}, content="SELECT 1 AS one")

    assert in_statement.json() == {"one": 1}
    assert in_statement.headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert by_default.text == '"one"\n1\n'


def test_rows_inserted_with_values_are_there(client: Client, table: str) -> None:
    client.command(f"INSERT INTO {table} (id, note) VALUES (1, 'FORMAT CSV (x)'), (2, NULL)")

    assert client.query(f"SELECT id, note FROM {table} ORDER BY id").result_rows == [(1, "FORMAT CSV (x)"), (2, None)]


def test_data_in_the_body_follows_an_insert_in_the_url(url: str, client: Client, table: str) -> None:
    httpx.post(url, params={"query": f"INSERT INTO {table} (id) FORMAT CSV"}, content="7\n8\n").raise_for_status()

    assert client.query(f"SELECT id FROM {table} ORDER BY id").result_rows == [(7,), (8,)]


def test_a_refreshable_view_refreshes_itself(client: Client, table: str) -> None:
    client.command(f"INSERT INTO {table} (id) VALUES (1), (2)")
    client.command(
        f"CREATE MATERIALIZED VIEW {table}_v REFRESH EVERY 1 HOUR ENGINE = MergeTree ORDER BY n EMPTY AS "
        f"SELECT count() AS n FROM {table}"
    )

    client.command(f"SYSTEM REFRESH VIEW {table}_v")
    client.command(f"SYSTEM WAIT VIEW {table}_v")

    assert client.query(f"SELECT n FROM {table}_v").result_rows == [(2,)]


def test_ping_and_an_empty_request_say_ok(url: str) -> None:
    assert httpx.get(f"{url}/ping").text == "Ok.\n"
    assert httpx.get(url).text == "Ok.\n"
