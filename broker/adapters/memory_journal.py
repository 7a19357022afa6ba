"""The journal's twin in memory."""

from collections.abc import Sequence

from broker.clock import Clock
from broker.config import Redis
from broker.errors import Unavailable
from broker.ports import Answer


class MemoryJournal:
    """Stored outcomes by request id. `down` makes every operation fail as if the store were away."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._ttl = redis.answer_ttl
        self._clock = clock
        self._stored: dict[str, tuple[float, Answer]] = {}
        self.down = False

    async def start(self) -> None:
        """Connect."""
        await self.ping()

    async def complete(self, answers: Sequence[Answer]) -> None:
        """Store outcomes."""
        await self.ping()
        until = self._clock.monotonic() + self._ttl
        self._stored |= {answer.request_id: (until, answer) for answer in answers}

    async def outcome(self, request_id: str) -> Answer | None:
        """Return the stored outcome; None when there is none, or no longer."""
        await self.ping()
        until, answer = self._stored.get(request_id, (0.0, None))
        return answer if self._clock.monotonic() < until else None

    async def ping(self) -> None:
        """Raise `Unavailable` while `down`."""
        if self.down:
            raise Unavailable("the journal is away")

    async def stop(self) -> None:
        """Close; what is stored stays."""
