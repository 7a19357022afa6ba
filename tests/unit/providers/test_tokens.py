"""Tokens that are fetched: once for all who wait, anew before they expire, and never shown."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from broker.clock import ManualClock
from broker.errors import UpstreamUnreachable
from workers.providers.tokens import EARLY_SECONDS, REST_SECONDS, YOUNG_SECONDS, Token, Tokens

HOUR = 3600.0


class Service:
    """Gives out `token-1`, `token-2`, …; while `gate` is closed it keeps whoever asks waiting."""

    def __init__(self, seconds: float = HOUR) -> None:
        self.asked = 0
        self.failing = False
        self.gate = asyncio.Event()
        self.gate.set()
        self._seconds = seconds

    async def fetch(self) -> Token:
        self.asked += 1
        name = f"token-{self.asked}"
        await self.gate.wait()
        if self.failing:
            raise UpstreamUnreachable("cannot reach the token service")
        return Token(name, self._seconds)


async def settled(condition: Callable[[], bool], after: Callable[[], Awaitable[object]]) -> None:
    """Let the loop run until a condition holds; a condition that never does meets the test's own timeout."""
    while not condition():
        await after()


async def turn() -> None:
    await asyncio.sleep(0)


async def test_a_hundred_who_wait_get_one_token() -> None:
    service, clock = Service(), ManualClock()
    tokens = Tokens(service.fetch, clock)
    assert await asyncio.gather(*(tokens.get() for _ in range(100))) == ["token-1"] * 100
    assert service.asked == 1


async def test_a_token_is_kept_until_shortly_before_its_end() -> None:
    service, clock = Service(), ManualClock()
    tokens = Tokens(service.fetch, clock)
    await tokens.get()
    clock.advance(HOUR - EARLY_SECONDS - 1)
    assert (await tokens.get(), service.asked) == ("token-1", 1)


async def test_a_token_near_its_end_serves_on_while_the_next_is_fetched() -> None:
    service, clock = Service(), ManualClock()
    tokens = Tokens(service.fetch, clock)
    await tokens.get()
    clock.advance(HOUR - EARLY_SECONDS + 1)
    service.gate.clear()
    assert [await tokens.get() for _ in range(3)] == ["token-1"] * 3
    await settled(lambda: service.asked == 2, turn)
    service.gate.set()
    seen = {await tokens.get()}

    async def look() -> None:
        await turn()
        seen.add(await tokens.get())

    await settled(lambda: "token-2" in seen, look)
    assert service.asked == 2


async def test_a_token_at_its_end_is_waited_for() -> None:
    service, clock = Service(), ManualClock()
    tokens = Tokens(service.fetch, clock)
    await tokens.get()
    clock.advance(HOUR)
    assert await tokens.get() == "token-2"


async def test_a_short_token_is_renewed_within_its_own_life() -> None:
    service, clock = Service(60), ManualClock()
    tokens = Tokens(service.fetch, clock)
    await tokens.get()
    clock.advance(44)
    assert (await tokens.get(), service.asked) == ("token-1", 1)
    clock.advance(15)
    assert await tokens.get() == "token-2"


async def test_a_caller_who_leaves_takes_nothing_from_the_others() -> None:
    service, clock = Service(), ManualClock()
    tokens = Tokens(service.fetch, clock)
    service.gate.clear()
    first, second = asyncio.create_task(tokens.get()), asyncio.create_task(tokens.get())
    await settled(lambda: service.asked == 1, turn)
    first.cancel()
    await asyncio.wait([first])
    service.gate.set()
    assert (await second, service.asked) == ("token-1", 1)


async def test_a_service_that_failed_is_left_alone_for_a_while() -> None:
    service, clock = Service(), ManualClock()
    tokens = Tokens(service.fetch, clock)
    service.failing = True
    for _ in range(5):
        with pytest.raises(UpstreamUnreachable):
            await tokens.get()
    assert service.asked == 1
    service.failing = False
    clock.advance(REST_SECONDS)
    assert await tokens.get() == "token-2"


async def test_a_renewal_that_fails_costs_no_call_while_the_token_is_good() -> None:
    service, clock = Service(), ManualClock()
    tokens = Tokens(service.fetch, clock)
    await tokens.get()
    clock.advance(HOUR - EARLY_SECONDS)
    service.failing = True
    assert await tokens.get() == "token-1"
    await settled(lambda: service.asked == 2, turn)
    await turn()
    assert [await tokens.get() for _ in range(3)] == ["token-1"] * 3
    assert service.asked == 2


async def test_a_refused_token_is_dropped_once() -> None:
    service, clock = Service(), ManualClock()
    tokens = Tokens(service.fetch, clock)
    await tokens.get()
    clock.advance(YOUNG_SECONDS)
    for _ in range(100):
        tokens.refused()
    assert await asyncio.gather(*(tokens.get() for _ in range(100))) == ["token-2"] * 100
    for _ in range(100):
        tokens.refused()
    assert (await tokens.get(), service.asked) == ("token-2", 2)


def test_a_token_is_not_in_its_repr() -> None:
    assert "very-secret" not in repr(Token("very-secret", HOUR))
