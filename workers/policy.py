"""What the requests of one worker process are judged by. Data only; fixed while the process runs."""

from dataclasses import dataclass, field

from broker.config import Settings
from broker.keys import KeyRing
from broker.routing.catalog import Catalog
from broker.topics import TopicNames


@dataclass(slots=True, kw_only=True)
class Policy:
    """The configuration, and what is made of it once."""

    settings: Settings
    names: TopicNames
    catalog: Catalog
    keys: KeyRing
    secret: bytes = field(repr=False)
