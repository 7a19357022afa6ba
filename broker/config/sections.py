"""Our own sections of the file, the plain ones as well as pools, keys, tenants and prices. Imports no I/O."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from typing import Any, Final

from broker.config.models import Pool, ProviderRow, Tenant, VirtualKey
from broker.config.problems import kind
from broker.config.reading import ModelT, Reading

ENVIRONMENT: Final = {
    "BROKER_KAFKA_BOOTSTRAP_SERVERS": ("kafka", "bootstrap_servers"),
    "BROKER_REDIS_URL": ("redis", "url"),
    "BROKER_CLICKHOUSE_DSN": ("clickhouse", "dsn"),
}
"""Variables that go before the file; the compose file and `broker up` point processes at their parts with them."""

KEY_FIELDS: Final = frozenset(VirtualKey.model_fields) - {"key_id", "expires_ms"} | {"key", "id", "models", "expires"}


def token_hash(token: str) -> str:
    """Return the SHA-256 of a virtual key in hex: the only form in which a key is kept."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def read_part(reading: Reading, value: object, path: str, model: type[ModelT]) -> ModelT | None:
    """Return one of the plain sections, variables of `ENVIRONMENT` included; None where a problem was noted."""
    values = reading.section(value, path, model.model_fields)
    for variable, (section, field) in ENVIRONMENT.items():
        if section == path and reading.environ.get(variable):
            values[field] = reading.environ[variable]
    return reading.build(model, values, path)


def read_pools(reading: Reading, value: object) -> dict[str, Pool]:
    """Return the pools of `workers.pools`, a mapping of name → pool; keys beside `pools` are every pool's defaults."""
    shared = set(Pool.model_fields) - {"name", "aliases"}
    defaults = reading.section(value, "workers", {"pools", *shared}, nested={"pools"})
    named = reading.mapping(defaults.pop("pools", None), "workers.pools") or {"default": None}
    pools = {}
    for name, entry in named.items():
        path = f"workers.pools.{name}"
        values = {**defaults, **reading.section(entry, path, set(Pool.model_fields) - {"name"}), "name": name}
        pool = reading.build(Pool, values, path)
        if pool is not None:
            pools[name] = pool
    return pools


def read_keys(
    reading: Reading, value: object, known_aliases: Callable[[Sequence[str], str], tuple[str, ...]]
) -> dict[str, VirtualKey]:
    """Return the virtual keys by hash; `key` is hashed here and goes no further.

    `known_aliases` turns the names a key may use, and their path, into aliases.
    """
    keys: dict[str, VirtualKey] = {}
    for index, entry in enumerate(reading.items(value, "keys")):
        path = f"keys[{index}]"
        values = reading.section(entry, path, KEY_FIELDS)
        if "models" in values:
            values.setdefault("aliases", values.pop("models"))
        _take_hash(reading, values, path)
        values["expires_ms"] = _expiry(reading, values.pop("expires", None), f"{path}.expires")
        if "hash" not in values:
            continue
        key_id = values.pop("id", None)
        values["key_id"] = str(key_id) if key_id is not None else str(values["hash"])[:12]
        key = reading.build(VirtualKey, values, path, {"key_id": "id", "expires_ms": "expires"})
        if key is None:
            continue
        if key.hash in keys:
            reading.problem(path, f"the same key stands in this list already, as {keys[key.hash].key_id}")
        keys[key.hash] = key.model_copy(update={"aliases": known_aliases(key.aliases, f"{path}.aliases")})
    return keys


def _take_hash(reading: Reading, values: dict[str, Any], path: str) -> None:
    token = values.pop("key", None)
    if (token is None) == (values.get("hash") is None):
        if not any(problem.startswith(f"{path}.") for problem in reading.problems):
            reading.problem(path, "exactly one of `key` and `hash` is needed")
        return
    if token is None:
        values["hash"] = str(values["hash"]).lower()
    elif isinstance(token, str) and token:
        values["hash"] = token_hash(token)
    else:
        reading.problem(f"{path}.key", f"text is needed, not {kind(token)}")


def _expiry(reading: Reading, value: object, path: str) -> int | None:
    """Return unix milliseconds of an ISO date or time; a date ends with its day, a time without zone is UTC."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value) if len(value) == len("2030-01-31") else datetime.fromisoformat(value)
        except ValueError:
            reading.problem(path, "an ISO date or time is needed, such as 2030-01-31 or 2030-01-31T12:00:00Z")
            return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time.max, UTC)
    if not isinstance(value, datetime):
        reading.problem(path, f"an ISO date or time is needed, not {kind(value)}")
        return None
    zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
    return int(zoned.timestamp() * 1000)


def read_anonymous(reading: Reading, value: object, default: str | None) -> str | None:
    """Return the tenant of requests without a key; an explicit null refuses them."""
    tenants = reading.section(value, "tenants", {"anonymous", "policies"}, nested={"policies"})
    name = tenants.get("anonymous", default)
    if name is not None and (not isinstance(name, str) or not name):
        reading.problem("tenants.anonymous", f"a name or null is needed, not {kind(name)}")
        return default
    return name


def read_tenants(reading: Reading, value: object) -> dict[str, Tenant]:
    """Return what `tenants.policies`, a mapping of name → limits and weight, says of tenants."""
    policies = value.get("policies") if isinstance(value, dict) else None  # what else it holds `read_anonymous` judges
    tenants = {}
    for name, entry in reading.mapping(policies, "tenants.policies").items():
        path = f"tenants.policies.{name}"
        values = {**reading.section(entry, path, set(Tenant.model_fields) - {"name"}), "name": name}
        tenant = reading.build(Tenant, values, path)
        if tenant is not None:
            tenants[name] = tenant
    return tenants


def read_prices(reading: Reading, value: object) -> tuple[dict[str, Any], ...]:
    """Return the price overrides as written, references resolved."""
    rows = []
    for index, entry in enumerate(reading.items(value, "prices")):
        path = f"prices[{index}]"
        rows.append(reading.resolve(reading.mapping(entry, path), path))
    return tuple(rows)


def read_providers(reading: Reading, value: object) -> dict[str, ProviderRow]:
    """Return `providers`, a mapping of a provider's name → what its row says; it goes before the table's own."""
    rows = {}
    for name, entry in reading.mapping(value, "providers").items():
        path = f"providers.{name}"
        row = reading.build(ProviderRow, reading.section(entry, path, set(ProviderRow.model_fields)), path)
        if row is not None:
            rows[name] = row
    return rows
