"""The settings for other eyes: with every secret masked, and as the hash that ledger rows carry. Imports no I/O."""

import hashlib
import json
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from broker.config.models import Settings

MASK: Final = "***"
HASHED_LENGTH: Final = 12
"""Hex digits of a configuration's hash: enough to tell a few thousand configurations apart."""

ADDRESSES: Final = frozenset({"url", "dsn"})
"""Secret fields of which only a part is secret."""

UPSTREAMS: Final = frozenset({"api_base", "base_url", "endpoint", "authority"})
"""Addresses that are no secret, unless somebody wrote a user, a password or a query into them."""

FROM_A_KEY: Final = frozenset({"hash", "key_id"})
"""Fields of a virtual key that may come from its text."""


def masked(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain values (text, numbers, lists, mappings), what is not set left out.

    A secret is `***`; of an address with a password only the password is. Virtual keys are a list, without their hash.
    """
    values = settings.model_dump()
    values["keys"] = [{**key, "hash": SecretStr("")} for key in values["keys"].values()]
    shown: dict[str, Any] = _shown(values)
    return {"anonymous_tenant": None, **shown}


def _shown(value: Any) -> Any:  # noqa: ANN401 - any value of the settings
    match value:
        case SecretStr():
            return MASK
        case dict():
            shown = {str(key): _shown(_address(key, item)) for key, item in value.items()}
            return {key: item for key, item in shown.items() if not _is_empty(item)}
        case list() | tuple():
            return [_shown(item) for item in value]
        case Enum():
            return value.value
        case Decimal():
            return str(value)
    return value


def _address(field: object, value: object) -> object:
    if field in ADDRESSES and isinstance(value, SecretStr):
        return masked_address(value.get_secret_value())
    if field in UPSTREAMS and isinstance(value, str) and ("@" in value or "?" in value):
        return masked_address(value)
    return value


def _is_empty(value: object) -> bool:
    return value is None or value in ({}, [])


def masked_address(secret: str) -> str:
    """Return scheme, user and host of a URL with its password masked; anything else is masked as a whole."""
    try:
        parts = urlsplit(secret)
        host = parts.hostname
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return MASK
    if not parts.scheme or not parts.netloc or host is None:
        return MASK
    user = "" if parts.username is None else f"{parts.username}:{MASK}@" if parts.password else f"{MASK}@"
    host = f"[{host}]" if ":" in host else host
    return urlunsplit((parts.scheme, f"{user}{host}{port}", parts.path, MASK if parts.query else "", ""))


def config_hash(settings: Settings) -> str:
    """Return the first 12 hex digits of the SHA-256 of the settings without any secret.

    Two configurations that differ in secrets only, virtual keys included, have one hash: it goes into ledger rows.
    """
    values = settings.model_dump(exclude={"config_hash"})
    keys = [{name: item for name, item in key.items() if name not in FROM_A_KEY} for key in values["keys"].values()]
    values["keys"] = sorted(keys, key=repr)
    text = json.dumps(_without_secrets(values), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:HASHED_LENGTH]


def _without_secrets(value: Any) -> Any:  # noqa: ANN401 - any value of the settings
    match value:
        case dict():
            return {
                key: _without_secrets(item)
                for key, item in value.items()
                if item is not None and not isinstance(item, SecretStr)
            }
        case list() | tuple():
            return [_without_secrets(item) for item in value]
    return value
