"""The ledger on ClickHouse, over HTTP: the port `Ledger`. The blocking client runs in threads."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, Error
from pydantic import SecretStr
from urllib3.exceptions import HTTPError

from broker.adapters.clickhouse_migrations import migrations, statements, ttl
from broker.adapters.clickhouse_rows import Line, Prepared, prepare
from broker.config.models import ClickHouse
from broker.errors import ConfigError, Unavailable
from broker.ports import LedgerRow, Table

T = TypeVar("T")

CONNECT_S: Final = 10
ANSWER_S: Final = 300
"""How long a statement may take: a spend query over 100 million rows on one machine takes about a minute."""

NOISY: Final = ("urllib3.connectionpool", "clickhouse_connect")
"""Loggers that warn of each try of a statement; the error that is raised tells the same."""

REFUSING: Final = frozenset(
    {6, 25, 26, 27, 33, 38, 41, 53, 69, 70, 72, 117, 131, 130, 190, 321, 349, 407, 467, 469, 508, 561, 634, 675}
)
"""ClickHouse error codes that are about the rows (cannot parse, out of bounds, overflow), not about the server."""

UNKNOWN_TABLE: Final = 60
UNKNOWN_DATABASE: Final = 81

INSERT: Final = {
    "date_time_input_format": "best_effort",
    "input_format_parallel_parsing": 0,  # one block, hence written whole or not at all
    "input_format_skip_unknown_fields": 0,
    "async_insert": 0,  # an answer means the rows are in the table
}

SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS schema_migrations (name String, applied_at DateTime('UTC') DEFAULT now()) "
    "ENGINE = ReplacingMergeTree ORDER BY name"
)


class ClickHouseLedger:
    """The attempts table of one database; safe for use by many tasks."""

    def __init__(self, settings: ClickHouse) -> None:
        self._settings = settings
        self._target = _target(settings)
        self._database = str(self._target.pop("database"))
        self._password: SecretStr = self._target.pop("password")
        self._client: Client | None = None

    @property
    def address(self) -> str:
        """Where the server is, without credentials."""
        return f"{self._target['host']}:{self._target['port']}/{self._database}"

    async def start(self) -> None:
        """Connect. Raises `Unavailable`. The database need not exist yet: `migrate` makes it."""
        self._client = await self._run(self._connect)

    async def migrate(self) -> Sequence[str]:
        """Apply what is not applied yet, in order, and set the time to live; idempotent. Raises `Unavailable`."""
        return await self._run(self._migrate)

    async def insert(self, rows: Sequence[LedgerRow]) -> Sequence[tuple[LedgerRow, str]]:
        """Write rows; see the port.

        Rows of one month are one INSERT, which the table takes whole or not at all. Only the last INSERT of a usage
        partition's rows says where to resume, and none does once a row was refused: until the caller has put the
        refused ones elsewhere and writes more, a restart reads all of them again.
        """
        if not rows:
            return []
        return await self._run(lambda: self._insert(prepare(rows)))

    async def refresh(self, view: str) -> None:
        """Refresh a rollup now and wait for it; it also refreshes by itself. Raises `Unavailable`."""
        await self._run(lambda: self._started().command(f"SYSTEM REFRESH VIEW {_quoted(view)}"))
        await self._run(lambda: self._started().command(f"SYSTEM WAIT VIEW {_quoted(view)}"))

    async def next_offsets(self) -> Mapping[int, int]:
        """Partition of the usage topic to the offset after the last batch the table holds. Raises `Unavailable`."""
        table = await self.query(
            "SELECT usage_partition, max(usage_resume) FROM attempts WHERE usage_resume > 0 GROUP BY usage_partition"
        )
        return {int(partition): int(offset) for partition, offset in table.rows}

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Table:
        """Run a read-only query with `{name:Type}` parameters. Raises `Unavailable`."""
        found = await self._run(
            lambda: self._started().query(sql, parameters=dict(parameters or {}), settings={"readonly": 2})
        )
        return Table(tuple(found.column_names), found.result_rows)

    async def stop(self) -> None:
        """Close."""
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(client.close)

    def _connect(self) -> Client:
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.ERROR)
        password = self._password.get_secret_value()
        client = clickhouse_connect.get_client(**self._target, password=password)
        client.database = self._database
        return client

    def _started(self) -> Client:
        if self._client is None:
            raise Unavailable("the ledger is not started")
        return self._client

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except (ClickHouseError, HTTPError, OSError) as error:
            place = f"{self._target['interface']}://{self._target['host']}:{self._target['port']}"
            raise Unavailable(f"ClickHouse at {place}: {self._explained(error)}") from error

    def _explained(self, error: Exception) -> str:
        code = getattr(error, "code", None)
        if code in {UNKNOWN_TABLE, UNKNOWN_DATABASE}:
            return f"{_first_line(error)}; run `broker clickhouse migrate`"
        return _first_line(error) if code else _cause(error)

    def _migrate(self) -> list[str]:
        client = self._started()
        client.command(f"CREATE DATABASE IF NOT EXISTS {_quoted(self._database)}", use_database=False)
        client.command(SCHEMA)
        applied = {name for (name,) in client.query("SELECT name FROM schema_migrations").result_rows}
        new = [each for each in migrations() if each.name not in applied]
        for each in new:
            for statement in statements(each.sql):
                client.command(statement)
            client.command("INSERT INTO schema_migrations (name) VALUES ({name:String})", {"name": each.name})
        found = client.query(
            "SELECT engine_full FROM system.tables WHERE database = {database:String} AND name = 'attempts'",
            {"database": self._database},
        )
        change = ttl(str(found.result_rows[0][0]), self._settings.ttl_days)
        if change is not None:
            client.command(change, settings={"materialize_ttl_after_modify": 0})
        return [each.name for each in new]

    def _insert(self, prepared: Prepared) -> list[tuple[LedgerRow, str]]:
        refused = list(prepared.refused)
        for lines in prepared.months:
            self._write(lines, refused, resumes=True)
        return refused

    def _write(self, lines: Sequence[Line], refused: list[tuple[LedgerRow, str]], *, resumes: bool) -> None:
        """Write lines in one INSERT; where the table refuses it, halve until the rows at fault stand alone."""
        tells = resumes and not refused
        try:
            self._started().raw_insert(
                "attempts", insert_block=b"\n".join([line.json(tells=tells) for line in lines]), fmt="JSONEachRow",
                settings=INSERT,
            )  # fmt: skip
        except Error as error:
            if error.code not in REFUSING:
                raise
            if len(lines) == 1:
                refused.append((lines[0].row, _first_line(error)))
                return
            middle = len(lines) // 2
            self._write(lines[:middle], refused, resumes=False)
            self._write(lines[middle:], refused, resumes=resumes)


def _target(settings: ClickHouse) -> dict[str, Any]:
    """Arguments of the client; raises `ConfigError` for a DSN that names no server."""
    if settings.dsn is None:
        raise ConfigError("no ClickHouse: start `broker up` in this folder, or name clickhouse.dsn")
    parts = urlsplit(settings.dsn.get_secret_value())
    secure = parts.scheme in {"clickhouses", "https"}
    if parts.scheme not in {"clickhouse", "clickhouses", "http", "https"} or not parts.hostname:
        raise ConfigError("clickhouse.dsn: write it as clickhouse://user:password@host:8123/database")
    return {
        "host": parts.hostname,
        "port": parts.port or (8443 if secure else 8123),
        "interface": "https" if secure else "http",
        "username": unquote(parts.username or "default"),
        "password": SecretStr(unquote(parts.password or "")),
        "database": parts.path.strip("/") or "default",
        "ca_cert": settings.ca_cert,
        "client_cert": settings.client_cert,
        "client_cert_key": settings.client_cert_key,
        "connect_timeout": CONNECT_S,
        "send_receive_timeout": ANSWER_S,
        "autogenerate_session_id": False,  # a session would let one statement run at a time
        "query_retries": 0,
        "dedicated_pool": True,
        "client_name": "broker",
    }


def _quoted(name: str) -> str:
    return "`{}`".format(name.replace("\\", "\\\\").replace("`", "\\`"))


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:500] if text else type(error).__name__


def _cause(error: Exception) -> str:
    """Say in a few words what went wrong on the way to the server: the client library quotes every layer's words."""
    network = [each for each in _chain(error) if isinstance(each, HTTPError | OSError)]
    if not network:
        return _first_line(error)
    innermost = network[-1]
    if isinstance(innermost, TimeoutError):
        return "no answer in time"
    text = getattr(innermost, "strerror", None) or _first_line(innermost)
    return f"{text[0].lower()}{text[1:]}"


def _chain(error: BaseException | None) -> Iterator[Exception]:
    """The error and what led to it, outermost first."""
    while isinstance(error, Exception):
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
