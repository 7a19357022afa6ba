"""The ClickHouse engine in this process: one statement at a time, each on a connection of its own."""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, cast

from broker.embedded.clickhouse_sql import Insert, is_select, output_format, read_insert, without_format

DATABASE: Final = "broker"
"""The durable database, and the one of requests that name none. The engine's own `default` is an Overlay, in which
refreshable views are not allowed."""

ERROR_CODE: Final = re.compile(r"Code: (\d+)\.")

LOGICAL_ERROR: Final = 49
"""ClickHouse's code for an error without a code."""


class EngineError(Exception):
    """The engine refused a statement; `code` is ClickHouse's error code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Statement:
    """What one HTTP request asks: the statement, data that came apart from it, and how to run it."""

    sql: bytes
    data: bytes = b""
    database: str = DATABASE
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Values of `{name:Type}`, escaped as ClickHouse's HTTP interface has them."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Those the engine does not know are ignored."""
    default_format: str = "TabSeparated"
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer, and the counts for its summary."""

    body: bytes
    format: str
    rows_read: int = 0
    bytes_read: int = 0
    rows_written: int = 0
    bytes_written: int = 0
    elapsed_s: float = 0.0


class _Result(Protocol):
    def bytes(self) -> bytes: ...
    def storage_rows_read(self) -> int: ...
    def storage_bytes_read(self) -> int: ...
    def rows_written(self) -> int: ...
    def bytes_written(self) -> int: ...
    def elapsed(self) -> float: ...


class _InsertResult(Protocol):
    rows_written: int
    bytes_written: int
    elapsed: float


class _Inserter(Protocol):
    def append(self, data: bytes) -> None: ...
    def finish(self) -> _InsertResult: ...
    def cancel(self) -> None: ...


class _Connection(Protocol):
    def query(self, sql: str | bytes, fmt: str, *, params: dict[str, str] | None = None) -> _Result: ...
    def send_insert(self, sql: str, fmt: str) -> _Inserter: ...
    def close(self) -> None: ...


def _connect(folder: Path) -> _Connection:
    from chdb.state import sqlitelike  # noqa: PLC0415 - 550 MB of engine, loaded by the server process only

    return cast("_Connection", cast("Any", sqlitelike).Connection(str(folder)))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _identifier(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def _error(error: Exception) -> EngineError:
    message = str(error)
    start = message.find("Code: ")
    text = message[start:] if start > 0 else message
    code = ERROR_CODE.search(text)
    return EngineError(text, int(code.group(1)) if code else LOGICAL_ERROR)


class Engine:
    """Not safe for use by two threads at once: the server gives it one."""

    def __init__(self, folder: Path) -> None:
        """Open the data folder, which no other process may have open."""
        self._folder = folder
        self._held = _connect(folder)
        self._held.query(f"CREATE DATABASE IF NOT EXISTS {DATABASE} ENGINE = Atomic", "TabSeparated")
        known = self._held.query("SELECT name FROM system.settings", "TabSeparated").bytes()
        self._known_settings = frozenset(known.decode().split())
        version, self.timezone = (
            self._held.query("SELECT version(), timezone()", "TabSeparated").bytes().decode().strip().split("\t")
        )
        self.version = version

    def run(self, statement: Statement) -> Outcome:
        """Run one statement; raises `EngineError`. Settings and database do not outlive it."""
        connection = _connect(self._folder)
        try:
            self._prepare(connection, statement)
            joined = statement.sql + b"\n" + statement.data if statement.data else statement.sql
            insert = read_insert(joined)
            if insert is not None:
                return _insert(connection, insert)
            return _query(connection, joined, statement)
        except EngineError:
            raise
        except Exception as error:
            raise _error(error) from error
        finally:
            connection.close()

    def close(self) -> None:
        """Close the data folder."""
        self._held.close()

    def _prepare(self, connection: _Connection, statement: Statement) -> None:
        connection.query(f"USE {_identifier(statement.database)}", "TabSeparated")
        settings = {name: value for name, value in statement.settings.items() if name in self._known_settings}
        if statement.read_only:
            settings.setdefault("readonly", "2")
        # `readonly` goes last: nothing can be set after it.
        ordered = sorted(settings.items(), key=lambda item: item[0] == "readonly")
        if ordered:
            assignments = ", ".join(f"{name} = {_quoted(value)}" for name, value in ordered)
            connection.query(f"SET {assignments}", "TabSeparated")


def _insert(connection: _Connection, insert: Insert) -> Outcome:
    inserter = connection.send_insert(insert.statement.decode(), insert.format)
    try:
        if insert.data:
            inserter.append(insert.data)
        result = inserter.finish()
    except Exception:
        inserter.cancel()
        raise
    return Outcome(
        b"",
        "TabSeparated",
        rows_written=result.rows_written,
        bytes_written=result.bytes_written,
        elapsed_s=result.elapsed,
    )


def _query(connection: _Connection, sql: bytes, statement: Statement) -> Outcome:
    chosen = output_format(sql, statement.default_format)
    parameters = dict(statement.parameters) or None
    result = connection.query(sql, statement.default_format, params=parameters)
    body = result.bytes()
    if not body and chosen == "Native" and is_select(sql):
        # A server sends a block without rows, from which clients learn the columns; the engine sends nothing.
        described = connection.query(without_format(sql) + b"\nFORMAT JSON", "JSON", params=parameters).bytes()
        body = _empty_block(json.loads(described)["meta"])
    return Outcome(
        body,
        chosen,
        rows_read=result.storage_rows_read(),
        bytes_read=result.storage_bytes_read(),
        rows_written=result.rows_written(),
        bytes_written=result.bytes_written(),
        elapsed_s=result.elapsed(),
    )


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - LEB128: seven bits a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _varint(len(encoded)) + encoded


def _empty_block(columns: list[dict[str, str]]) -> bytes:
    """Return a Native block of no rows: the number of columns, 0, then each column's name and type."""
    head = _varint(len(columns)) + _varint(0)
    return head + b"".join(_text(column["name"]) + _text(column["type"]) for column in columns)


def new_query_id() -> str:
    """Return an id for a query whose caller gave none."""
    return str(uuid.uuid4())
