"""One connection pool to Redis, with our time-outs and our errors: what the adapters of journal and limits share."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from broker.config.models import Redis
from broker.errors import ConfigError, Unavailable

CONNECT_TIMEOUT_S: Final = 5.0
SOCKET_TIMEOUT_S: Final = 10.0
START_LIMIT_S: Final = 12.0
"""For the first answer, its repetition included."""
HEALTH_CHECK_S: Final = 30
CONNECTIONS: Final = 16
"""At most; a caller that finds all of them busy waits for one, up to the socket time-out."""


class RedisClient:
    """Redis as `settings.redis` names it. Every failure is `Unavailable` with the address; safe for many tasks."""

    def __init__(self, redis: Redis) -> None:
        """Raise `ConfigError` where no Redis, or an impossible one, is named; connects at the first use."""
        if redis.url is None:
            raise ConfigError("no Redis: start `broker up` in this folder, or name redis.url")
        try:
            pool = BlockingConnectionPool.from_url(redis.url.get_secret_value(), **_options(redis))
        except ValueError as exc:
            raise ConfigError("redis.url is none that starts with redis://, rediss:// or unix://") from exc
        self.client = Client.from_pool(pool)
        place = pool.connection_kwargs
        self._address = f"{place.get('host', 'localhost')}:{place.get('port', 6379)}"

    def script(self, text: str) -> AsyncScript:
        """Register a Lua script; it is loaded when Redis does not know it (after a restart, too)."""
        return self.client.register_script(text)

    async def run(self, script: AsyncScript, keys: Sequence[str], args: Sequence[Any]) -> Any:  # noqa: ANN401 - Redis's own types
        """Run a script in one round trip. Raises `Unavailable`; it is then unknown whether it ran."""
        try:
            return await script(keys=keys, args=args)
        except (RedisError, OSError) as exc:
            raise self.unavailable(exc) from exc

    async def start(self) -> None:
        """Wait for the first answer. Raises `Unavailable` naming the address."""
        try:
            async with asyncio.timeout(START_LIMIT_S):
                await self.ping()
        except TimeoutError as exc:
            raise Unavailable(f"Redis at {self._address}: no answer within {START_LIMIT_S:g} s") from exc

    async def ping(self) -> None:
        """Return when Redis answers, raise `Unavailable` when it does not."""
        try:
            await self.client.ping()
        except (RedisError, OSError) as exc:
            raise self.unavailable(exc) from exc

    async def stop(self) -> None:
        """Close."""
        await self.client.aclose()

    def unavailable(self, exc: BaseException) -> Unavailable:
        """Return the error that names the address and the cause."""
        return Unavailable(f"Redis at {self._address}: {' '.join((str(exc) or repr(exc)).split())}")


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
