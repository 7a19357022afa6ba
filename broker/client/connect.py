"""Where an application's client gets its log from: the composition root of everyone who imports `broker.client`.

The one module of this folder that imports `broker.adapters`, inside the function and only when no ports were given:
applications must be able to write `BrokerClient("host:port")` without knowing our ports, and the rest of the client
stays free of Kafka and runs over the in-memory twin. The architecture test names this file as its exception.
"""

from collections.abc import Callable
from dataclasses import dataclass

from broker.config import Kafka
from broker.ports import LogProducer, LogReader


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPorts:
    """What the client needs of a log. A reader that broke is replaced, hence the function; neither is started."""

    producer: LogProducer
    open_reader: Callable[[], LogReader]


def kafka_ports(kafka: Kafka) -> LogPorts:
    """Return ports over the real Kafka client; connects to nothing yet."""
    from broker.adapters.kafka import KafkaProducer, KafkaReader  # noqa: PLC0415 - see the module's docstring

    return LogPorts(producer=KafkaProducer(kafka), open_reader=lambda: KafkaReader(kafka))
