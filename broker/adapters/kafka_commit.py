"""Commits offsets of a group member without touching its membership. May import aiokafka."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer
from aiokafka.client import ConnectionGroup
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    IllegalGenerationError,
    KafkaError,
    NoError,
    NotCoordinatorForGroupError,
    RequestTimedOutError,
    for_code,
)
from aiokafka.protocol.commit import OffsetCommitRequest

from broker.ports import Commit, Partition

_RETRY_S: Final = 0.1

_MOVED: Final = (NotCoordinatorForGroupError, GroupCoordinatorNotAvailableError, RequestTimedOutError)

_Topics = list[tuple[str, list[tuple[int, int, str]]]]


async def commit_offsets(consumer: AIOKafkaConsumer, commits: Mapping[Partition, Commit]) -> None:
    """Commit as the member that `consumer` is; tries for ever while the coordinator moves. Raises aiokafka's errors.

    aiokafka's own `commit` cannot be used: it refuses inside the revocation that a changed subscription brings, and on
    an illegal generation it throws the membership away and joins as a stranger, so that the group waits 30 s for the
    member it was. Here the heartbeat is left to find out what becomes of the membership.
    """
    coordinator: GroupCoordinator = consumer._coordinator  # noqa: SLF001 - holds generation and member id
    by_topic: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for partition, commit in commits.items():
        by_topic[partition[0]].append((partition[1], commit.offset, commit.metadata))
    topics = list(by_topic.items())
    while True:
        await coordinator.ensure_coordinator_known()
        try:
            await _commit(consumer, coordinator, topics)
        except KafkaError as exc:
            if not exc.retriable:
                raise
            if isinstance(exc, _MOVED):
                coordinator.coordinator_dead()
            await asyncio.sleep(_RETRY_S)
        else:
            return


async def _commit(consumer: AIOKafkaConsumer, coordinator: GroupCoordinator, topics: _Topics) -> None:
    generation: int = coordinator.generation
    try:
        await _send(consumer, coordinator, topics, generation)
    except IllegalGenerationError:
        # The embedded log counts the generation on when a rebalance begins, Kafka when it ends. A member that has
        # really been left behind is refused again: Kafka has forgotten its id by then.
        await _send(consumer, coordinator, topics, generation + 1)


async def _send(consumer: AIOKafkaConsumer, coordinator: GroupCoordinator, topics: _Topics, generation: int) -> None:
    request = OffsetCommitRequest(
        coordinator.group_id, generation, coordinator.member_id, OffsetCommitRequest.DEFAULT_RETENTION_TIME, topics
    )
    client = consumer._client  # noqa: SLF001 - the connection that the coordinator knows this member by
    answer = await client.send(coordinator.coordinator_id, request, group=ConnectionGroup.COORDINATION)
    for _, partitions in answer.topics:
        for _, error_code in partitions:
            error = for_code(error_code)
            if error is not NoError:
                raise error(coordinator.group_id)
