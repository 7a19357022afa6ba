"""Leases and outcomes in memory: the twin of `RedisJournal`, its time an injected clock."""

from collections.abc import Sequence
from dataclasses import dataclass

from broker.clock import Clock, SystemClock
from broker.errors import Unavailable
from broker.ports import Answer, Claim, Claimed, Ending, Lease, Standing


@dataclass(slots=True)
class _Entry:
    """What is known of one request; times are the clock's monotonic seconds."""

    token: str
    fence: int
    hop: int
    until: float
    forgotten_at: float
    place: str
    request_id: str
    tenant: str
    starts: int = 0
    done: bool = False
    moved: bool = False
    published: bool = False


class MemoryJournal:
    """Keeps what `RedisJournal` keeps. While `down` is set every operation is `Unavailable`."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        answer_ttl: float = 3600.0,
        marker_ttl: float = 86_400.0,
        lease_seconds: float = 30.0,
    ) -> None:
        self._clock = clock or SystemClock()
        self._answer_ttl = answer_ttl
        self._marker_ttl = marker_ttl
        self._lease = lease_seconds
        self._entries: dict[str, _Entry] = {}
        self._answers: dict[str, tuple[float, Ending]] = {}
        self._moved: dict[tuple[str, int], Ending] = {}
        self._owners = 0
        self.down = False

    def forget_all(self) -> None:
        """Lose everything, as a Redis without persistence does when it restarts."""
        self._entries.clear()
        self._answers.clear()
        self._moved.clear()

    async def start(self) -> None:
        """Connect. Raises `Unavailable`."""
        self._check()

    async def acquire(self, claims: Sequence[Claim]) -> Sequence[Claimed]:
        """Claim; see the port."""
        self._check()
        return [self._acquire(claim) for claim in claims]

    async def begin(self, leases: Sequence[Lease]) -> Sequence[bool]:
        """Note that calls are about to be made; see the port."""
        self._check()
        found = [self._own(lease) for lease in leases]
        for entry in found:
            if entry is not None:
                entry.starts += 1
        return [entry is not None for entry in found]

    async def renew(self, leases: Sequence[Lease]) -> Sequence[bool]:
        """Let leases last from now on; see the port."""
        self._check()
        found = [self._own(lease) for lease in leases]
        for entry in found:
            if entry is not None:
                entry.until = self._clock.monotonic() + self._lease
        return [entry is not None for entry in found]

    async def release(self, leases: Sequence[Lease]) -> None:
        """Give leases up without an outcome."""
        self._check()
        for lease in leases:
            entry = self._entry(lease.key)
            if entry is not None and _is(entry, lease) and not (entry.done or entry.moved):
                entry.until = 0.0

    async def complete(self, endings: Sequence[Ending]) -> Sequence[bool]:
        """Store outcomes; see the port."""
        self._check()
        return [self._complete(ending) for ending in endings]

    async def published(self, leases: Sequence[Lease]) -> None:
        """Note that completed leases are published; see the port."""
        self._check()
        for lease in leases:
            self._moved.pop((lease.key, lease.hop), None)
            entry = self._entry(lease.key)
            if entry is not None and _is(entry, lease) and (entry.done or entry.moved):
                entry.published = True
                _, ending = self._answers.get(entry.request_id, (0.0, None))
                if entry.done and ending is not None:
                    self._answers[entry.request_id] = (self._clock.monotonic() + self._answer_ttl, ending)

    async def outcome(self, request_id: str) -> Answer | None:
        """Return the stored final reply; None when there is none, or no longer."""
        self._check()
        ending = self._answer(request_id)
        return ending.answer if ending is not None else None

    async def ping(self) -> None:
        """Return when the store answers, raise `Unavailable` when it does not."""
        self._check()

    async def stop(self) -> None:
        """Close."""

    def _acquire(self, claim: Claim) -> Claimed:
        entry = self._entry(claim.key)
        if entry is None or claim.hop > entry.hop:
            return self._owned(claim, entry.fence if entry is not None else 0, 0)
        if entry.tenant not in {"", claim.tenant}:
            return Claimed(Standing.FOREIGN)
        if entry.done:
            return Claimed(
                Standing.DONE,
                request_id=entry.request_id,
                place=entry.place,
                published=entry.published,
                ending=self._answer(entry.request_id),
            )
        if claim.hop < entry.hop or entry.moved:
            return Claimed(Standing.MOVED, ending=self._moved.get((claim.key, claim.hop)))
        return self._leased(claim, entry)

    def _leased(self, claim: Claim, entry: _Entry) -> Claimed:
        now = self._clock.monotonic()
        if entry.token == claim.token:
            entry.until = now + self._lease
            return Claimed(Standing.OWNED, fence=entry.fence)
        return Claimed(Standing.PEER) if entry.until > now else self._owned(claim, entry.fence, entry.starts)

    def _owned(self, claim: Claim, fence: int, starts: int) -> Claimed:
        self._owners += 1
        entry = self._new(
            Lease(claim.key, claim.token, claim.hop, max(fence + 1, self._clock.now_ms() * 1000 + self._owners))
        )
        entry.place, entry.request_id, entry.tenant = claim.place, claim.request_id, claim.tenant
        entry.starts = starts
        return Claimed(Standing.OWNED, fence=entry.fence, starts=starts)

    def _new(self, lease: Lease) -> _Entry:
        now = self._clock.monotonic()
        entry = _Entry(lease.token, lease.fence, lease.hop, now + self._lease, now + self._marker_ttl, "", "", "")
        self._entries[lease.key] = entry
        return entry

    def _own(self, lease: Lease) -> _Entry | None:
        """Return the entry of a lease that is still the newest; one that was forgotten is taken again."""
        entry = self._entry(lease.key)
        if entry is None:
            entry = self._new(lease)
        return entry if _is(entry, lease) and not (entry.done or entry.moved) else None

    def _complete(self, ending: Ending) -> bool:
        lease, answer = ending.lease, ending.answer
        end = self._clock.monotonic()
        if lease is None:
            if answer is not None and self._answer(answer.request_id) is None:
                self._answers[answer.request_id] = (end + self._answer_ttl, ending)
            return True
        entry = self._entry(lease.key) or self._new(lease)
        if not _is(entry, lease):
            return False
        entry.place, entry.published = ending.place, False
        if answer is None:
            entry.moved = True
            self._moved[lease.key, lease.hop] = ending
        else:
            entry.done, entry.moved, entry.request_id = True, False, answer.request_id
            self._moved.pop((lease.key, lease.hop), None)
            self._answers[answer.request_id] = (end + max(self._answer_ttl, self._marker_ttl), ending)
        return True

    def _entry(self, key: str) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is not None and entry.forgotten_at <= self._clock.monotonic():
            del self._entries[key]
            return None
        return entry

    def _answer(self, request_id: str) -> Ending | None:
        end, ending = self._answers.get(request_id, (0.0, None))
        if ending is not None and self._clock.monotonic() >= end:
            del self._answers[request_id]
            return None
        return ending

    def _check(self) -> None:
        if self.down:
            raise Unavailable("memory journal: down")


def _is(entry: _Entry, lease: Lease) -> bool:
    return entry.token == lease.token and entry.fence == lease.fence and entry.hop == lease.hop
