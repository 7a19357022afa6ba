"""Kafka record ⇄ Job, and what clients write and read; the only code that knows header names."""

from broker.envelope.client import NewRequest, Reply, encode_cancel, encode_request, read_cancel, read_reply
from broker.envelope.job import Job, encode_again, encode_chunk, encode_reply, open_record, sealed_caller

__all__ = [
    "Job",
    "NewRequest",
    "Reply",
    "encode_again",
    "encode_cancel",
    "encode_chunk",
    "encode_reply",
    "encode_request",
    "open_record",
    "read_cancel",
    "read_reply",
    "sealed_caller",
]
