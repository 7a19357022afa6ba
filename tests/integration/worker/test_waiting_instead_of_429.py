"""A busy provider is waited for, over all workers: nobody gets a 429 because of it (limits.md)."""

import asyncio
import time
import uuid
from contextlib import AsyncExitStack

import pytest

from broker.config import Settings
from tests.serving import Caller, alias, calling, make_topics, settings_of, working
from tests.upstream import Ok, ReceivedCall, Status, Step, Upstream

pytestmark = pytest.mark.embedded

BUSY_SECONDS = 4.0
IN_FLIGHT = 4
"""Calls at once in each of the two workers: so many can be on their way before the first 429 is heard of."""
A_HANDFUL = 2 * IN_FLIGHT + 4


class Busy(Upstream):
    """Answers 429 until a moment, with what is left of the time in Retry-After; counts them."""

    def __init__(self) -> None:
        super().__init__(default=Ok(delay=0.05))
        self.until_s = float("inf")
        self.told = 0

    def begin(self, call: ReceivedCall) -> Step:
        if self.until_s == float("inf"):
            self.until_s = time.monotonic() + BUSY_SECONDS
        step = super().begin(call)
        left = self.until_s - time.monotonic()
        if left <= 0:
            return step
        self.told += 1
        return Status(429, retry_after=round(left, 2))


async def asked(settings: Settings, caller: Caller, count: int, in_flight: int) -> set[int]:
    """Publish requests to two worker processes and return the statuses of the replies."""
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(working(settings, in_flight=in_flight))
        name = next(iter(settings.aliases))
        ids = await asyncio.gather(*(caller.publish(name, request_id=uuid.uuid4().hex) for _ in range(count)))
        return {reply.status for reply in await caller.replies(*ids)}


async def test_fifty_jobs_on_five_slots_are_all_answered_and_never_more_than_five_run(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    with Upstream(default=Ok(delay=0.1)) as up:
        narrow = alias("narrow", up.url, limits={"max_parallel_requests": 5, "name": f"{unique_prefix}narrow/0"})
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, narrow)
        await make_topics(settings, partitions=6)
        async with calling(settings) as caller:
            statuses = await asked(settings, caller, 50, in_flight=200)
    assert statuses == {200}
    assert up.peak <= 5
    assert len(up.calls) == 50


async def test_a_provider_that_is_busy_for_a_while_gets_a_handful_of_calls_and_everyone_an_answer(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    with Busy() as up:
        busy = alias("busy", up.url, limits={"name": f"{unique_prefix}busy/0"})
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, busy)
        await make_topics(settings, partitions=6)
        async with calling(settings) as caller:
            statuses = await asked(settings, caller, 100, in_flight=IN_FLIGHT)
    assert statuses == {200}
    assert up.told <= A_HANDFUL
    assert len(up.calls) == 100 + up.told
