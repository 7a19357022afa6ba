"""What makes two records the same request: the journal's key. Imports the standard library only."""

import hashlib
from typing import Final

DIGEST: Final = 40
"""Hex digits kept of a hash: 160 bits, so that two keys never meet by chance."""


def journal_key(request_id: str, tenant: str, idempotency_key: str | None) -> str:
    """Return the key under which a request is leased and its outcome is stored.

    Two requests of one tenant with the same idempotency key are one request, whatever their ids; without one the id
    decides. Another tenant's idempotency key is another key; of an id, the journal itself tells tenants apart.
    """
    if idempotency_key is None:
        return f"r:{request_id}"
    digest = hashlib.sha256(f"{len(tenant)}:{tenant}{idempotency_key}".encode()).hexdigest()
    return f"i:{digest[:DIGEST]}"
