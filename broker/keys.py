"""Virtual keys: who is calling. No I/O; time is an argument. What a caller may use, `CallerStore` counts."""

from dataclasses import dataclass
from typing import Final

from broker.config import Settings, VirtualKey
from broker.envelope.headers import fingerprint
from broker.errors import InvalidApiKey, ModelNotAllowed

CACHED_KEYS: Final = 10_000
"""Authorization headers remembered, so that a known key is hashed once; forgotten together when full."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request is from. `key` is None for the anonymous tenant; `key_id` and `team` are then empty."""

    tenant: str
    key_id: str
    team: str
    key: VirtualKey | None


class KeyRing:
    """The virtual keys of the configuration. A raw key is never in a message or a repr."""

    def __init__(self, settings: Settings) -> None:
        self._keys = settings.keys
        self._known: dict[str, tuple[VirtualKey, Caller]] = {}
        name = settings.anonymous_tenant
        self._anonymous = None if name is None else Caller(tenant=name, key_id="", team="", key=None)

    def __repr__(self) -> str:
        return f"KeyRing({len(self._keys)} keys)"

    def tenant_of(self, authorization: str | None, now_ms: int, alias: str, told: str | None = None) -> Caller:
        """Return who calls, and that they may use `alias`; `now_ms` is unix milliseconds.

        `authorization` is the header's text, `Bearer <key>`, or None when the record has none; `told` is then the hash
        of its key, where the broker wrote the record and told it. Raises `InvalidApiKey` for a key that is malformed,
        unknown, blocked or expired, and where a key is needed and absent; `ModelNotAllowed` for an alias the key may
        not use.
        """
        if authorization is not None:
            key, caller = self._known.get(authorization) or self._find(authorization)
        elif told is not None:
            key = self._key(told)
            caller = _caller(key)
        elif self._anonymous is not None:
            return self._anonymous
        else:
            raise InvalidApiKey("a key is needed: send it in the header `authorization` as `Bearer <key>`")
        if key.blocked:
            raise InvalidApiKey(f"the key {key.key_id} is blocked")
        if key.expires_ms is not None and now_ms >= key.expires_ms:
            raise InvalidApiKey(f"the key {key.key_id} has expired")
        if key.aliases and alias not in key.aliases:
            raise ModelNotAllowed(f"the key {key.key_id} may not use {alias}", param="model")
        return caller

    def _find(self, authorization: str) -> tuple[VirtualKey, Caller]:
        """Look a header up by the hash of its key and remember it; only keys that exist are remembered."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise InvalidApiKey("the header `authorization` is not `Bearer <key>`")
        key = self._key(fingerprint(authorization))
        if len(self._known) >= CACHED_KEYS:
            self._known.clear()
        found = self._known[authorization] = (key, _caller(key))
        return found

    def _key(self, digest: str) -> VirtualKey:
        key = self._keys.get(digest)
        if key is None:
            raise InvalidApiKey("the key is unknown")
        return key


def _caller(key: VirtualKey) -> Caller:
    return Caller(key.tenant, key.key_id, key.team, key)
