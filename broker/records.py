"""Records as they are read and written, and committed positions: what every layer above the log speaks of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes]]


class Partition(NamedTuple):
    """A partition of a topic; equal and hash-equal to any `(topic, partition)` tuple."""

    topic: str
    partition: int


class Record(Protocol):
    """A record as read. `timestamp` is unix milliseconds; the value is exactly what was produced."""

    @property
    def topic(self) -> str: ...  # noqa: D102 - named by itself
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Headers: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class OutRecord:
    """A record to be written; with no `partition` the key decides, with neither the producer spreads."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = field(default=(), repr=False)
    """Not shown: a client's may hold a virtual key."""
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """A committed position: every offset below `offset` is done; `metadata` (at most 4,096 bytes) tells the rest."""

    offset: int
    metadata: str = ""
