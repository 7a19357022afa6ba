"""The configuration file and environment → frozen models. The only reader of os.environ."""

from broker.config.clouds import Aws, Azure, Vertex
from broker.config.loader import load
from broker.config.media import Media
from broker.config.models import (
    Alias,
    Capabilities,
    ClickHouse,
    Deployment,
    Kafka,
    OnUnknown,
    Pool,
    Prices,
    ProviderRow,
    Redis,
    Settings,
    Strategy,
    Tenant,
    VirtualKey,
)

__all__ = [
    "Alias",
    "Aws",
    "Azure",
    "Capabilities",
    "ClickHouse",
    "Deployment",
    "Kafka",
    "Media",
    "OnUnknown",
    "Pool",
    "Prices",
    "ProviderRow",
    "Redis",
    "Settings",
    "Strategy",
    "Tenant",
    "Vertex",
    "VirtualKey",
    "load",
]
