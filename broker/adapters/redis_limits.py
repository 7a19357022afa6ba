"""What workers share of deployments, in Redis: the port `LimitStore`. One round trip an exchange."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from redis.exceptions import RedisError

from broker.adapters import redis_limits_scripts as scripts
from broker.adapters.redis_client import RedisClient
from broker.config.models import Redis
from broker.ports import SLICE_SECONDS, WORKER_SECONDS, Granted, Learned, Need, Slice, Units
from broker.topics import TopicNames


class RedisLimitStore:
    """See the port."""

    def __init__(self, redis: Redis, names: TopicNames) -> None:
        self._redis = RedisClient(redis)
        self._names = names
        self._exchange = self._redis.script(scripts.EXCHANGE)
        self._look = self._redis.script(scripts.LOOK)
        self._leave = self._redis.script(scripts.LEAVE)
        self._seen: set[str] = set()
        self._head = {"worker_ms": round(WORKER_SECONDS * 1000), "slice_ms": round(SLICE_SECONDS * 1000)}

    async def start(self) -> None:
        """Connect. Raises `Unavailable`."""
        await self._redis.start()

    async def exchange(self, worker: str, needs: Sequence[Need]) -> Sequence[Granted]:
        """Report and ask; see the port."""
        if not needs:
            return []
        self._seen.update(need.deployment for need in needs)
        given = {**self._head, "worker": worker, "needs": [self._need(need) for need in needs]}
        answer = await self._redis.run(self._exchange, (), [orjson.dumps(given)])
        return [_granted(each) for each in orjson.loads(answer)]

    async def leave(self, worker: str) -> None:
        """Give everything of a worker back."""
        keys = [self._names.limit_key(name) for name in self._seen]
        given = {"worker": worker, "keys": keys, "index": self._index, "said": self._names.worker_key(worker)}
        await self._redis.run(self._leave, (), [orjson.dumps(given)])

    async def publish(self, worker: str, snapshot: Mapping[str, Any]) -> None:
        """Keep what a worker says of itself."""
        try:
            now = await self._now()
            async with self._redis.client.pipeline(transaction=False) as pipe:
                pipe.set(self._names.worker_key(worker), orjson.dumps(snapshot), px=round(WORKER_SECONDS * 1000))
                pipe.zadd(self._index, {worker: now})
                pipe.zremrangebyscore(self._index, "-inf", now - WORKER_SECONDS)
                await pipe.execute()
        except (RedisError, OSError) as exc:
            raise self._redis.unavailable(exc) from exc

    async def snapshots(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what live workers said last."""
        client = self._redis.client
        try:
            since = await self._now() - WORKER_SECONDS
            index: Any = await client.zrangebyscore(self._index, since, "+inf")
            workers = [name.decode() for name in index]
            if not workers:
                return {}
            found = await client.mget([self._names.worker_key(worker) for worker in workers])
        except (RedisError, OSError) as exc:
            raise self._redis.unavailable(exc) from exc
        return {worker: orjson.loads(said) for worker, said in zip(workers, found, strict=True) if said is not None}

    async def look(self, deployments: Sequence[str]) -> Sequence[Granted]:
        """Return the shared state without asking for anything."""
        if not deployments:
            return []
        keys = [self._names.limit_key(name) for name in deployments]
        answer = await self._redis.run(self._look, (), [orjson.dumps({**self._head, "keys": keys})])
        return [_granted(each) for each in orjson.loads(answer)]

    async def stop(self) -> None:
        """Close."""
        await self._redis.stop()

    @property
    def _index(self) -> str:
        return self._names.worker_key("")

    async def _now(self) -> float:
        seconds, micros = await self._redis.client.time()
        return float(seconds) + float(micros) / 1e6

    def _need(self, need: Need) -> dict[str, Any]:
        return {
            "key": self._names.limit_key(need.deployment),
            "limits": dict(need.limits),
            "cap": -1 if need.max_parallel is None else need.max_parallel,
            "demand": need.demand,
            "running": need.running,
            "first": _units(need.first),
            "want": _units(need.want),
            "settles": [[each.requests, each.input, each.output, int(each.receipt)] for each in need.settles],
            "good": need.good,
            "failed": need.failed,
            "overloaded": need.overloaded,
            "limited": need.limited,
            "latency": need.latency_sum,
            "cool": _ms(need.cool_for),
            "blocked": _ms(need.blocked_for),
            "probe": -1 if need.probe is None else int(need.probe),
            "learned": _learned(need.learned),
        }


def _ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)


def _units(units: Units) -> list[int]:
    return [units.requests, units.input, units.output]


def _learned(learned: Learned | None) -> dict[str, Any] | bool:
    if learned is None:
        return False  # null is not false in Redis's JSON
    reset = {name: _ms(seconds) for name, seconds in learned.reset.items()}
    return {"limits": dict(learned.limits), "left": dict(learned.left), "reset": reset}


def _granted(answer: dict[str, Any]) -> Granted:
    part = answer.get("slice")
    slots = answer.get("slots", -1)
    return Granted(
        slice=None if not part else Slice(Units(*map(int, part[:3])), str(int(part[3]))),
        slots=None if slots < 0 else int(slots),
        wait=answer.get("wait", 0) / 1000,
        contended=answer.get("contended", False),
        cooling_for=answer["cooling"] / 1000,
        half_open=answer["half_open"],
        probe=answer.get("probe", False),
        blocked_for=answer["blocked"] / 1000,
        running=int(answer["running"]),
        # An empty table of Lua is an empty list in JSON.
        used={name: int(units) for name, units in (answer["used"] or {}).items()},
        limits={name: int(limit) for name, limit in (answer["limits"] or {}).items()},
        concurrency=None if answer["concurrency"] < 0 else int(answer["concurrency"]),
        latency=None if answer["latency"] < 0 else answer["latency"],
        good=int(answer["good"]),
        failed=int(answer["failed"]),
    )
