"""What `broker topics` finds to change, and that it never takes anything away."""

import pytest

from broker.adapters.memory_log import MemoryAdmin, MemoryLog
from broker.ports import TopicState
from broker.topic_plan import Action, Change, apply_topics, plan, plan_topics
from broker.topics import TopicNames, TopicSpec, topic_specs

SPEC = TopicSpec("llm.x", 12, (("retention.ms", "600"), ("max.message.bytes", "400")))


def state(partitions: int = 12, **settings: str) -> dict[str, TopicState]:
    values = {"retention.ms": "600", "max.message.bytes": "400", "segment.bytes": "1"}
    values |= {name.replace("_", "."): value for name, value in settings.items()}
    return {"llm.x": TopicState("llm.x", partitions, values)}


def test_an_absent_topic_is_created() -> None:
    after = "12 partitions, retention.ms=600, max.message.bytes=400"
    assert plan_topics([SPEC], {}) == [Change("llm.x", Action.CREATE, "topic", "absent", after)]


def test_a_topic_as_it_should_be_needs_nothing() -> None:
    assert plan_topics([SPEC], state()) == []


def test_too_few_partitions_grow_and_too_many_stay() -> None:
    assert plan_topics([SPEC], state(3)) == [Change("llm.x", Action.GROW, "partitions", "3", "12")]
    assert plan_topics([SPEC], state(48)) == []


def test_a_setting_that_keeps_less_is_raised() -> None:
    assert plan_topics([SPEC], state(retention_ms="599", max_message_bytes="399")) == [
        Change("llm.x", Action.ALTER, "retention.ms", "599", "600"),
        Change("llm.x", Action.ALTER, "max.message.bytes", "399", "400"),
    ]


@pytest.mark.parametrize("kept", ["601", "-1"])
def test_a_topic_that_keeps_more_than_asked_is_left_alone(kept: str) -> None:
    assert plan_topics([SPEC], state(retention_ms=kept)) == []


def test_a_policy_that_differs_is_changed() -> None:
    compacted = TopicSpec("llm.x", 1, (("cleanup.policy", "compact"),))
    changes = plan_topics([compacted], state(cleanup_policy="delete"))
    assert changes == [Change("llm.x", Action.ALTER, "cleanup.policy", "delete", "compact")]


async def test_applying_makes_every_topic_of_the_wire_contract_once() -> None:
    log = MemoryLog({"llm.usage": 3, "other": 1})
    specs = topic_specs(TopicNames(), ["local", "busy"])
    changes = await apply_topics(MemoryAdmin(log), specs, 1)
    assert {change.topic for change in changes if change.action is Action.CREATE} == {
        spec.name for spec in specs if spec.name != "llm.usage"
    }
    assert next((c.action, c.after) for c in changes if c.topic == "llm.usage") == (Action.GROW, "12")
    assert await plan(MemoryAdmin(log), specs) == []
    assert await apply_topics(MemoryAdmin(log), specs, 1) == []
    assert {name: topic.partitions for name, topic in log.states().items()} == {
        **{spec.name: spec.partitions for spec in specs},
        "other": 1,
    }


async def test_no_topics_need_nothing() -> None:
    assert await apply_topics(MemoryAdmin(MemoryLog()), [], 1) == []
