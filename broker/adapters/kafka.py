"""The log on Kafka: consumer, producer and reader. What composition roots import; the parts live beside it."""

from broker.adapters.kafka_consumer import KafkaConsumer
from broker.adapters.kafka_producer import KafkaProducer
from broker.adapters.kafka_reader import KafkaReader

__all__ = ["KafkaConsumer", "KafkaProducer", "KafkaReader"]
