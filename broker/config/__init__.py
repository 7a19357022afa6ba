"""The configuration file and environment → frozen models. The only reader of os.environ."""

from broker.config.loader import load
from broker.config.models import (
    Alias,
    Capabilities,
    ClickHouse,
    Deployment,
    Kafka,
    OnUnknown,
    Pool,
    Prices,
    Redis,
    Settings,
    Strategy,
    Tenant,
    VirtualKey,
)

__all__ = [
    "Alias",
    "Capabilities",
    "ClickHouse",
    "Deployment",
    "Kafka",
    "OnUnknown",
    "Pool",
    "Prices",
    "Redis",
    "Settings",
    "Strategy",
    "Tenant",
    "VirtualKey",
    "load",
]
