"""Which member of a group reads which partition: each topic evenly over all members, and what one has it keeps.

aiokafka's sticky assignor evens out the sum over all topics only, so that a worker may end up with every partition of
one alias and its neighbour with none. May import aiokafka.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

import orjson
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

VERSION: Final = 0

Held = Mapping[tuple[str, int], str]
"""Topic and partition → the member that reads it."""


def spread(partitions: Mapping[str, Iterable[int]], members: Mapping[str, Iterable[str]], held: Held) -> Held:
    """Return who reads what: `members` by the topics each subscribes to, `held` by whom it was read until now.

    Of one topic no member gets two partitions more than another. The uneven rest goes to those that have the fewest in
    all, then to those that have it already. Deterministic.
    """
    total: Counter[str] = Counter()
    given: dict[tuple[str, int], str] = {}
    readers: defaultdict[str, list[str]] = defaultdict(list)
    for member in sorted(members):
        for topic in members[member]:
            readers[topic].append(member)
    for topic in sorted(partitions):
        able = readers.get(topic)
        if not able:
            continue
        numbers = sorted(partitions[topic])
        had = Counter(held.get((topic, number), "") for number in numbers)
        least, more = divmod(len(numbers), len(able))
        order = sorted(able, key=lambda member: (total[member], -had[member], member))
        left = {member: least + (index < more) for index, member in enumerate(order)}
        total.update(left)
        homeless = []
        for number in numbers:
            owner = held.get((topic, number))
            if owner is not None and left.get(owner, 0) > 0:
                left[owner] -= 1
                given[topic, number] = owner
            else:
                homeless.append(number)
        free = [member for member in order for _ in range(left[member])]
        given |= {(topic, number): member for number, member in zip(homeless, free, strict=True)}
    return given


class EvenAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka ships no types
    """`spread` as aiokafka asks for it. A class belongs to one member: make one with `assignor`."""

    name = "even"
    held: ClassVar[bytes] = b""
    """What this member was given last and when, as the others are told."""

    @classmethod
    def assign(
        cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Spread the topics of all members; called on the group's leader."""
        topics = {topic for member in members.values() for topic in member.subscription}
        partitions = {topic: cluster.partitions_for_topic(topic) or () for topic in topics}
        subscribed = {name: member.subscription for name, member in members.items()}
        shares: dict[str, defaultdict[str, list[int]]] = {name: defaultdict(list) for name in members}
        for (topic, number), name in spread(partitions, subscribed, _held(members)).items():
            shares[name][topic].append(number)
        return {
            name: ConsumerProtocolMemberAssignment(VERSION, sorted(share.items()), b"")
            for name, share in shares.items()
        }

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Say what this member subscribes to and what it has."""
        return ConsumerProtocolMemberMetadata(VERSION, list(topics), cls.held)

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember what this member was given."""
        cls.held = orjson.dumps({"at": time.time_ns(), "read": {topic: list(p) for topic, p in assignment.assignment}})


def assignor() -> type[EvenAssignor]:
    """Return an assignor of its own for one member: aiokafka calls its methods on the class."""
    return type("EvenAssignor", (EvenAssignor,), {})


def _held(members: Mapping[str, ConsumerProtocolMemberMetadata]) -> dict[tuple[str, int], str]:
    """Return who has what; of two members that both think so, the one that was told later."""
    told: list[tuple[int, str, Mapping[str, list[int]]]] = []
    for name, member in members.items():
        if member.user_data:
            said = orjson.loads(member.user_data)
            told.append((said["at"], name, said["read"]))
    return {
        (topic, number): name
        for _, name, read in sorted(told, key=lambda item: item[:2])
        for topic, numbers in read.items()
        for number in numbers
    }
