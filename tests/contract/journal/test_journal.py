"""The journal: what was completed is found again by its request id, for a while."""

import asyncio

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis as RedisClient

from broker.adapters.redis_journal import RedisJournal
from broker.config.models import Redis
from broker.errors import Unavailable
from broker.ports import Journal
from broker.topics import TopicNames
from tests.contract.journal.conftest import answer, claim, ending, own


@pytest.mark.parametrize("size", [0, 11, 16 << 10, 300 << 10, 4 << 20])
async def test_an_answer_comes_back_as_it_was_stored_whatever_its_size(journal: Journal, size: int) -> None:
    stored = answer(body=(b'"\n\x00\xff' * size)[:size])
    await journal.complete([ending(await own(journal, claim()), stored)])
    assert await journal.outcome("r-1") == stored


async def test_an_unknown_request_has_no_outcome(journal: Journal) -> None:
    assert await journal.outcome("nobody") is None


async def test_many_answers_are_stored_at_once_and_none_is_fine(journal: Journal) -> None:
    await journal.complete([])
    await journal.complete([ending(None, answer(f"r-{number}", status=200 + number)) for number in range(300)])
    found = await asyncio.gather(*(journal.outcome(f"r-{number}") for number in range(300)))
    assert [a and a.status for a in found] == [200 + number for number in range(300)]


async def test_any_text_can_be_a_request_id(journal: Journal) -> None:
    request_id = "llm.requests.x-3-17 é\n:*"
    await journal.complete([ending(None, answer(request_id))])
    assert await journal.outcome(request_id) == answer(request_id)


async def test_a_journal_that_answers_can_be_pinged(journal: Journal) -> None:
    await journal.ping()


@pytest.mark.embedded
async def test_answers_are_kept_under_the_prefix_and_for_their_time(redis_url: str, unique_prefix: str) -> None:
    journal = RedisJournal(Redis(url=SecretStr(redis_url), answer_ttl=120), TopicNames(unique_prefix))
    await journal.start()
    await journal.complete([ending(None)])
    async with RedisClient.from_url(redis_url) as client:
        assert 0 < await client.pttl(f"{unique_prefix}answer:r-1") <= 120_000
    await journal.stop()


async def test_a_redis_that_is_not_there_is_unavailable_by_name(unused_tcp_port: int) -> None:
    journal = RedisJournal(Redis(url=SecretStr(f"redis://:secret@127.0.0.1:{unused_tcp_port}/0")), TopicNames())
    with pytest.raises(Unavailable, match=f"127.0.0.1:{unused_tcp_port}") as caught:
        await journal.start()
    assert "secret" not in str(caught.value)
    for call in (journal.complete([ending(None)]), journal.outcome("r-1"), journal.ping()):
        with pytest.raises(Unavailable):
            await call
    await journal.stop()
