"""The two logs that one suite runs over."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.log.log_bench import Bench, kafka_bench, memory_bench


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.embedded)])
def unstarted(request: pytest.FixtureRequest, unique_prefix: str) -> Bench:
    """Clients of either log; not async, because the real one is started on a loop of its own."""
    if request.param == "memory":
        return memory_bench(unique_prefix)
    return kafka_bench(unique_prefix, request.getfixturevalue("kafka_bootstrap"))


@pytest.fixture
async def bench(unstarted: Bench) -> AsyncIterator[Bench]:
    """Clients of either log, stopped at the end."""
    yield unstarted
    await unstarted.stop()


@pytest.fixture
async def real(unique_prefix: str, kafka_bootstrap: str) -> AsyncIterator[Bench]:
    """Clients of the real log, for what only a wire has."""
    bench = kafka_bench(unique_prefix, kafka_bootstrap)
    yield bench
    await bench.stop()
