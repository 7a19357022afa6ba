"""The names of every header that travels on a record, and the signature over those the broker alone may write."""

import hashlib
import hmac
from typing import Final

REQUEST_ID: Final = "request-id"
ENDPOINT: Final = "endpoint"
REPLY_TO: Final = "reply-to"
REPLY_PARTITION: Final = "reply-partition"
AUTHORIZATION: Final = "authorization"
DEADLINE: Final = "deadline"
PRIORITY: Final = "priority"
IDEMPOTENCY_KEY: Final = "idempotency-key"
TAGS: Final = "tags"
METADATA: Final = "metadata"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

# Written by the broker when it republishes a request; believed only with the signature.
ATTEMPT: Final = "attempt"
VISITED: Final = "visited"
FIRST_SEEN: Final = "first-seen"
NOT_BEFORE: Final = "not-before"
ORIGIN: Final = "origin"
LAST_ERROR: Final = "last-error"
SIGNATURE: Final = "broker-signature"
SIGNED: Final = (ATTEMPT, VISITED, FIRST_SEEN, NOT_BEFORE, ORIGIN, LAST_ERROR)

# On replies.
STATUS: Final = "status"
ALIAS: Final = "alias"
SERVED_BY: Final = "served-by"
MODEL: Final = "model"
ATTEMPTS: Final = "attempts"
FALLBACKS: Final = "fallbacks"
COST: Final = "cost"
QUEUE_MS: Final = "queue-ms"
UPSTREAM_MS: Final = "upstream-ms"
RETRY_AFTER: Final = "retry-after"
FINAL: Final = "final"
SEQ: Final = "seq"

# On parked requests: the topic they go back to.
TARGET: Final = "target"

# On dead letters, beside everything the original record carried.
DEAD_REASON: Final = "dead-reason"
DEAD_CODE: Final = "dead-code"
DEAD_ORIGIN: Final = "dead-origin"
DEAD_AT: Final = "dead-at"

# Set by the log adapter on a record it could not parse; the value says why.
UNREADABLE: Final = "broker-unreadable"


def signature(secret: bytes, request_id: str, values: dict[str, str]) -> str:
    """HMAC-SHA256, hex, over the request id and the signed headers in their fixed order; absent ones count as empty."""
    text = "\n".join([request_id, *(values.get(name, "") for name in SIGNED)])
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
