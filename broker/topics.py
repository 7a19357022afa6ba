"""Every topic, consumer group and Redis key name, made from one prefix. Imports nothing."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ALIAS_PATTERN: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
"""What an alias may look like; Kafka allows these characters in a topic name of at most 249."""

DELAYS_S: Final = {"30s": 30, "2m": 120, "10m": 600}
"""Suffix of a delay topic to the fixed delay it holds, in seconds."""

DAY_MS: Final = 86_400_000


class Lane(StrEnum):
    """Which of an alias's two topics a request came by."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should exist: partitions, and settings by their Kafka names."""

    name: str
    partitions: int
    settings: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TopicNames:
    """Names derived from `prefix` (`llm.` by default)."""

    prefix: str = "llm."

    def requests(self, alias: str) -> str:
        """Topic of interactive requests for `alias`."""
        return f"{self.prefix}requests.{alias}"

    def batch(self, alias: str) -> str:
        """Topic of the batch lane of `alias`."""
        return f"{self.prefix}batch.{alias}"

    def lane(self, alias: str, lane: Lane) -> str:
        """Topic of one lane of `alias`."""
        return self.requests(alias) if lane is Lane.INTERACTIVE else self.batch(alias)

    @property
    def replies(self) -> str:
        """Topic of replies; a `reply-to` must start with this name."""
        return f"{self.prefix}replies"

    @property
    def dead(self) -> str:
        """Topic of dead letters."""
        return f"{self.prefix}dead"

    @property
    def usage(self) -> str:
        """Topic of usage events."""
        return f"{self.prefix}usage"

    @property
    def control(self) -> str:
        """Compacted topic of controls such as cancel."""
        return f"{self.prefix}control"

    def delay(self, suffix: str) -> str:
        """Delay topic of a suffix in `DELAYS_S`."""
        return f"{self.prefix}delay.{suffix}"

    def parse(self, topic: str) -> tuple[str, Lane] | None:
        """Alias and lane of a request topic; None for any other topic."""
        for lane, head in ((Lane.INTERACTIVE, self.requests("")), (Lane.BATCH, self.batch(""))):
            if topic.startswith(head) and len(topic) > len(head):
                return topic[len(head) :], lane
        return None

    def group(self, pool: str) -> str:
        """Consumer group of a pool."""
        return f"{self.prefix}pool.{pool}"

    @property
    def sink_group(self) -> str:
        """Consumer group of the ClickHouse sink."""
        return f"{self.prefix}sink"

    @property
    def relay_group(self) -> str:
        """Consumer group of the delay relay."""
        return f"{self.prefix}relay"

    def answer_key(self, request_id: str) -> str:
        """Redis key of the stored answer of a request."""
        return f"{self.prefix}answer:{request_id}"

    def lease_key(self, key: str) -> str:
        """Redis key of a request's lease and marker."""
        return f"{self.prefix}lease:{key}"

    def moved_key(self, key: str, hop: int) -> str:
        """Redis key of what a hop that moved on has to publish."""
        return f"{self.prefix}moved:{hop}:{key}"

    def limit_key(self, deployment: str) -> str:
        """Redis key, and the head of further ones, of what workers share of a deployment."""
        return f"{self.prefix}limit:{deployment}"

    def caller_key(self, scope: str) -> str:
        """Redis key, and the head of further ones, of a caller's scope."""
        return f"{self.prefix}caller:{scope}"

    def worker_key(self, worker: str) -> str:
        """Redis key of what a worker says of itself."""
        return f"{self.prefix}worker:{worker}"


def topic_specs(names: TopicNames, aliases: list[str], *, max_message_bytes: int = 4 << 20) -> list[TopicSpec]:
    """Every topic that `aliases` need, with the partitions and retention of the wire contract's defaults."""
    size = ("max.message.bytes", str(max_message_bytes))

    def kept(name: str, partitions: int, days: int) -> TopicSpec:
        return TopicSpec(name, partitions, (("retention.ms", str(days * DAY_MS)), size))

    specs = [kept(names.lane(alias, lane), 12, 7) for alias in aliases for lane in Lane]
    specs += [kept(names.delay(suffix), 6, 7) for suffix in DELAYS_S]
    specs += [kept(names.replies, 64, 1), kept(names.dead, 3, 30), kept(names.usage, 12, 7)]
    specs.append(TopicSpec(names.control, 1, (("cleanup.policy", "compact"),)))
    return specs
