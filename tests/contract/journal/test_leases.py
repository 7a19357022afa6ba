"""Leases: one owner at a time, a fence that grows, and outcomes that only the newest owner stores."""

import asyncio
from dataclasses import replace

import pytest

from broker.adapters.memory_journal import MemoryJournal
from broker.adapters.redis_journal import RedisJournal
from broker.ports import Claimed, Copy, Ending, Journal, Lease, Standing
from tests.contract.journal.conftest import LEASE_SECONDS, answer, claim, ending, own

PATIENCE = 10.0


async def until_owned(journal: Journal, token: str) -> Claimed:
    """Claim until the lease of another has expired."""
    async with asyncio.timeout(PATIENCE):
        while (found := (await journal.acquire([claim(token)]))[0]).standing is Standing.PEER:  # noqa: ASYNC110 - it expires by time
            await asyncio.sleep(LEASE_SECONDS / 20)
    return found


async def forget_all(journal: Journal) -> None:
    """Lose everything, as a Redis that was restarted empty."""
    if isinstance(journal, MemoryJournal):
        journal.forget_all()
    elif isinstance(journal, RedisJournal):
        client = journal._redis.client  # noqa: SLF001 - only this test's own prefix is deleted
        keys = [key async for key in client.scan_iter(f"{journal._names.prefix}*")]  # noqa: SLF001
        await client.delete(*keys)


async def test_a_request_nobody_knows_is_owned_and_others_are_peers(journal: Journal) -> None:
    first, second = await journal.acquire([claim("w1.1"), claim("w2.1")])
    assert (first.standing, second.standing) == (Standing.OWNED, Standing.PEER)
    assert (await journal.acquire([claim("w1.1")]))[0] == first
    assert (await journal.acquire([claim("w3.1")]))[0].standing is Standing.PEER


async def test_nothing_is_asked_of_nobody(journal: Journal) -> None:
    assert list(await journal.acquire([])) == []
    assert list(await journal.begin([])) == []
    assert list(await journal.renew([])) == []
    assert list(await journal.complete([])) == []
    await journal.release([])
    await journal.published([])


async def test_three_hundred_claims_are_one_call_and_keep_their_order(journal: Journal) -> None:
    claims = [claim(f"w1.{number}", f"r-{number}") for number in range(300)]
    await journal.acquire(claims[::3])
    found = await journal.acquire([replace(each, token="w2." + each.token) for each in claims])
    expected = [Standing.OWNED if number % 3 else Standing.PEER for number in range(300)]
    assert [each.standing for each in found] == expected


async def test_an_expired_lease_goes_to_another_with_a_larger_fence_and_the_calls_that_were_begun(
    journal: Journal,
) -> None:
    lease = await own(journal, claim("w1.1"))
    assert list(await journal.begin([lease])) == [True]
    found = await until_owned(journal, "w2.1")
    assert (found.standing, found.starts) == (Standing.OWNED, 1)
    assert found.fence > lease.fence
    assert list(await journal.begin([lease])) == [False]
    assert list(await journal.renew([lease])) == [False]
    assert list(await journal.complete([ending(lease)])) == [False]
    assert await journal.outcome("r-1") is None


async def test_a_lease_that_is_renewed_does_not_expire(journal: Journal) -> None:
    lease = await own(journal, claim("w1.1"))
    loop = asyncio.get_running_loop()
    end = loop.time() + 2 * LEASE_SECONDS
    while loop.time() < end:
        assert list(await journal.renew([lease])) == [True]
        assert (await journal.acquire([claim("w2.1")]))[0].standing is Standing.PEER
        await asyncio.sleep(LEASE_SECONDS / 5)


async def test_a_lease_that_is_given_up_goes_to_the_next_at_once(journal: Journal) -> None:
    lease = await own(journal, claim("w1.1"))
    await journal.release([lease])
    found = (await journal.acquire([claim("w2.1")]))[0]
    assert (found.standing, found.starts) == (Standing.OWNED, 0)
    await journal.release([lease])  # of an earlier owner: without effect
    assert (await journal.acquire([claim("w3.1")]))[0].standing is Standing.PEER


async def test_an_outcome_is_found_by_every_later_claim_with_where_and_whether_it_was_published(
    journal: Journal,
) -> None:
    lease = await own(journal, claim("w1.1"))
    stored = ending(lease)
    assert list(await journal.complete([stored])) == [True]
    assert list(await journal.complete([stored])) == [True]  # sent again because its answer was lost
    found = (await journal.acquire([claim("w2.1", place="t-0-9")]))[0]
    assert found == Claimed(Standing.DONE, request_id="r-1", place="t-0-0", published=False, ending=stored)
    await journal.published([lease])
    assert (await journal.acquire([claim("w2.1")]))[0].published
    assert list(await journal.begin([lease])) == [False]
    assert await journal.outcome("r-1") == stored.answer


async def test_what_moved_on_is_published_by_the_next_owner_unless_it_is_out(journal: Journal) -> None:
    lease = await own(journal, claim("w1.1"))
    copies = (Copy("llm.requests.slow", [("hop", b"1"), ("odd", b"\xff")]),)
    moved = Ending(lease, "t-0-0", None, usage=(b"{}",), copies=copies)
    assert list(await journal.complete([moved])) == [True]
    assert (await journal.acquire([claim("w2.1")]))[0] == Claimed(Standing.MOVED, ending=moved)
    later = await own(journal, claim("w2.2", hop=1, place="u-0-0"))
    assert later.fence > lease.fence
    assert (await journal.acquire([claim("w3.1")]))[0] == Claimed(Standing.MOVED, ending=moved)
    await journal.published([lease])
    assert (await journal.acquire([claim("w3.1")]))[0] == Claimed(Standing.MOVED)
    assert (await journal.acquire([claim("w3.2", hop=1)]))[0].standing is Standing.PEER


async def test_a_request_the_log_takes_nowhere_else_is_answered_by_the_owner_that_moved_it(journal: Journal) -> None:
    lease = await own(journal, claim("w1.1"))
    assert list(await journal.complete([Ending(lease, "t-0-0", None)])) == [True]
    assert list(await journal.complete([ending(lease)])) == [True]
    assert (await journal.acquire([claim("w2.1")]))[0].standing is Standing.DONE


async def test_once_a_later_hop_exists_the_earlier_owner_stores_nothing(journal: Journal) -> None:
    lease = await own(journal, claim("w1.1"))
    assert list(await journal.complete([Ending(lease, "t-0-0", None)])) == [True]
    await own(journal, claim("w2.1", hop=1))
    assert list(await journal.complete([ending(lease)])) == [False]


async def test_a_later_hop_than_an_outcome_is_owned_since_only_a_replay_has_one(journal: Journal) -> None:
    lease = await own(journal, claim("w1.1"))
    await journal.complete([ending(lease)])
    again = await own(journal, claim("w1.2", hop=1))
    assert (await journal.acquire([claim("w2.1", hop=1)]))[0].standing is Standing.PEER
    second = ending(again, answer(status=201))
    assert list(await journal.complete([second])) == [True]
    assert await journal.outcome("r-1") == second.answer


async def test_one_idempotency_key_is_one_request_whatever_the_ids(journal: Journal) -> None:
    lease = await own(journal, claim("w1.1", "r-1", key="i:1"))
    assert (await journal.acquire([claim("w1.2", "r-2", key="i:1")]))[0].standing is Standing.PEER
    await journal.complete([ending(lease)])
    found = (await journal.acquire([claim("w1.2", "r-2", key="i:1")]))[0]
    assert (found.standing, found.request_id) == (Standing.DONE, "r-1")


async def test_an_id_of_another_tenant_tells_nothing(journal: Journal) -> None:
    lease = await own(journal, claim("w1.1"))
    assert (await journal.acquire([claim("w2.1", tenant="evil")]))[0] == Claimed(Standing.FOREIGN)
    await journal.complete([ending(lease)])
    assert (await journal.acquire([claim("w2.1", tenant="evil")]))[0] == Claimed(Standing.FOREIGN)


async def test_after_a_loss_of_everything_owners_take_their_leases_again_and_complete(journal: Journal) -> None:
    renewed, completed = await own(journal, claim("w1.1")), await own(journal, claim("w1.2", "r-2"))
    begun = await own(journal, claim("w1.3", "r-3"))
    await forget_all(journal)
    assert list(await journal.renew([renewed])) == [True]
    assert list(await journal.begin([begun])) == [True]
    found = await journal.acquire([claim("w2.1"), claim("w2.3", "r-3")])
    assert [each.standing for each in found] == [Standing.PEER, Standing.PEER]
    assert list(await journal.complete([ending(completed, answer("r-2"))])) == [True]
    assert (await journal.acquire([claim("w2.2", "r-2")]))[0].standing is Standing.DONE


async def test_after_a_loss_the_one_who_claims_first_has_it_and_the_fence_still_grows(journal: Journal) -> None:
    lease = await own(journal, claim("w1.1"))
    await forget_all(journal)
    other = await own(journal, claim("w2.1"))
    assert other.fence > lease.fence
    assert list(await journal.renew([lease])) == [False]
    assert list(await journal.complete([ending(lease)])) == [False]


async def test_an_ending_without_a_lease_is_readable_and_replaces_nothing(journal: Journal) -> None:
    assert list(await journal.complete([ending(None, answer("r-9", status=401))])) == [True]
    found = await journal.outcome("r-9")
    assert found is not None
    assert found.status == 401
    lease = await own(journal, claim("w1.1"))
    await journal.complete([ending(lease)])
    await journal.complete([ending(None, answer("r-1", status=401))])
    kept = await journal.outcome("r-1")
    assert kept is not None
    assert kept.status == 200


@pytest.mark.parametrize("hop", [0, 1])
async def test_a_lease_of_a_stranger_is_worth_nothing(journal: Journal, hop: int) -> None:
    lease = await own(journal, claim("w1.1", hop=hop))
    stranger = Lease(lease.key, "w9.9", lease.hop, lease.fence)
    assert list(await journal.begin([stranger])) == [False]
    await journal.release([stranger])
    await journal.published([stranger])
    assert (await journal.acquire([claim("w2.1", hop=hop)]))[0].standing is Standing.PEER
