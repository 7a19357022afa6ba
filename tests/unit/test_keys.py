"""Who calls."""

import hashlib
from typing import Any

import pytest

from broker.config import Settings, VirtualKey
from broker.errors import InvalidApiKey, ModelNotAllowed
from broker.keys import Caller, KeyRing

NOW_MS = 1_700_000_000_000
TOKEN = "sk-secret-token"


def key(**fields: Any) -> VirtualKey:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    return VirtualKey(**{"hash": digest, "key_id": "k1", "tenant": "acme", "team": "red", **fields})


def ring(*keys: VirtualKey, anonymous: str | None = "anonymous") -> KeyRing:
    return KeyRing(Settings(keys={each.hash: each for each in keys}, anonymous_tenant=anonymous))


def calls(keys: KeyRing) -> Caller:
    return keys.tenant_of(f"Bearer {TOKEN}", NOW_MS, "chat")


def test_a_known_key_tells_its_tenant_team_and_id() -> None:
    caller = calls(ring(key()))
    assert (caller.tenant, caller.key_id, caller.team) == ("acme", "k1", "red")


def test_without_a_key_the_anonymous_tenant_calls() -> None:
    assert ring(anonymous="guests").tenant_of(None, NOW_MS, "chat") == Caller("guests", "", "", None)


def test_without_a_key_nobody_calls_where_the_anonymous_tenant_is_refused() -> None:
    with pytest.raises(InvalidApiKey, match="a key is needed"):
        ring(anonymous=None).tenant_of(None, NOW_MS, "chat")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer{TOKEN}", "Bearer \ud800"]
)
def test_a_malformed_or_unknown_header_is_refused_even_where_anonymous_is_allowed(header: str) -> None:
    with pytest.raises(InvalidApiKey):
        ring(key()).tenant_of(header, NOW_MS, "chat")


@pytest.mark.parametrize("header", [f"bearer {TOKEN}", f"BEARER {TOKEN}", f"Bearer  {TOKEN} "])
def test_the_scheme_is_read_in_any_case(header: str) -> None:
    assert ring(key()).tenant_of(header, NOW_MS, "chat").tenant == "acme"


def test_a_blocked_key_is_refused() -> None:
    with pytest.raises(InvalidApiKey, match="k1 is blocked"):
        calls(ring(key(blocked=True)))


def test_a_key_is_good_until_the_millisecond_it_expires() -> None:
    keys = ring(key(expires_ms=NOW_MS))
    assert keys.tenant_of(f"Bearer {TOKEN}", NOW_MS - 1, "chat").key_id == "k1"
    with pytest.raises(InvalidApiKey, match="has expired"):
        keys.tenant_of(f"Bearer {TOKEN}", NOW_MS, "chat")


def test_a_key_may_use_only_its_aliases() -> None:
    keys = ring(key(aliases=("chat",)))
    assert keys.tenant_of(f"Bearer {TOKEN}", NOW_MS, "chat").key_id == "k1"
    with pytest.raises(ModelNotAllowed, match="may not use other"):
        keys.tenant_of(f"Bearer {TOKEN}", NOW_MS, "other")


def test_no_message_and_no_repr_holds_the_key() -> None:
    keys = ring(key(blocked=True))
    with pytest.raises(InvalidApiKey) as blocked:
        calls(keys)
    with pytest.raises(InvalidApiKey) as unknown:
        keys.tenant_of("Bearer sk-other-token", NOW_MS, "chat")
    assert [text for text in (str(blocked.value), str(unknown.value), repr(keys)) if "token" in text] == []


def test_unknown_keys_are_not_remembered() -> None:
    keys = ring(key())
    calls(keys)
    for number in range(50):
        with pytest.raises(InvalidApiKey):
            keys.tenant_of(f"Bearer guess-{number}", NOW_MS, "chat")
    assert repr(keys) == "KeyRing(1 keys)"
    assert len(keys._known) == 1  # noqa: SLF001 - its size is what keeps memory bounded
