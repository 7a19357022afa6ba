"""What has to change so that the topics a configuration needs exist, and the carrying out of it over a `LogAdmin`.

Never shrinks, never deletes: a topic with more partitions, or one that keeps more than we ask for, is left alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from broker.ports import LogAdmin, TopicState
from broker.topics import TopicSpec

FLOORS: Final = frozenset({"retention.ms", "max.message.bytes"})
"""Settings of which more is never taken away: lowering the one deletes records, lowering the other refuses them."""


class Action(StrEnum):
    """What is done to a topic."""

    CREATE = "create"
    GROW = "grow"
    ALTER = "alter"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as it should be: `what` of `topic` goes from `before` to `after`."""

    topic: str
    action: Action
    what: str
    before: str
    after: str


def plan_topics(specs: Iterable[TopicSpec], existing: Mapping[str, TopicState]) -> list[Change]:
    """Return the changes that are needed, in the order of `specs`; none when everything is as it should be."""
    return [change for spec in specs for change in _changes(spec, existing.get(spec.name))]


async def plan(admin: LogAdmin, specs: Sequence[TopicSpec]) -> list[Change]:
    """Look at the log and return the changes that are needed. Raises `Unavailable`."""
    return plan_topics(specs, await admin.topics(_common_prefix([spec.name for spec in specs])))


async def apply_topics(admin: LogAdmin, specs: Sequence[TopicSpec], replication_factor: int) -> list[Change]:
    """Make the changes that are needed and return them; idempotent. Raises `Unavailable` at the first that fails."""
    changes = await plan(admin, specs)
    by_name = {spec.name: spec for spec in specs}
    settings: dict[str, dict[str, str]] = {}
    for change in changes:
        if change.action is Action.CREATE:
            await admin.create(by_name[change.topic], replication_factor=replication_factor)
        elif change.action is Action.GROW:
            await admin.grow(change.topic, by_name[change.topic].partitions)
        else:
            settings.setdefault(change.topic, {})[change.what] = change.after
    for topic, values in settings.items():
        await admin.alter(topic, values)
    return changes


def _changes(spec: TopicSpec, state: TopicState | None) -> list[Change]:
    if state is None:
        wanted = ", ".join(f"{name}={value}" for name, value in spec.settings)
        after = f"{spec.partitions} partitions, {wanted}"
        return [Change(spec.name, Action.CREATE, "topic", "absent", after)]
    changes = []
    if state.partitions < spec.partitions:
        counts = str(state.partitions), str(spec.partitions)
        changes.append(Change(spec.name, Action.GROW, "partitions", *counts))
    for name, wanted in spec.settings:
        has = state.settings.get(name, "")
        if not _enough(name, has, wanted):
            changes.append(Change(spec.name, Action.ALTER, name, has, wanted))
    return changes


def _enough(name: str, has: str, wanted: str) -> bool:
    if has == wanted:
        return True
    if name not in FLOORS:
        return False
    try:
        value = int(has)
    except ValueError:
        return False
    return value < 0 or value >= int(wanted)  # Kafka writes "for ever" as -1


def _common_prefix(names: Sequence[str]) -> str:
    if not names:
        return ""
    low, high = min(names), max(names)
    length = next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return low[:length]
