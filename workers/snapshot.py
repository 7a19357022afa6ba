"""What a worker says of itself: how fast it reads and finishes, what waits, what a request of a kind costs on average.

Pure: time and numbers come as arguments. `broker status` reads the snapshot, the gauges are set from it.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker.delivery.tracker import PartitionTracker
from broker.records import Partition
from broker.topics import Lane, TopicNames

RATE_SECONDS: Final = 30.0
"""Rates are means over this long."""
REMEMBERED: Final = 1_000.0
"""Answered requests that a mean of tokens or cost speaks of; older ones fade."""

FORMAT: Final = 1
"""Of a snapshot. Raised when a reader of the one before would not understand it."""

Place = tuple[str, Lane]


class LaneMeter:
    """Counts of one alias and lane; what is called for each request costs a few additions."""

    __slots__ = ("_cost", "_count", "_ended", "_marks", "_price_weight", "_priced", "_read", "_tokens", "_weight",
                 "mean_cost", "mean_tokens")  # fmt: skip

    def __init__(self) -> None:
        self._read = 0
        self._ended = 0
        self._count = 0
        self._tokens = 0
        self._priced = 0
        self._cost = 0
        self._weight = 0.0
        self._price_weight = 0.0
        self.mean_tokens: float | None = None
        """Input and output of an answered request; None before the first one."""
        self.mean_cost: float | None = None
        """Pico-dollars of an answered request with a known price; None before the first one."""
        self._marks: deque[tuple[float, int, int]] = deque()

    def read(self, count: int = 1) -> None:
        """Note records that were read."""
        self._read += count

    def ended(self) -> None:
        """Note a request that left the backlog, however it ended: answered, refused, sent on."""
        self._ended += 1

    def took(self, tokens: int, cost_pico: int | None) -> None:
        """Note what an answered request took: tokens, and pico-dollars or None for no known price."""
        self._count += 1
        self._tokens += tokens
        if cost_pico is not None:
            self._priced += 1
            self._cost += cost_pico

    def roll(self, now: float) -> None:
        """Bring means and rates up to date; `now` is monotonic seconds."""
        if self._count:
            self._weight = min(self._weight + self._count, max(REMEMBERED, self._count))
            self.mean_tokens = _moved(self.mean_tokens, self._tokens / self._count, self._count / self._weight)
        if self._priced:
            self._price_weight = min(self._price_weight + self._priced, max(REMEMBERED, self._priced))
            self.mean_cost = _moved(self.mean_cost, self._cost / self._priced, self._priced / self._price_weight)
        self._count = self._tokens = self._priced = self._cost = 0
        marks = self._marks
        marks.append((now, self._read, self._ended))
        while len(marks) > 2 and marks[1][0] <= now - RATE_SECONDS:  # noqa: PLR2004 - one before the window, one now
            marks.popleft()

    def rates(self) -> tuple[float, float]:
        """Requests a second that were read and that ended, as of the last `roll`."""
        if not self._marks:
            return 0.0, 0.0
        (since, read, ended), (now, read_now, ended_now) = self._marks[0], self._marks[-1]
        seconds = now - since
        return ((read_now - read) / seconds, (ended_now - ended) / seconds) if seconds > 0 else (0.0, 0.0)


def _moved(mean: float | None, latest: float, share: float) -> float:
    return latest if mean is None else mean + (latest - mean) * share


class Meter:
    """The counts of every alias and lane of one worker."""

    def __init__(self, now: float) -> None:
        """`now` is monotonic seconds."""
        self._rolled = now
        self._interactive: dict[str, LaneMeter] = {}
        self._batch: dict[str, LaneMeter] = {}

    def lane(self, alias: str, lane: Lane) -> LaneMeter:
        """Return the counts of one lane, the same object each time."""
        # An enumeration's member as part of a key would cost more than all the rest.
        known = self._batch if lane is Lane.BATCH else self._interactive
        found = known.get(alias)
        if found is None:
            found = known[alias] = LaneMeter()
            found.roll(self._rolled)
        return found

    def read(self, alias: str, lane: Lane, count: int = 1) -> None:
        """Note records that were read."""
        self.lane(alias, lane).read(count)

    def finished(self, alias: str, lane: Lane, tokens: int, cost_pico: int | None) -> None:
        """Note an answered request: it left the backlog, and it took tokens and pico-dollars (None: no known price)."""
        meter = self.lane(alias, lane)
        meter.ended()
        meter.took(tokens, cost_pico)

    def roll(self, now: float) -> None:
        """Bring every lane up to date; every second or two, in monotonic seconds."""
        self._rolled = now
        for known in (self._interactive, self._batch):
            for meter in known.values():
                meter.roll(now)

    def places(self) -> list[Place]:
        """Lanes that were ever counted in."""
        known = ((Lane.INTERACTIVE, self._interactive), (Lane.BATCH, self._batch))
        return [(alias, lane) for lane, found in known for alias in found]


@dataclass(frozen=True, slots=True)
class LaneNow:
    """One alias and lane as it stands in this worker: only partitions that are its own count."""

    partitions: int = 0
    unread: int = 0
    """Records behind the end of the partitions."""
    unfinished: int = 0
    """Records read and not finished."""
    waiting: int = 0
    """Of the unfinished, those that wait for a permit or a time."""
    oldest_ms: int | None = None
    """Unix milliseconds of the oldest unfinished request; None where none was read."""


def lanes_now(  # noqa: PLR0913 - what is known of a lane
    names: TopicNames,
    *,
    assigned: Iterable[Partition],
    trackers: Mapping[Partition, PartitionTracker],
    lag: Mapping[Partition, int],
    waiting: Mapping[Place, int],
    oldest: Mapping[Place, int],
) -> dict[Place, LaneNow]:
    """Return every lane with a partition of ours, or with a work that still runs after its partition went."""
    counts: dict[Place, list[int]] = {}
    for partition in assigned:
        place = names.parse(partition.topic)
        if place is None:
            continue
        count = counts.setdefault(place, [0, 0, 0])
        tracker = trackers.get(partition)
        count[0] += 1
        count[1] += lag.get(partition, 0)
        count[2] += tracker.in_flight if tracker is not None else 0
    for place, held in waiting.items():
        if held:
            counts.setdefault(place, [0, 0, 0])
    return {
        place: LaneNow(partitions, unread, unfinished, waiting.get(place, 0), oldest.get(place))
        for place, (partitions, unread, unfinished) in counts.items()
    }


@dataclass(frozen=True, slots=True)
class Identity:
    """Who speaks; `started_ms` is unix milliseconds."""

    worker: str
    pool: str
    host: str
    pid: int
    started_ms: int
    version: str


def snapshot(  # noqa: PLR0913 - one part of it each
    identity: Identity,
    *,
    now_ms: int,
    in_flight: int,
    problems: Mapping[str, str],
    lanes: Mapping[Place, LaneNow],
    meter: Meter,
    deployments: Mapping[str, int],
) -> dict[str, Any]:
    """Return the worker's snapshot as JSON takes it; `deployments` is calls in flight by deployment.

    Rates are a second, times unix milliseconds, costs pico-dollars; what is unknown is None.
    """
    places: Sequence[Place] = sorted({*lanes, *meter.places()})
    return {
        "format": FORMAT,
        "worker": identity.worker,
        "pool": identity.pool,
        "host": identity.host,
        "pid": identity.pid,
        "version": identity.version,
        "started_ms": identity.started_ms,
        "now_ms": now_ms,
        "in_flight": in_flight,
        "problems": {part: str(why) for part, why in problems.items()},
        "lanes": [_lane(place, lanes.get(place, LaneNow()), meter.lane(*place)) for place in places],
        "deployments": {name: count for name, count in sorted(deployments.items()) if count},
    }


def _lane(place: Place, now: LaneNow, meter: LaneMeter) -> dict[str, Any]:
    read, finished = meter.rates()
    return {
        "alias": place[0],
        "lane": str(place[1]),
        "partitions": now.partitions,
        "backlog": now.unread + now.unfinished,
        "unfinished": now.unfinished,
        "waiting": now.waiting,
        "oldest_ms": now.oldest_ms,
        "read_rate": round(read, 3),
        "finished_rate": round(finished, 3),
        "mean_tokens": meter.mean_tokens,
        "mean_cost_pico": meter.mean_cost,
    }
