"""Asks a Redis server what it is and what time it has; for `broker doctor`. May import the Redis client."""

from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from broker.config.models import Redis as RedisSettings
from broker.errors import ConfigError, Unavailable


@dataclass(frozen=True, slots=True)
class RedisState:
    """What a server says of itself. `now_ms` is its own unix time; `evicts` is its `maxmemory_policy`."""

    version: str
    now_ms: int
    evicts: str


async def look(settings: RedisSettings) -> RedisState:
    """Connect, ask and close.

    Raises `Unavailable` where nothing answers or the credentials are refused, `ConfigError` for a URL that is none.
    """
    if settings.url is None:
        raise ConfigError("no Redis: start `broker up` in this folder, or name redis.url")
    tls = {
        "ssl_ca_certs": settings.ssl_ca_certs,
        "ssl_certfile": settings.ssl_certfile,
        "ssl_keyfile": settings.ssl_keyfile,
    }
    url = settings.url.get_secret_value()
    options: dict[str, Any] = {name: value for name, value in tls.items() if value and url.startswith("rediss:")}
    try:
        client = Redis.from_url(url, **options)
    except ValueError:
        raise ConfigError("redis.url: write it as redis://user:password@host:6379/0, or rediss:// for TLS") from None
    try:
        seconds, microseconds = await client.time()
        info = await client.info("server", "memory")
    except (RedisError, OSError) as error:
        raise Unavailable(f"Redis: {error}") from error
    finally:
        await client.aclose()
    return RedisState(
        str(info["redis_version"]), seconds * 1000 + microseconds // 1000, str(info.get("maxmemory_policy", ""))
    )
