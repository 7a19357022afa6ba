import pytest

from broker.embedded.clickhouse_sql import Insert, is_select, output_format, read_insert, without_format


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (b"INSERT INTO t FORMAT CSV\n1,2\n", Insert(b"INSERT INTO t ", "CSV", b"1,2\n")),
        (
            b"insert into t (a, `format`) format Native\n\x00\xff",
            Insert(b"insert into t (a, `format`) ", "Native", b"\x00\xff"),
        ),
        (
            b"/* FORMAT x */ INSERT INTO t -- FORMAT y\n FORMAT TSV 1",
            Insert(b"/* FORMAT x */ INSERT INTO t -- FORMAT y\n ", "TSV", b"1"),
        ),
        (
            b"INSERT INTO t SETTINGS a = 'FORMAT b' FORMAT JSONEachRow {}",
            Insert(b"INSERT INTO t SETTINGS a = 'FORMAT b' ", "JSONEachRow", b"{}"),
        ),
    ],
)
def test_an_insert_is_split_where_its_data_begins(sql: bytes, expected: Insert) -> None:
    assert read_insert(sql) == expected


@pytest.mark.parametrize(
    "sql",
    [
        b"",
        b"SELECT 1 FORMAT CSV",
        b"INSERT INTO t VALUES (1) FORMAT CSV",
        b"INSERT INTO t SELECT a FROM b FORMAT CSV",
        b"INSERT INTO t",
    ],
)
def test_other_statements_are_run_as_they_are(sql: bytes) -> None:
    assert read_insert(sql) is None


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (b"SELECT 1", "TabSeparated"),
        (b"SELECT 1 FORMAT JSON", "JSON"),
        (b"SELECT 1\nformat Native ;", "Native"),
        (b"SELECT 1 FORMAT CSV SETTINGS max_threads = 1", "CSV"),
        (b"SELECT format FROM t", "TabSeparated"),
        (b"SELECT 'FORMAT JSON'", "TabSeparated"),
    ],
)
def test_the_format_at_the_end_of_a_query_is_found(sql: bytes, expected: str) -> None:
    assert output_format(sql, "TabSeparated") == expected


def test_a_query_can_be_stripped_of_its_format() -> None:
    assert without_format(b"SELECT 1 FORMAT Native SETTINGS a = 1") == b"SELECT 1  SETTINGS a = 1"


def test_only_reading_statements_may_run_twice() -> None:
    assert [is_select(sql) for sql in (b"with a as (select 1) select 1", b"  SELECT 1", b"DROP TABLE t")] == [
        True,
        True,
        False,
    ]
