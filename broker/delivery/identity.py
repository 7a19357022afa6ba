"""What makes two records the same request: the journal's key. Imports the standard library only."""

import hashlib
from typing import Final

DIGEST: Final = 40
"""Hex digits kept of a hash: 160 bits, so that two keys never meet by chance."""


def journal_key(request_id: str, tenant: str, idempotency_key: str | None, stamp: int | None = None) -> str:
    """Return the key under which a request is leased and its outcome is stored.

    Two requests of one tenant with the same idempotency key are one request, whatever their ids; without one the id
    decides. Another tenant's idempotency key is another key; of an id, the journal itself tells tenants apart. `stamp`
    is the time, unix milliseconds, of a request whose id is only the place of its record: a topic that was deleted and
    made again has the same places and other requests.
    """
    if idempotency_key is None:
        return f"r:{request_id}" if stamp is None else f"r:{request_id}@{stamp}"
    digest = hashlib.sha256(f"{len(tenant)}:{tenant}{idempotency_key}".encode()).hexdigest()
    return f"i:{digest[:DIGEST]}"
