"""Stored outcomes in memory: the twin of `RedisJournal`, forgetting by an injected clock."""

from collections.abc import Sequence

from broker.clock import Clock, SystemClock
from broker.errors import Unavailable
from broker.ports import Answer


class MemoryJournal:
    """Outcomes by request id, kept for `answer_ttl` seconds. While `down` is set every operation is `Unavailable`."""

    def __init__(self, *, clock: Clock | None = None, answer_ttl: float = 3600.0) -> None:
        self._clock = clock or SystemClock()
        self._ttl = answer_ttl
        self._stored: dict[str, tuple[float, Answer]] = {}
        self.down = False

    async def start(self) -> None:
        """Connect. Raises `Unavailable`."""
        self._check()

    async def complete(self, answers: Sequence[Answer]) -> None:
        """Store outcomes; the later one of a request id wins. Raises `Unavailable`."""
        self._check()
        end = self._clock.monotonic() + self._ttl
        self._stored.update({answer.request_id: (end, answer) for answer in answers})

    async def outcome(self, request_id: str) -> Answer | None:
        """Return the stored outcome; None when there is none, or no longer. Raises `Unavailable`."""
        self._check()
        end, answer = self._stored.get(request_id, (0.0, None))
        if answer is not None and self._clock.monotonic() >= end:
            del self._stored[request_id]
            return None
        return answer

    async def ping(self) -> None:
        """Return when the store answers, raise `Unavailable` when it does not."""
        self._check()

    async def stop(self) -> None:
        """Close."""

    def _check(self) -> None:
        if self.down:
            raise Unavailable("memory journal: down")
