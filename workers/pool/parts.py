"""The adapters of one worker process: the real ones, or the twins that tests hand in. A composition root."""

from collections.abc import Callable

from broker.adapters.kafka import KafkaConsumer, KafkaProducer, KafkaReader
from broker.adapters.kafka_admin import KafkaAdmin
from broker.adapters.redis_callers import RedisCallerStore
from broker.adapters.redis_journal import RedisJournal
from broker.adapters.redis_limits import RedisLimitStore
from broker.clock import Clock, SystemClock
from broker.config import Pool, Settings
from broker.ports import CallerStore, Journal, LimitStore, LogAdmin, LogConsumer, LogProducer, LogReader
from broker.topics import TopicNames
from workers.providers.base import ProviderClient
from workers.providers.client import HttpProviderClient
from workers.providers.media import MediaFetcher
from workers.providers.transport import make_transport
from workers.watched import WatchedConsumer


class Parts:
    """The adapters of one worker process; tests hand in twins."""

    def __init__(  # noqa: PLR0913 - one a port
        self,
        *,
        make_consumer: Callable[[], LogConsumer],
        producer: LogProducer,
        make_reader: Callable[[], LogReader],
        admin: LogAdmin,
        journal: Journal,
        callers: CallerStore,
        limits: LimitStore,
        provider: ProviderClient,
        clock: Clock,
    ) -> None:
        self.consumer = WatchedConsumer(make_consumer, clock)
        self.producer = producer
        self.make_reader = make_reader
        self.admin = admin
        self.journal = journal
        self.callers = callers
        self.limits = limits
        self.provider = provider
        self.clock = clock

    @classmethod
    def real(cls, settings: Settings, pool: Pool, instance: str | None = None) -> "Parts":
        """Build the parts that production uses."""
        names = TopicNames(settings.kafka.topic_prefix)
        return cls(
            make_consumer=lambda: KafkaConsumer(settings.kafka, names.group(pool.name), instance=instance),
            producer=KafkaProducer(settings.kafka),
            make_reader=lambda: KafkaReader(settings.kafka),
            admin=KafkaAdmin(settings.kafka),
            journal=RedisJournal(settings.redis, names),
            callers=RedisCallerStore(settings.redis, names),
            limits=RedisLimitStore(settings.redis, names),
            provider=HttpProviderClient(make_transport(pool.in_flight), media=MediaFetcher(settings.media)),
            clock=SystemClock(),
        )
