"""The configuration file and environment → frozen models. The only reader of os.environ."""

from broker.config.loader import load
from broker.config.models import (
    Alias,
    ClickHouse,
    Deployment,
    Kafka,
    Pool,
    Prices,
    Redis,
    Settings,
    Strategy,
    VirtualKey,
)

__all__ = [
    "Alias",
    "ClickHouse",
    "Deployment",
    "Kafka",
    "Pool",
    "Prices",
    "Redis",
    "Settings",
    "Strategy",
    "VirtualKey",
    "load",
]
