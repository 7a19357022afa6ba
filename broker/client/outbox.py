"""Sends requests in groups: what is posted while one group is on its way leaves with the next. Knows only the port."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from broker.errors import Unavailable
from broker.ports import LogProducer, SendFailure
from broker.records import OutRecord

MAX_GROUP: Final = 1000
MAX_GROUPS: Final = 4
"""Groups on their way at once, so that one slow partition does not hold up the others."""

CLOSE_S: Final = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait before the first try again, doubled up to `most`."""

    first: float = 0.1
    most: float = 5.0

    def wait(self, tries: int) -> float:
        """Seconds to wait after `tries` failures in a row (1 or more)."""
        return min(self.most, self.first * 2.0 ** min(tries - 1, 30))


@dataclass(slots=True)
class Letter:
    """A record to send. `sent` is told once: None when it is acknowledged, why not when it never will be.

    A failure that may pass is tried again for as long as `wanted` says so; after that `sent` is not told at all.
    """

    record: OutRecord
    sent: Callable[[SendFailure | None], None]
    wanted: Callable[[], bool]
    failed: Callable[[str], None]
    """Told why a try did not succeed and will be repeated."""
    tries: int = 0


class Outbox:
    """Writes letters through a producer that it neither starts nor stops."""

    def __init__(self, producer: LogProducer, backoff: Backoff) -> None:
        self._producer = producer
        self._backoff = backoff
        self._queue: deque[Letter] = deque()
        self._groups: set[asyncio.Task[None]] = set()
        self._retries: set[asyncio.TimerHandle] = set()
        self._collecting = False
        self._closed = False

    def post(self, letter: Letter) -> None:
        """Queue a letter; it leaves at the next turn of the event loop. Raises `Unavailable` after `close`."""
        if self._closed:
            raise Unavailable("the client is closed")
        self._queue.append(letter)
        # The group starts at the loop's next turn: everything that is posted in this one leaves together.
        if not self._collecting and len(self._groups) < MAX_GROUPS:
            self._collecting = True
            task = asyncio.get_running_loop().create_task(self._send_groups())
            self._groups.add(task)
            task.add_done_callback(self._groups.discard)

    async def close(self) -> None:
        """Send what is queued, for at most `CLOSE_S`; give up what waits for another try."""
        self._closed = True
        for retry in self._retries:
            retry.cancel()
        self._retries.clear()
        if self._groups:
            _, late = await asyncio.wait(self._groups, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _send_groups(self) -> None:
        self._collecting = False
        while self._queue:
            group = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_GROUP))]
            group = [letter for letter in group if letter.wanted()]
            for letter, failure in zip(group, await self._send(group), strict=True):
                if failure is None or failure.permanent:
                    letter.sent(failure)
                else:
                    self._try_again(letter, failure.reason)

    async def _send(self, group: list[Letter]) -> list[SendFailure | None]:
        if not group:
            return []
        try:
            return list(await self._producer.send_all([letter.record for letter in group]))
        except Exception as error:  # noqa: BLE001 - whatever it was, every letter of the group must hear of it
            return [SendFailure(str(error), permanent=False)] * len(group)

    def _try_again(self, letter: Letter, reason: str) -> None:
        if self._closed or not letter.wanted():
            return
        letter.tries += 1
        letter.failed(reason)
        log.debug("a request could not be sent, trying again: %s", reason)

        def again() -> None:
            self._retries.discard(retry)
            if letter.wanted():
                self.post(letter)

        retry = asyncio.get_running_loop().call_later(self._backoff.wait(letter.tries), again)
        self._retries.add(retry)
