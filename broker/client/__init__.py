"""What applications import: `from broker.client import BrokerClient`. May import the envelope, ports and schemas."""

from broker.client.client import BrokerClient
from broker.client.connect import LogPorts
from broker.client.errors import ReplyTimeout, RequestFailed
from broker.client.handle import Handle
from broker.client.models import ChatChunk, ChatCompletion, Completion, Embeddings
from broker.client.request import Options, Request
from broker.client.stream import ChatStream
from broker.envelope import Reply
from broker.topics import Lane

__all__ = [
    "BrokerClient",
    "ChatChunk",
    "ChatCompletion",
    "ChatStream",
    "Completion",
    "Embeddings",
    "Handle",
    "Lane",
    "LogPorts",
    "Options",
    "Reply",
    "ReplyTimeout",
    "Request",
    "RequestFailed",
]
