"""The journal on Redis: one key an outcome, gone after `answer_ttl`. May import the Redis client."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar

from redis.asyncio import Redis as Client
from redis.exceptions import RedisError

from broker.adapters.journal_codec import COMPRESS_FROM, pack, unpack
from broker.config import Redis
from broker.errors import ConfigError, Unavailable
from broker.ports import Answer
from broker.topics import TopicNames

T = TypeVar("T")

TIMEOUT: Final = 5.0
"""Seconds for one round trip and for connecting; a store that takes longer counts as away."""
CONNECTIONS: Final = 16


class RedisJournal:
    """Stored outcomes by request id; safe for use by many tasks of one loop. No secret is in its repr or its errors."""

    def __init__(self, redis: Redis, names: TopicNames) -> None:
        self._settings = redis
        self._names = names
        self._ttl_ms = int(redis.answer_ttl * 1000)
        self._client: Client | None = None

    def __repr__(self) -> str:
        return f"RedisJournal({self._names.prefix!r})"

    async def start(self) -> None:
        """Connect. Raises `Unavailable`, or `ConfigError` for a URL that is none."""
        self._client = self._connect()
        try:
            await self.ping()
        except Unavailable:
            await self.stop()
            raise

    async def complete(self, answers: Sequence[Answer]) -> None:
        """Store outcomes in one round trip."""
        if not answers:
            return
        values = await asyncio.gather(*(_packed(answer) for answer in answers))
        async with self._started().pipeline(transaction=False) as pipeline:
            for answer, value in zip(answers, values, strict=True):
                pipeline.set(self._names.answer_key(answer.request_id), value, px=self._ttl_ms)
            await _asked(pipeline.execute())

    async def outcome(self, request_id: str) -> Answer | None:
        """Return the stored outcome; None when there is none, or no longer."""
        value = await _asked(self._started().get(self._names.answer_key(request_id)))
        return None if value is None else unpack(request_id, value)

    async def ping(self) -> None:
        """Return when the store answers, raise `Unavailable` when it does not."""
        await _asked(self._started().ping())

    async def stop(self) -> None:
        """Close; a second call does nothing."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _started(self) -> Client:
        if self._client is None:
            raise Unavailable("the journal is not started")
        return self._client

    def _connect(self) -> Client:
        settings = self._settings
        if settings.url is None:
            raise ConfigError("redis.url is not set")
        url = settings.url.get_secret_value()
        tls = {
            "ssl_ca_certs": settings.ssl_ca_certs,
            "ssl_certfile": settings.ssl_certfile,
            "ssl_keyfile": settings.ssl_keyfile,
        }
        options: dict[str, Any] = {name: value for name, value in tls.items() if value and url.startswith("rediss:")}
        try:
            return Client.from_url(
                url,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                max_connections=CONNECTIONS,
                health_check_interval=30,
                **options,
            )
        except ValueError:
            raise ConfigError(
                "redis.url: write it as redis://user:password@host:6379/0, or rediss:// for TLS"
            ) from None


async def _packed(answer: Answer) -> bytes:
    if len(answer.body) < COMPRESS_FROM:
        return pack(answer)
    return await asyncio.to_thread(pack, answer)


async def _asked(reply: Awaitable[T]) -> T:
    try:
        return await reply
    except (RedisError, OSError) as error:
        raise Unavailable(f"Redis: {error}") from error
