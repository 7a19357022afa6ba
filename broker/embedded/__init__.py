"""Starts the parts of the stack on one machine: Kafka-protocol log, Redis, ClickHouse engine, local model, children.

Imports nothing of other level-4 folders; a part is reached over its own protocol like any real server.
"""
