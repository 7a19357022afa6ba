"""Who goes next where permits are scarce: two lanes, tenants inside a lane, the order inside a tenant. Pure state.

Lanes and tenants as in limits.md. Imports nothing of ours; times come as arguments, permits and calls are unknown here.
"""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, Generic, TypeVar

NOISY_SHARE: Final = 0.1
NOISY_REQUESTS: Final = 30
"""A tenant is noisy above this part of a buffer and this many requests in it (limits.md)."""

FAIR_SHARE: Final = 0.5
"""Part of a buffer that tenants may fill by their weights, noisy or not. The other part stays free for reading on, and
what they keep lasts while the records of one tenant that stand in front of the others' go by."""

PARKED_FROM: Final = 60.0
"""Seconds until a request's turn from which it is parked, for half of them: a wrong estimate leaves no lane idle. What
comes sooner goes to the end of its own topic, where it is read as soon as nothing stands before it."""
PARKED_MOST: Final = 600.0
"""Seconds of the longest delay topic."""

RATE_SECONDS: Final = 30.0
"""What a rate of starts remembers."""
STANDSTILL: Final = 60.0
"""Seconds without a start after which nothing is parked any more: what stands behind could not start either."""
KNOWN_SECONDS: Final = 120.0
"""A tenant that sent nothing for this long is forgotten."""

PROBED_AT_ONCE: Final = 64
"""What is put away at once while every tenant that is known has enough here: it finds one that stands behind a batch,
and costs little."""

_DUE: Final = 1.0 - 1e-9

T = TypeVar("T")
_Entry = tuple[int, int, int, int, int, int, "_Share[T]", T]
"""Priority, deadline, arrival; a ticket, so that no two are equal; tokens, and the output among them; whose; what."""


class _Share(Generic[T]):
    """One tenant in one lane."""

    __slots__ = ("active", "arrived", "count", "heap", "level", "parked", "rate", "seen", "since", "started", "tenant",
                 "weight")  # fmt: skip

    def __init__(self, tenant: str, weight: float, now: float) -> None:
        self.tenant = tenant
        self.weight = weight
        self.heap: list[_Entry[T]] = []
        self.count = 0
        """Those in the heap that still wait."""
        self.level = 0.0
        """Tokens started, over the weight: the lowest goes next. It is the deficit turned round."""
        self.active = False
        """Whether it stands in the lane's ring."""
        self.arrived = True
        self.started = 0
        """Since the lane was rolled."""
        self.rate = 0.0
        """Starts a second of late."""
        self.parked = 0
        """Requests put away that have probably not been started since."""
        self.since = now
        self.seen = now

    def roll(self, now: float, seconds: float) -> None:
        weight = seconds / min(RATE_SECONDS, max(now - self.since, seconds))
        self.rate += (self.started / seconds - self.rate) * weight
        self.parked = max(0, self.parked - self.started)
        if self.arrived or self.count:
            self.seen = now
        self.started = 0
        self.arrived = False


class FairQueue(Generic[T]):
    """What waits in one lane, in the order in which it should start. `add`, `head`, `take`, `discard`: O(log n).

    Between tenants it is weighted deficit round robin in its sorted form: each tenant has a level, the tokens it was
    given over its weight, and the lowest goes next, which is what a quantum of one token comes to. A request of any
    size goes when its tenant's turn comes, and is made up for afterwards. A tenant that had nothing waiting joins at
    the level of those that had. Inside a tenant: priority (lowest first), deadline, arrival.
    """

    __slots__ = ("_highest", "_level", "_live", "_ring", "_rolled", "_shares", "_started_at", "_tickets", "_turns",
                 "_weights", "count", "output", "tokens")  # fmt: skip

    def __init__(self, weights: Mapping[str, float] | None = None, now: float = 0.0) -> None:
        """`weights` by tenant, 1 where it names none; `now` is monotonic seconds."""
        self._weights = weights or {}
        self._shares: dict[str, _Share[T]] = {}
        self._ring: list[tuple[float, int, _Share[T]]] = []
        self._live: dict[T, _Entry[T]] = {}
        self._level = self._highest = 0.0
        self._tickets = self._turns = 0
        self._rolled = now
        self._started_at: float | None = None
        self.count = 0
        """What waits here."""
        self.tokens = 0
        """Of all that waits; `output` is the part that is output."""
        self.output = 0

    def add(  # noqa: PLR0913, PLR0917 - called for every request, and names cost
        self, item: T, tenant: str, tokens: int, output: int, priority: int, deadline: int, arrival: int
    ) -> None:
        """Take what may start; `deadline` in unix milliseconds. An item may be added once only until it has left."""
        share = self._shares.get(tenant)
        if share is None:
            share = self._shares[tenant] = _Share(tenant, self._weights.get(tenant, 1.0), self._rolled)
        self._tickets = ticket = self._tickets + 1
        self._live[item] = entry = (priority, deadline, arrival, ticket, tokens, output, share, item)
        heappush(share.heap, entry)
        share.arrived = True
        share.count += 1
        self.count += 1
        self.tokens += tokens
        self.output += output
        if not share.active:
            level = self._level if self._ring else self._highest
            share.level = max(share.level, level)
            share.active = True
            self._push(share)

    def head(self) -> T | None:
        """Return what goes next; None where nothing waits."""
        ring, live = self._ring, self._live
        while ring:
            share = ring[0][2]
            heap = share.heap
            while heap:
                entry = heap[0]
                item = entry[7]
                if live.get(item) is entry:
                    return item
                heappop(heap)
            share.active = False
            heappop(ring)
        return None

    def take(self) -> T:
        """Let `head` go: it starts, and its tenant pays. Raises IndexError where nothing waits."""
        if self.head() is None:
            raise IndexError("nothing waits")
        ring = self._ring
        share = ring[0][2]
        entry = heappop(share.heap)
        item = entry[7]
        del self._live[item]
        tokens = entry[4]
        self.count -= 1
        self.tokens -= tokens
        self.output -= entry[5]
        share.count -= 1
        share.started += 1
        self._level = level = share.level
        # What counts no tokens would go for ever in front of all others.
        share.level = level = level + (tokens if tokens > 0 else 1) / share.weight
        self._highest = max(level, self._highest)
        if share.count:
            self._turns = turn = self._turns + 1
            heapreplace(ring, (level, turn, share))
        else:
            share.heap.clear()
            share.active = False
            heappop(ring)
        return item

    def discard(self, item: T) -> bool:
        """Let something go that does not start; False where it does not wait here."""
        entry = self._live.pop(item, None)
        if entry is None:
            return False
        share = entry[6]
        share.count -= 1
        self.count -= 1
        self.tokens -= entry[4]
        self.output -= entry[5]
        if len(share.heap) > 2 * share.count + 16:
            # It keeps its place otherwise until its turn comes, which in a lane that stands still is never.
            self._tidy(share)
        return True

    def late(self, now_ms: int) -> list[T]:
        """Return what waits although its deadline has passed; `discard` lets it go."""
        return [item for item, entry in self._live.items() if entry[1] <= now_ms]

    def by_tenant(self) -> dict[str, int]:
        """Requests that wait, of every tenant that has any."""
        return {name: share.count for name, share in self._shares.items() if share.count}

    def roll(self, now: float) -> None:
        """Bring rates up to date and forget tenants that sent nothing for long; every second or so, in seconds."""
        seconds = now - self._rolled
        if seconds <= 0:
            return
        self._rolled = now
        for share in list(self._shares.values()):
            if share.started:
                self._started_at = now
            share.roll(now, seconds)
            if not share.active and now - share.seen > KNOWN_SECONDS:
                del self._shares[share.tenant]

    def surplus(self, buffer: int, most: int, now_ms: int) -> list[tuple[T, float]]:
        """Take out what noisy tenants have too much of in a full buffer of `buffer` requests, the last to start first.

        Return at most `most` of it, each with the seconds it should stay away: 0 is to the end of its topic. At most
        `PROBED_AT_ONCE` while no tenant is short of requests that could start. Only what comes back well within its
        deadline is taken.
        """
        if self._started_at is None or self._rolled - self._started_at > STANDSTILL:
            return []
        weights = sum(share.weight for share in self._shares.values())
        least = max(NOISY_REQUESTS, int(NOISY_SHARE * buffer))
        keeps = {
            name: max(least, int(FAIR_SHARE * buffer * share.weight / weights)) for name, share in self._shares.items()
        }
        if all(2 * share.count >= keeps[name] for name, share in self._shares.items()):
            most = min(most, PROBED_AT_ONCE)
        found: list[tuple[T, float]] = []
        for name, share in self._shares.items():
            if share.count > keeps[name] and len(found) < most:
                found += self._put_away(share, min(share.count - keeps[name], most - len(found)), now_ms)
        return found

    def _put_away(self, share: _Share[T], count: int, now_ms: int) -> list[tuple[T, float]]:
        queued = share.count + share.parked
        turn = min(queued / share.rate, 2 * PARKED_MOST) if share.rate > 0 else 0.0
        wait = turn / 2 if turn >= PARKED_FROM else 0.0
        self._tidy(share)
        found: list[tuple[T, float]] = []
        for entry in sorted(share.heap, reverse=True):
            # Half of what is left: it has to stand in line again once it is back.
            left = (entry[1] - now_ms) / 2000
            if left >= PARKED_FROM:
                found.append((entry[7], min(wait, left)))
                if len(found) == count:
                    break
        for item, _ in found:
            self.discard(item)
        share.parked += len(found)
        return found

    def _push(self, share: _Share[T]) -> None:
        # Of two on one level the one that has waited longer goes first.
        self._turns += 1
        heappush(self._ring, (share.level, self._turns, share))

    def _tidy(self, share: _Share[T]) -> None:
        live = self._live
        share.heap[:] = [entry for entry in share.heap if live.get(entry[7]) is entry]
        heapify(share.heap)


class Lanes(Generic[T]):
    """Both lanes of one alias: interactive first, and for batch a floor.

    Of the permits that start something while both wait, every `1 / batch_share`th is batch's, so that it never starves;
    what batch starts while nothing interactive waits counts for its floor too. Interactive gets all the others.
    """

    __slots__ = ("_credit", "_share", "batch", "interactive")

    def __init__(self, batch_share: float = 0.05, weights: Mapping[str, float] | None = None, now: float = 0.0) -> None:
        """`batch_share` 0 … 1; `weights` by tenant; `now` is monotonic seconds."""
        self._share = batch_share
        self._credit = 0.0
        self.interactive: FairQueue[T] = FairQueue(weights, now)
        self.batch: FairQueue[T] = FairQueue(weights, now)

    def next(self) -> FairQueue[T] | None:
        """Return the lane whose head goes next, None where nothing waits; whoever starts it tells `take`."""
        if not self.batch.count:
            return self.interactive if self.interactive.count else None
        if not self.interactive.count or self._credit + self._share >= _DUE:
            return self.batch
        return self.interactive

    def take(self, lane: FairQueue[T]) -> T:
        """Start the head of `lane`, which `next` returned. Raises IndexError where nothing waits there."""
        if self.batch.count:
            if lane is self.interactive:
                self._credit += self._share
            elif self.interactive.count:
                self._credit += self._share - 1.0
            else:
                self._credit = 0.0
        return lane.take()
