"""Asks Kafka which partitions a topic has, without making it. May import aiokafka."""

from aiokafka import AIOKafkaClient
from aiokafka.errors import (
    InvalidTopicError,
    LeaderNotAvailableError,
    NodeNotReadyError,
    NoError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.metadata import MetadataRequest


async def find_partitions(client: AIOKafkaClient, topic: str) -> tuple[int, ...]:
    """Return the partition numbers of `topic` in order; empty when it does not exist.

    aiokafka's own look-up would make the topic on clusters that create topics automatically, and would go on asking
    for it. Raises aiokafka's errors, `TopicAuthorizationFailedError` where the topic may not be seen.
    """
    node = client.get_random_node()
    if node is None:
        raise NodeNotReadyError("no broker is known")
    response = await client.send(node, MetadataRequest([topic], allow_auto_topic_creation=False))
    for error_code, _, _, partitions in response.topics:
        error = for_code(error_code)
        if error in {UnknownTopicOrPartitionError, InvalidTopicError}:
            return ()
        if error not in {NoError, LeaderNotAvailableError}:
            raise error(topic)
        return tuple(sorted(partition for _, partition, *_ in partitions))
    return ()
