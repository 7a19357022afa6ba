"""The ledger: the table of attempts, written in batches and asked in SQL. The contract stands on the method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from schemas.usage import UsageEvent


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A usage event and where it stood in the usage topic: what a restarted sink resumes from."""

    event: UsageEvent
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Table:
    """A query's answer."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Ledger(Protocol):
    """The attempts table. Blocking work happens off the event loop."""

    async def start(self) -> None:
        """Connect. Raises `Unavailable`."""
        ...

    async def migrate(self) -> Sequence[str]:
        """Apply the migrations that are not applied yet and return their names; idempotent."""
        ...

    async def insert(self, rows: Sequence[LedgerRow]) -> Sequence[tuple[LedgerRow, str]]:
        """Write rows in one INSERT and return the rows the table refuses, each with the reason.

        Raises `Unavailable`: the caller tries the identical rows again.
        """
        ...

    async def next_offsets(self) -> Mapping[int, int]:
        """Partition of the usage topic to the offset after the last row the table holds."""
        ...

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Table:
        """Run a read-only query. Raises `Unavailable`."""
        ...

    async def stop(self) -> None:
        """Close."""
        ...
