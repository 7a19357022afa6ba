"""Either journal, and what tests claim and store in it."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from broker.adapters.memory_journal import MemoryJournal
from broker.adapters.redis_journal import RedisJournal
from broker.config.models import Redis
from broker.ports import Answer, Claim, Ending, Journal, Lease
from broker.topics import TopicNames

LEASE_SECONDS = 1.0


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.embedded)])
def unstarted(request: pytest.FixtureRequest, unique_prefix: str) -> Journal:
    """Either journal; not async, because the real Redis is started on a loop of its own."""
    if request.param == "memory":
        return MemoryJournal(lease_seconds=LEASE_SECONDS)
    url = SecretStr(request.getfixturevalue("redis_url"))
    return RedisJournal(Redis(url=url, lease_seconds=LEASE_SECONDS), TopicNames(unique_prefix))


@pytest.fixture
async def journal(unstarted: Journal) -> AsyncIterator[Journal]:
    await unstarted.start()
    yield unstarted
    await unstarted.stop()


def claim(token: str = "w1.1", request_id: str = "r-1", **fields: object) -> Claim:  # noqa: S107 - no secret
    values = {"key": f"r:{request_id}", "hop": 0, "place": "t-0-0", "tenant": "acme", **fields}
    return Claim(token=token, request_id=request_id, **values)  # type: ignore[arg-type] # a test's builder


def answer(request_id: str = "r-1", body: bytes = b'{"id": "x"}', status: int = 200) -> Answer:
    return Answer(request_id, status, body, {"request-id": request_id, "served-by": "local/0", "cost": ""})


def ending(lease: Lease | None, given: Answer | None = None, place: str = "t-0-0") -> Ending:
    return Ending(lease, place, given or answer(), usage=(b'{"usage_id": "r-1:1"}',))


async def own(journal: Journal, given: Claim) -> Lease:
    """Claim, and return the lease that has to come of it."""
    found = (await journal.acquire([given]))[0]
    assert found.standing == "owned"
    return Lease(given.key, given.token, given.hop, found.fence)
