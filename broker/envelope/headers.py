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
# How often the broker has republished the request: what tells a leftover of an earlier hop from the request itself.
HOP: Final = "hop"
# When the first record was produced, where its place became the request's id; unix milliseconds.
STAMP: Final = "stamp"
# What stands for `authorization` on a record the broker wrote: no virtual key is written into a topic again.
CALLER: Final = "caller"
SIGNATURE: Final = "broker-signature"
SIGNED: Final = (ATTEMPT, VISITED, FIRST_SEEN, NOT_BEFORE, ORIGIN, LAST_ERROR, HOP, STAMP)

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
# On the reply to a request that was answered before: the id of the request whose call this answer is from.
REPLAY_OF: Final = "replay-of"
SEQ: Final = "seq"

# On parked requests: the topic they go back to.
TARGET: Final = "target"

# On dead letters, beside everything the original record carried.
DEAD_REASON: Final = "dead-reason"
DEAD_CODE: Final = "dead-code"
DEAD_ORIGIN: Final = "dead-origin"
DEAD_AT: Final = "dead-at"
# The hop a replay is to have, signed by the worker that wrote the letter: the request has an outcome, and only a later
# hop may have another.
DEAD_HOP: Final = "dead-hop"
DEAD_SIGNATURE: Final = "dead-signature"

# Set by the log adapter on a record it could not parse; the value says why.
UNREADABLE: Final = "broker-unreadable"


def signature(secret: bytes, request_id: str, values: dict[str, str]) -> str:
    """HMAC-SHA256, hex, over the request id and the signed headers in their fixed order; absent ones count as empty."""
    # `hop` and `stamp` came later: records written without them keep their signature.
    names = SIGNED if HOP in values else SIGNED[:-2]
    text = "\n".join([request_id, *(values.get(name, "") for name in names)])
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()


def fingerprint(authorization: str) -> str:
    """SHA-256, hex, of the token in `Bearer <token>`; of the whole text where it is none, which is no key's hash."""
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    text = token if scheme.lower() == "bearer" and token else authorization
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def seal_caller(secret: bytes, request_id: str, value: bytes | None, caller: str) -> str:
    """Write the `caller` header: a key's hash and an HMAC-SHA256 that binds it to this request id and this body.

    So nobody who reads it in a topic can send another request in that caller's name.
    """
    return f"{caller}:{_caller_seal(secret, request_id, value, caller)}"


def open_caller(secret: bytes, request_id: str, value: bytes | None, text: str) -> str | None:
    """Return the hash a `caller` header names; None where the header was not written by us for this request."""
    caller, _, seal = text.partition(":")
    expected = _caller_seal(secret, request_id, value, caller)
    return caller if hmac.compare_digest(seal.encode(), expected.encode()) else None


def _caller_seal(secret: bytes, request_id: str, value: bytes | None, caller: str) -> str:
    body = hashlib.sha256(value or b"").hexdigest()
    return hmac.new(secret, f"{CALLER}\n{request_id}\n{caller}\n{body}".encode(), hashlib.sha256).hexdigest()
