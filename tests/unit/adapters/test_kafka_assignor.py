"""How a group's partitions are spread: every topic evenly, and nothing moves that need not."""

from collections import Counter

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.adapters.kafka_assignor import Held, assignor, spread

TOPICS = {"a": range(12), "b": range(12), "c": range(5)}


def members(*names: str) -> dict[str, list[str]]:
    return {name: list(TOPICS) for name in names}


def per_topic(held: Held) -> Counter[tuple[str, str]]:
    return Counter((topic, member) for (topic, _), member in held.items())


def test_every_topic_is_spread_over_all_members_whenever_they_came() -> None:
    held: Held = {}
    names: list[str] = []
    for name in "wxyz":
        names.append(name)
        held = spread(TOPICS, members(*names), held)
    assert {count for (topic, _), count in per_topic(held).items() if topic != "c"} == {3}
    assert sorted(Counter(held.values()).values()) == [7, 7, 7, 8]


def test_nothing_moves_without_a_reason_and_a_member_that_leaves_moves_its_own_only() -> None:
    held = spread(TOPICS, members("w", "x", "y", "z"), {})
    assert spread(TOPICS, members("z", "y", "x", "w"), held) == held
    after = spread({"a": range(12)}, members("w", "x", "y"), held)
    assert {after[place] for place in after if held[place] != "z"} == {"w", "x", "y"}
    assert all(after[place] == held[place] for place in after if held[place] != "z")


def test_who_does_not_subscribe_gets_nothing_and_a_topic_of_nobody_is_left() -> None:
    held = spread(TOPICS, {"w": ["a"], "x": ["a", "b"]}, {})
    assert {member for (topic, _), member in held.items() if topic == "b"} == {"x"}
    assert per_topic(held)["a", "w"] == per_topic(held)["a", "x"] == 6
    assert not [place for place in held if place[0] == "c"]


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 14).map(range), max_size=4),
    st.lists(st.sets(st.sampled_from("uvwxyz"), min_size=1), min_size=1, max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_all_is_given_evenly_however_members_come_and_go(topics: dict[str, range], generations: list[set[str]]) -> None:
    held: Held = {}
    for names in generations:
        before = held
        held = spread(topics, {name: list(topics) for name in names}, held)
        assert set(held) == {(topic, number) for topic, numbers in topics.items() for number in numbers}
        for topic, numbers in topics.items():
            counts = [per_topic(held)[topic, name] for name in names]
            assert max(counts) - min(counts) <= 1
            kept = [number for number in numbers if before.get((topic, number)) in names]
            stayed = sum(held[topic, number] == before[topic, number] for number in kept)
            assert stayed >= sum(
                min(len(numbers) // len(names), Counter(before[topic, n] for n in kept)[name]) for name in names
            )


def test_members_tell_each_other_what_they_have_and_the_later_word_counts() -> None:
    cluster = ClusterMetadata()
    cluster.partitions_for_topic = lambda topic: set(range(4)) if topic == "t" else None
    old, new, third = assignor(), assignor(), assignor()
    old.on_assignment(ConsumerProtocolMemberAssignment(0, [("t", [0, 1, 2, 3])], b""))
    new.on_assignment(ConsumerProtocolMemberAssignment(0, [("t", [2, 3])], b""))
    told = {name: each.metadata(["t"]) for name, each in (("a", old), ("b", new), ("c", third))}
    given_out = third.assign(cluster, {name: told[name] for name in ("a", "b")})
    assert {name: share.assignment for name, share in given_out.items()} == {"a": [("t", [0, 1])], "b": [("t", [2, 3])]}
    assert third.assign(cluster, {"c": told["c"]})["c"].assignment == [("t", [0, 1, 2, 3])]
