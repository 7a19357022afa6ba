"""Which topics a pool reads: those of its aliases, and of aliases nobody configured, so that those are answered 404."""

from broker.config import Pool, Settings
from broker.errors import ConfigError
from broker.ports import LogAdmin
from broker.topics import Lane, TopicNames


async def wanted_topics(settings: Settings, pool: Pool, names: TopicNames, admin: LogAdmin) -> list[str]:
    """Return the topics, sorted. Raises `ConfigError` for an alias that is not configured, `Unavailable`."""
    wanted = set(pool.aliases)
    every = "*" in wanted
    aliases = [name for name in settings.aliases if every or name in wanted]
    unknown = [name for name in wanted if name != "*" and name not in settings.aliases]
    if unknown:
        raise ConfigError(f"workers.pools.{pool.name}.aliases: no alias is named {', '.join(sorted(unknown))}")
    topics = {names.lane(alias, lane) for alias in aliases for lane in Lane}
    if every:
        existing = await admin.topics(names.prefix)
        topics |= {
            topic
            for topic in existing
            if (parsed := names.parse(topic)) is not None and parsed[0] not in settings.aliases
        }
    return sorted(topics)
