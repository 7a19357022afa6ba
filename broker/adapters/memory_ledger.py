"""The ledger in memory: the twin of `broker.adapters.clickhouse`. Rows with one `usage_id` are one row."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from broker.adapters.clickhouse_rows import prepare
from broker.errors import Unavailable
from broker.ports import LedgerRow, Table

MIGRATION: Final = "memory"


class MemoryLedger:
    """Holds rows in `rows`, by usage id. With `available` False every call raises `Unavailable`."""

    def __init__(self) -> None:
        self.rows: dict[str, LedgerRow] = {}
        self.inserts: list[int] = []
        """Rows of each INSERT, in order."""
        self.available = True
        self._resume: dict[int, int] = {}
        self._migrated = False

    async def start(self) -> None:
        """Connect."""
        self._check()

    async def migrate(self) -> Sequence[str]:
        """Make the one table, the first time."""
        self._check()
        new = [] if self._migrated else [MIGRATION]
        self._migrated = True
        return new

    async def insert(self, rows: Sequence[LedgerRow]) -> Sequence[tuple[LedgerRow, str]]:
        """Keep rows; the same are refused as by the real table."""
        self._check()
        prepared = prepare(rows)
        for lines in prepared.months:
            self.inserts.append(len(lines))
            for line in lines:
                self._keep(line.row)
                if line.resume and not prepared.refused:
                    self._resume[line.row.partition] = max(self._resume.get(line.row.partition, 0), line.resume)
        return list(prepared.refused)

    async def next_offsets(self) -> Mapping[int, int]:
        """Partition of the usage topic to the offset to resume from."""
        self._check()
        return dict(self._resume)

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Table:
        """Raise: there is no SQL here; read `rows`."""
        del sql, parameters
        raise NotImplementedError("the ledger in memory answers no SQL; read its rows")

    async def stop(self) -> None:
        """Close; the rows stay."""

    def _keep(self, row: LedgerRow) -> None:
        known = self.rows.get(row.event.usage_id)
        if known is None or row.offset >= known.offset:
            self.rows[row.event.usage_id] = row

    def _check(self) -> None:
        if not self.available:
            raise Unavailable("the ledger in memory was told to be away")
