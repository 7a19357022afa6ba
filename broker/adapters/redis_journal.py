"""Stored outcomes in Redis: the port `Journal`. One string a request, in the layout of `journal_codec`."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as RedisClient
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from broker.adapters.journal_codec import OFF_LOOP_FROM, decode, encode
from broker.config.models import Redis
from broker.errors import ConfigError, Unavailable
from broker.ports import Answer
from broker.topics import TopicNames

CONNECT_TIMEOUT_S: Final = 5.0
SOCKET_TIMEOUT_S: Final = 10.0
START_LIMIT_S: Final = 12.0
"""For the first answer, its repetition included."""
HEALTH_CHECK_S: Final = 30

_STORE: Final = """
for i, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[i + 1], 'PX', ARGV[1])
end
"""
"""One command for a whole batch: written as one SET each, packing and parsing them cost 12 % of a worker's CPU."""

CONNECTIONS: Final = 16
"""At most; a caller that finds all of them busy waits for one, up to the socket time-out."""


class RedisJournal:
    """Outcomes by request id, kept for `answer_ttl` seconds; safe for use by many tasks."""

    def __init__(self, redis: Redis, names: TopicNames) -> None:
        if redis.url is None:
            raise ConfigError("no Redis: start `broker up` in this folder, or name redis.url")
        self._names = names
        self._ttl_ms = max(1, round(redis.answer_ttl * 1000))
        try:
            pool = BlockingConnectionPool.from_url(redis.url.get_secret_value(), **_options(redis))
        except ValueError as exc:
            raise ConfigError("redis.url is none that starts with redis://, rediss:// or unix://") from exc
        self._client = RedisClient.from_pool(pool)
        self._store = self._client.register_script(_STORE)
        place = pool.connection_kwargs
        self._address = f"{place.get('host', 'localhost')}:{place.get('port', 6379)}"

    async def start(self) -> None:
        """Connect. Raises `Unavailable` naming the address."""
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await self.ping()
        except TimeoutError as exc:
            raise Unavailable(f"Redis at {self._address}: no answer within {START_LIMIT_S:g} s") from exc

    async def complete(self, answers: Sequence[Answer]) -> None:
        """Store outcomes in one round trip; the later one of a request id wins. Raises `Unavailable`."""
        if not answers:
            return
        large = sum(len(answer.body) for answer in answers) > OFF_LOOP_FROM
        stored = await asyncio.to_thread(_encoded, answers) if large else _encoded(answers)
        keys = [self._names.answer_key(answer.request_id) for answer in answers]
        try:
            await self._store(keys=keys, args=[self._ttl_ms, *stored])
        except (RedisError, OSError) as exc:
            raise self._unavailable(exc) from exc

    async def outcome(self, request_id: str) -> Answer | None:
        """Return the stored outcome; None when there is none, or no longer. Raises `Unavailable`."""
        try:
            value = await self._client.get(self._names.answer_key(request_id))
        except (RedisError, OSError) as exc:
            raise self._unavailable(exc) from exc
        if not isinstance(value, bytes):
            return None
        if len(value) > OFF_LOOP_FROM:
            return await asyncio.to_thread(decode, request_id, value)
        return decode(request_id, value)

    async def ping(self) -> None:
        """Return when Redis answers, raise `Unavailable` when it does not."""
        try:
            await self._client.ping()
        except (RedisError, OSError) as exc:
            raise self._unavailable(exc) from exc

    async def stop(self) -> None:
        """Close."""
        await self._client.aclose()

    def _unavailable(self, exc: BaseException) -> Unavailable:
        return Unavailable(f"Redis at {self._address}: {' '.join((str(exc) or repr(exc)).split())}")


def _encoded(answers: Sequence[Answer]) -> list[bytes]:
    return [encode(answer) for answer in answers]


def _options(redis: Redis) -> dict[str, Any]:
    options: dict[str, Any] = {
        "decode_responses": False,
        "max_connections": CONNECTIONS,
        "timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": HEALTH_CHECK_S,
        # One more try at once, on a new connection: it covers a Redis that was restarted. The caller paces the rest.
        "retry": Retry(NoBackoff(), 1),
    }
    tls = {
        "ssl_ca_certs": redis.ssl_ca_certs,
        "ssl_certfile": redis.ssl_certfile,
        "ssl_keyfile": redis.ssl_keyfile,
    }
    given = {name: value for name, value in tls.items() if value is not None}
    if given and redis.url is not None and not redis.url.get_secret_value().startswith("rediss://"):
        raise ConfigError(f"redis.{next(iter(given))} is set, but redis.url does not start with rediss://")
    return options | given
