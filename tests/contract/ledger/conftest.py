"""Both ledgers: in memory, and ClickHouse with a database of its own for each test."""

import uuid
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from broker.adapters.clickhouse import ClickHouseLedger
from broker.adapters.memory_ledger import MemoryLedger
from broker.config import ClickHouse
from broker.ports import Ledger


@pytest.fixture
def fresh_dsn(clickhouse_dsn: str) -> str:
    """DSN of a database that does not exist yet."""
    return f"{clickhouse_dsn.rpartition('/')[0]}/t{uuid.uuid4().hex[:10]}"


@pytest.fixture
async def clickhouse(fresh_dsn: str) -> AsyncIterator[ClickHouseLedger]:
    ledger = ClickHouseLedger(ClickHouse(dsn=SecretStr(fresh_dsn)))
    await ledger.start()
    await ledger.migrate()
    yield ledger
    await ledger.stop()


@pytest.fixture(params=["memory", pytest.param("clickhouse", marks=pytest.mark.embedded)])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    if request.param == "memory":
        return MemoryLedger()
    found: Ledger = request.getfixturevalue("clickhouse")
    return found
