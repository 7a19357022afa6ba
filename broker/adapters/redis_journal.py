"""Leases and outcomes in Redis: the port `Journal`. One Redis, or a primary with replicas; not a Redis Cluster.

A request has a hash (lease and marker) and, once it ended, a string in the layout of `journal_codec`.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import orjson
from redis.exceptions import RedisError

from broker.adapters import redis_journal_scripts as scripts
from broker.adapters.journal_codec import OFF_LOOP_FROM, decode, encode, size
from broker.adapters.redis_client import RedisClient
from broker.config.models import Redis
from broker.ports import Answer, Claim, Claimed, Ending, Lease, Standing
from broker.topics import TopicNames

_PEER: Final = Claimed(Standing.PEER)
_FOREIGN: Final = Claimed(Standing.FOREIGN)


class RedisJournal:
    """See the port; times are those of `settings.redis`."""

    def __init__(self, redis: Redis, names: TopicNames) -> None:
        self._names = names
        self._redis = RedisClient(redis)
        self._answer_ms = max(1, round(redis.answer_ttl * 1000))
        self._marker_ms = max(1, round(redis.marker_ttl * 1000))
        self._lease_ms = round(redis.lease_seconds * 1000)
        script = self._redis.script
        self._acquire = script(scripts.ACQUIRE)
        self._begin = script(scripts.BEGIN)
        self._renew = script(scripts.RENEW)
        self._release = script(scripts.RELEASE)
        self._complete = script(scripts.COMPLETE)
        self._published = script(scripts.PUBLISHED)

    async def start(self) -> None:
        """Connect. Raises `Unavailable` naming the address."""
        await self._redis.start()

    async def acquire(self, claims: Sequence[Claim]) -> Sequence[Claimed]:
        """Claim; see the port."""
        if not claims:
            return []
        names = self._names
        given: list[str] = []
        for claim in claims:
            key = claim.key
            given += (names.lease_key(key), claim.token, str(claim.hop), claim.place, claim.request_id, claim.tenant)
            given.append(names.moved_key(key, claim.hop))
        args = [self._lease_ms, self._marker_ms, names.answer_key(""), orjson.dumps(given)]
        return [_claimed(answer) for answer in await self._redis.run(self._acquire, (), args)]

    async def begin(self, leases: Sequence[Lease]) -> Sequence[bool]:
        """Note that calls are about to be made; see the port."""
        return await self._of_leases(self._begin, leases)

    async def renew(self, leases: Sequence[Lease]) -> Sequence[bool]:
        """Let leases last from now on; see the port."""
        return await self._of_leases(self._renew, leases)

    async def release(self, leases: Sequence[Lease]) -> None:
        """Give leases up without an outcome."""
        await self._of_leases(self._release, leases)

    async def complete(self, endings: Sequence[Ending]) -> Sequence[bool]:
        """Store outcomes; see the port."""
        if not endings:
            return []
        large = sum(map(size, endings)) > OFF_LOOP_FROM
        stored = await asyncio.to_thread(_encoded, endings) if large else _encoded(endings)
        names = self._names
        given: list[str] = []
        for ending in endings:
            lease, answer = ending.lease, ending.answer
            if lease is not None:
                given += (names.lease_key(lease.key), lease.token, str(lease.fence), str(lease.hop), ending.place)
            else:
                given += ("", "", "", "", "")
            if answer is not None:
                given += ("d", answer.request_id, names.answer_key(answer.request_id))
            else:
                given += ("m", "", names.moved_key(lease.key, lease.hop) if lease is not None else "")
        unpublished = max(self._answer_ms, self._marker_ms)  # what nobody has been told yet must not be forgotten
        args = [self._marker_ms, self._answer_ms, unpublished, orjson.dumps(given), *stored]
        return [bool(answer) for answer in await self._redis.run(self._complete, (), args)]

    async def published(self, leases: Sequence[Lease]) -> None:
        """Note that completed leases are published; see the port."""
        if not leases:
            return
        names = self._names
        given: list[str] = []
        for lease in leases:
            given += (names.lease_key(lease.key), lease.token, str(lease.fence), names.moved_key(lease.key, lease.hop))
        await self._redis.run(self._published, (), [self._answer_ms, names.answer_key(""), orjson.dumps(given)])

    async def outcome(self, request_id: str) -> Answer | None:
        """Return the stored final reply; None when there is none, or no longer. Raises `Unavailable`."""
        try:
            value = await self._redis.client.get(self._names.answer_key(request_id))
        except (RedisError, OSError) as exc:
            raise self._redis.unavailable(exc) from exc
        if not isinstance(value, bytes):
            return None
        ending = await asyncio.to_thread(decode, value) if len(value) > OFF_LOOP_FROM else decode(value)
        return ending.answer

    async def ping(self) -> None:
        """Return when Redis answers, raise `Unavailable` when it does not."""
        await self._redis.ping()

    async def stop(self) -> None:
        """Close."""
        await self._redis.stop()

    async def _of_leases(self, script: Any, leases: Sequence[Lease]) -> Sequence[bool]:  # noqa: ANN401 - Redis's own type
        if not leases:
            return []
        given: list[str] = []
        for lease in leases:
            given += (self._names.lease_key(lease.key), lease.token, str(lease.fence), str(lease.hop))
        args = [self._lease_ms, self._marker_ms, orjson.dumps(given)]
        return [bool(answer) for answer in await self._redis.run(script, (), args) or ()]


def _claimed(answer: Any) -> Claimed:  # noqa: ANN401 - Redis's own types
    if answer == b"P":
        return _PEER
    if answer == b"F":
        return _FOREIGN
    if answer[0] == b"D":
        _, request_id, place, published, stored = answer
        ending = None if stored is None else decode(stored)
        return Claimed(
            Standing.DONE, 0, 0, request_id.decode(), place.decode(), published=bool(published), ending=ending
        )
    if answer[0] == b"M":
        stored = answer[1] if len(answer) > 1 else None
        return Claimed(Standing.MOVED, ending=None if stored is None else decode(stored))
    return Claimed(Standing.OWNED, *answer)


def _encoded(endings: Sequence[Ending]) -> list[bytes]:
    return [encode(ending) for ending in endings]
