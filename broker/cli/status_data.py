"""What `broker status` tells, asked of the log and of what workers share, and put together. Imports ports only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from broker.config import Deployment, Settings
from broker.ledger.money import to_text
from broker.ports import WINDOWS_S, WORKER_SECONDS, Granted, LimitStore, LogAdmin, LogReader
from broker.records import Partition
from broker.topics import DELAYS_S, Lane, TopicNames

LOOKS: Final = 10
"""Polls for the records at the committed offsets; what has not come then is not told."""
LOOK_SECONDS: Final = 0.5
SILENT_SECONDS: Final = 5.0
"""A worker speaks every 2 s; one that has not for this long is not alive, or stands still."""

Place = tuple[str, Lane]
Snapshot = Mapping[str, Any]
Bounds = Mapping[Partition, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class LogState:
    """What the log tells. Counts are records; times are unix milliseconds."""

    backlog: dict[Place, int]
    """Records above the commit of the pool that serves the alias, or all where nothing is committed."""
    oldest_ms: dict[Place, int]
    """When the record at the lowest commit was written; absent without a backlog."""
    parked: dict[str, int]
    dead: int
    sink_lag: int


@dataclass(frozen=True, slots=True)
class SharedState:
    """What workers share and say."""

    granted: dict[str, Granted]
    snapshots: Mapping[str, Snapshot]
    strangers: tuple[str, ...] = ()
    """Workers whose snapshots are not of our format: of another version, as in the middle of an update."""


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """One alias and lane; None is unknown. Dollars are text with 12 places, rates are a second, times seconds."""

    alias: str
    lane: str
    backlog: int | None
    estimated_tokens: int | None
    estimated_dollars: str | None
    drain_seconds: float | None
    """At the current rate; None where nothing finishes."""
    oldest_seconds: float | None
    read_per_second: float | None
    finished_per_second: float | None
    waiting: int | None
    in_flight: int | None


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """One deployment over all workers; None is no limit, or unknown. Times are seconds."""

    deployment: str
    alias: str
    running: int
    slots: int | None
    """Calls at once: the smaller of the configured and the adaptive limit."""
    configured_slots: int | None
    concurrency: int | None
    used: dict[str, int]
    """Units in the window of each limit; absent where it is unknown."""
    limits: dict[str, int]
    """In force."""
    learned: dict[str, int]
    """Of those in force, what the provider told and the configuration does not say."""
    cooling_seconds: float
    blocked_seconds: float
    half_open: bool
    latency_seconds: float | None
    good: int
    failed: int


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker process that was heard of within the last `WORKER_SECONDS`."""

    worker: str
    pool: str
    host: str
    pid: int
    version: str
    in_flight: int
    state: str
    """`ready`, `not ready` or `silent`."""
    problems: dict[str, str]
    uptime_seconds: float


@dataclass(frozen=True, slots=True)
class Status:
    """The whole answer; `missing` names each part that could not be asked, and why."""

    lanes: list[LaneStatus] = field(default_factory=list)
    deployments: list[DeploymentStatus] = field(default_factory=list)
    workers: list[WorkerStatus] = field(default_factory=list)
    idle_pools: list[str] = field(default_factory=list)
    """Pools of which no worker is alive."""
    parked: dict[str, int] | None = None
    dead_letters: int | None = None
    sink_lag: int | None = None
    missing: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)


async def ask_log(settings: Settings, admin: LogAdmin, reader: LogReader, aliases: Sequence[str]) -> LogState:
    """Ask about the topics of `aliases` and the shared ones. Raises `Unavailable`."""
    names = TopicNames(settings.kafka.topic_prefix)
    commits = {pool: await _commits(admin, names.group(pool)) for pool in settings.pools}
    backlog: dict[Place, int] = {}
    heads: dict[Partition, int] = {}
    for alias in aliases:
        serving = [pool.name for pool in settings.pools.values() if "*" in pool.aliases or alias in pool.aliases]
        for lane in Lane:
            bounds = await reader.bounds(names.lane(alias, lane))
            # An alias that two pools serve is done where the slower one is.
            behind = max((_behind(bounds, commits[pool]) for pool in serving), key=_total, default=_behind(bounds, {}))
            backlog[alias, lane] = _total(behind)
            heads.update({partition: start for partition, (start, _) in behind.items()})
    relay, sink = await _commits(admin, names.relay_group), await _commits(admin, names.sink_group)
    parked = {suffix: _total(_behind(await reader.bounds(names.delay(suffix)), relay)) for suffix in DELAYS_S}
    dead = _total(_behind(await reader.bounds(names.dead), {}))
    lag = _total(_behind(await reader.bounds(names.usage), sink))
    return LogState(backlog, await _oldest(reader, names, heads), parked, dead, lag)


async def ask_shared(settings: Settings, store: LimitStore, aliases: Sequence[str]) -> SharedState:
    """Ask for deployments and workers. Raises `Unavailable`."""
    from workers.snapshot import FORMAT  # noqa: PLC0415 - the core knows workers only inside its commands

    deployments = [each.name for alias in aliases for each in settings.aliases[alias].deployments]
    granted = await store.look(deployments)
    said = await store.snapshots()
    strangers = tuple(sorted(name for name, each in said.items() if each.get("format") != FORMAT))
    known = {name: each for name, each in said.items() if name not in strangers}
    return SharedState(dict(zip(deployments, granted, strict=True)), known, strangers)


async def _commits(admin: LogAdmin, group: str) -> dict[Partition, int]:
    return {partition: committed for partition, (committed, _) in (await admin.lags(group)).items()}


def _behind(bounds: Bounds, commits: Mapping[Partition, int]) -> dict[Partition, tuple[int, int]]:
    """Return where each partition with a backlog is to be read from, and its end."""
    starts = {partition: max(first, commits.get(partition, first)) for partition, (first, _) in bounds.items()}
    return {
        partition: (start, bounds[partition][1]) for partition, start in starts.items() if start < bounds[partition][1]
    }


def _total(behind: Mapping[Partition, tuple[int, int]]) -> int:
    return sum(end - start for start, end in behind.values())


async def _oldest(reader: LogReader, names: TopicNames, heads: Mapping[Partition, int]) -> dict[Place, int]:
    left = dict(heads)
    found: dict[Place, int] = {}
    for _ in range(LOOKS):
        if not left:
            break
        await reader.assign(left)
        for record in await reader.poll(max_records=len(left), timeout=LOOK_SECONDS):
            place = names.parse(record.topic)
            if left.pop(Partition(record.topic, record.partition), None) is not None and place is not None:
                found[place] = min(record.timestamp, found.get(place, record.timestamp))
    return found


def assemble(
    settings: Settings,
    aliases: Sequence[str],
    *,
    log: LogState | None,
    shared: SharedState | None,
    missing: Mapping[str, str],
    now_ms: int,
) -> Status:
    """Put together what was told; a source that is None is one of `missing`."""
    lanes = [_lane((alias, lane), log, shared, now_ms) for alias in aliases for lane in Lane]
    if shared is None:
        found = _log_only(lanes, log)
        return Status(**found, missing=dict(missing))
    strangers = {f"worker {name}": "it is of another version than this command" for name in shared.strangers}
    workers = sorted(
        (_worker(name, said, now_ms) for name, said in shared.snapshots.items()),
        key=lambda each: (each.pool, each.worker),
    )
    alive = {worker.pool for worker in workers if worker.state != "silent"}
    return Status(
        **_log_only(lanes, log),
        deployments=[
            _deployment(each, shared.granted[each.name])
            for alias in aliases
            for each in settings.aliases[alias].deployments
        ],
        workers=workers,
        idle_pools=[pool for pool in settings.pools if pool not in alive],
        missing={**missing, **strangers},
    )


def _log_only(lanes: list[LaneStatus], log: LogState | None) -> dict[str, Any]:
    if log is None:
        return {"lanes": lanes}
    return {"lanes": lanes, "parked": log.parked, "dead_letters": log.dead, "sink_lag": log.sink_lag}


def _lane(place: Place, log: LogState | None, shared: SharedState | None, now_ms: int) -> LaneStatus:
    said = [] if shared is None else _said_of(place, shared.snapshots.values())
    backlog = None if log is None else log.backlog[place]
    oldest = None if log is None else log.oldest_ms.get(place)
    finished = sum(lane["finished_rate"] for lane in said)
    tokens = _times(backlog, _mean(said, "mean_tokens"))
    cost = _times(backlog, _mean(said, "mean_cost_pico"))
    drain = None
    if backlog == 0:
        drain = 0.0
    elif backlog is not None and finished > 0:
        drain = round(backlog / finished, 1)
    known = shared is not None
    return LaneStatus(
        alias=place[0],
        lane=str(place[1]),
        backlog=backlog,
        estimated_tokens=tokens,
        estimated_dollars=None if cost is None else to_text(cost),
        drain_seconds=drain,
        oldest_seconds=None if oldest is None else max(0, now_ms - oldest) / 1000,
        read_per_second=round(sum(lane["read_rate"] for lane in said), 3) if known else None,
        finished_per_second=round(finished, 3) if known else None,
        waiting=sum(lane["waiting"] for lane in said) if known else None,
        in_flight=sum(max(0, lane["unfinished"] - lane["waiting"]) for lane in said) if known else None,
    )


def _said_of(place: Place, snapshots: Iterable[Snapshot]) -> list[Mapping[str, Any]]:
    return [lane for said in snapshots for lane in said["lanes"] if (lane["alias"], lane["lane"]) == place]


def _mean(said: Iterable[Mapping[str, Any]], name: str) -> float | None:
    """Mean of what workers know, by how much each finishes; None where none knows."""
    known = [(lane[name], lane["finished_rate"] + 0.001) for lane in said if lane[name] is not None]
    weight = sum(share for _, share in known)
    return sum(value * share for value, share in known) / weight if known else None


def _times(backlog: int | None, mean: float | None) -> int | None:
    """Return the estimate for a backlog; none of anything for no backlog, None where something is unknown."""
    if backlog == 0:
        return 0
    return None if backlog is None or mean is None else round(backlog * mean)


def _deployment(deployment: Deployment, granted: Granted) -> DeploymentStatus:
    configured = deployment.max_parallel_requests
    slots = [limit for limit in (configured, granted.concurrency) if limit is not None]
    limits = _in_force(deployment, granted)
    return DeploymentStatus(
        deployment=deployment.name,
        alias=deployment.alias,
        running=granted.running,
        slots=min(slots, default=None),
        configured_slots=configured,
        concurrency=granted.concurrency,
        used={name: units for name, units in granted.used.items() if name in limits},
        limits=limits,
        learned={name: value for name, value in limits.items() if value != getattr(deployment, name)},
        cooling_seconds=granted.cooling_for,
        blocked_seconds=granted.blocked_for,
        half_open=granted.half_open,
        latency_seconds=granted.latency,
        good=granted.good,
        failed=granted.failed,
    )


def _in_force(deployment: Deployment, granted: Granted) -> dict[str, int]:
    """Return the smaller of the configured and the learned limits: who only looks is told the learned ones alone."""
    either = {name: (getattr(deployment, name), granted.limits.get(name)) for name in WINDOWS_S}
    known = {name: [limit for limit in pair if limit is not None] for name, pair in either.items()}
    return {name: min(limits) for name, limits in known.items() if limits}


def _worker(name: str, said: Snapshot, now_ms: int) -> WorkerStatus:
    silence = (now_ms - said["now_ms"]) / 1000
    # The store forgets who is silent for longer: a greater age tells of two machines' clocks, not of the worker.
    silent = SILENT_SECONDS < silence <= WORKER_SECONDS
    problems = dict(said["problems"])
    return WorkerStatus(
        worker=name,
        pool=said["pool"],
        host=said["host"],
        pid=said["pid"],
        version=said["version"],
        in_flight=said["in_flight"],
        state="silent" if silent else "not ready" if problems else "ready",
        problems={**problems, "silent": f"for {silence:.0f} s"} if silent else problems,
        uptime_seconds=max(0, said["now_ms"] - said["started_ms"]) / 1000,
    )
