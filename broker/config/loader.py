"""`load`: from a file and the environment to `Settings`. The only reader of os.environ; every other module is told."""

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from broker.config import known, policy, sections
from broker.config.deployments import alias_name, read_model_list
from broker.config.media import Media
from broker.config.models import Alias, ClickHouse, Deployment, Kafka, Pool, Redis, Server, Settings, VirtualKey
from broker.config.problems import ConfigProblems, kind
from broker.config.reading import Reading
from broker.config.views import config_hash
from broker.config.yaml_file import read_tree

CONFIG_VARIABLE: Final = "BROKER_CONFIG"
SIGNING_VARIABLE: Final = "BROKER_SIGNING_KEY"
SIGNING_LABEL: Final = b"queue-inference-broker/broker-signature/1"
"""Keeps the signing key apart from every other use of the master key."""

ADMIN_TENANT: Final = "admin"
"""Tenant of LiteLLM's master key."""

EVERY_ALIAS: Final = frozenset({"*", "all-proxy-models"})
"""In a list of aliases they stand for all; the second is LiteLLM's word."""


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of a file, of the file `BROKER_CONFIG` names, or the defaults when there is neither.

    `environ` is the process environment unless given. Raises `ConfigError`; `ConfigProblems`, its subclass, holds
    every problem found. No secret is in a message.
    """
    environ = os.environ if environ is None else environ
    if path is None and environ.get(CONFIG_VARIABLE):
        path = Path(environ[CONFIG_VARIABLE])
    return settings_of(read_tree(path) if path is not None else {}, environ, source=str(path or "defaults"))


def settings_of(tree: Mapping[str, Any], environ: Mapping[str, str], *, source: str = "configuration") -> Settings:
    """Return the settings of a parsed file; `source` stands before the problems of the error."""
    reading = Reading(environ)
    reading.environ = _with_variables(reading, tree.get("environment_variables"), environ)
    top = _top_level(reading, tree)
    values = _settings(reading, top)
    if reading.problems:
        raise ConfigProblems(source, reading.problems)
    settings = Settings(**values, unacted=tuple(reading.unacted))
    return settings.model_copy(update={"config_hash": config_hash(settings)})


def _top_level(reading: Reading, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections we act on, references not yet resolved: each section resolves only what it acts on."""
    top = {}
    for key, value in tree.items():
        if key in known.TOP_ACTED:
            top[key] = value
        elif key in known.listed("top_level"):
            reading.ignore(key)
        else:
            reading.unknown(key, key, known.TOP_ACTED | known.listed("top_level"))
    return top


def _with_variables(reading: Reading, value: object, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment with the file's own variables below it: a variable that is really set goes first."""
    variables = {}
    for name, item in reading.mapping(value, "environment_variables").items():
        if name in environ or item is None:
            continue
        resolved = reading.resolve(item, f"environment_variables.{name}")
        if isinstance(resolved, dict | list):
            reading.problem(f"environment_variables.{name}", f"text is needed, not {kind(resolved)}")
        elif resolved is not None:
            variables[name] = _text(resolved)
    return {**variables, **environ}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _settings(reading: Reading, top: Mapping[str, Any]) -> dict[str, Any]:
    rules = policy.read_policy(reading, top.get("router_settings"), top.get("litellm_settings"))
    credentials = _credentials(reading, top.get("credential_list"))
    rows = sections.read_providers(reading, top.get("providers"))
    models = read_model_list(reading, top.get("model_list"), credentials, policy.deployment_defaults(rules), rows)
    _check_names(reading, models)
    names, renamed = policy.read_names(reading, models, rules.get("model_group_alias"))
    aliases, default_fallbacks = _aliases(reading, top.get("aliases"), models, rules, names)
    general = reading.section(
        top.get("general_settings"), "general_settings", known.GENERAL_ACTED, known.listed("general_settings")
    )
    master = _secret(reading, general.get("master_key"), "general_settings.master_key")
    signing = _secret(reading, general.get("signing_key"), "general_settings.signing_key")
    values = {
        "aliases": aliases,
        "alias_names": renamed,
        "default_fallbacks": default_fallbacks,
        "keys": _keys(reading, top.get("keys"), master, names),
        "tenants": sections.read_tenants(reading, top.get("tenants")),
        "anonymous_tenant": sections.read_anonymous(reading, top.get("tenants"), Settings().anonymous_tenant),
        "signing_key": _signing_key(signing or reading.environ.get(SIGNING_VARIABLE), master),
        "kafka": sections.read_part(reading, top.get("kafka"), "kafka", Kafka),
        "redis": sections.read_part(reading, top.get("redis"), "redis", Redis),
        "clickhouse": sections.read_part(reading, top.get("clickhouse"), "clickhouse", ClickHouse),
        "server": sections.read_part(reading, top.get("server"), "server", Server),
        "media": sections.read_part(reading, top.get("media"), "media", Media),
        "pools": _pools(reading, top.get("workers"), names),
        "providers": rows,
        "price_overrides": sections.read_prices(reading, top.get("prices")),
    }
    return {key: value for key, value in values.items() if value is not None or key == "anonymous_tenant"}


def _aliases(
    reading: Reading,
    value: object,
    models: Mapping[str, list[Deployment]],
    rules: Mapping[str, tuple[Any, str]],
    names: policy.Names,
) -> tuple[dict[str, Alias], tuple[str, ...]]:
    """Return the aliases and the fallbacks of those that have none; LiteLLM writes the latter in two ways."""
    fallbacks = policy.read_fallbacks(reading, rules, names)
    default: tuple[str, ...] = ()
    if "default_fallbacks" in rules:
        default = policy.read_targets(reading, *rules["default_fallbacks"], names)
    default += fallbacks["fallbacks"].pop(policy.ANY_ALIAS, ())
    own = policy.read_own(reading, value, names)
    shared = policy.alias_values(reading, rules)
    return policy.build_aliases(reading, models, shared, own, fallbacks), tuple(dict.fromkeys(default))


def _credentials(reading: Reading, value: object) -> dict[str, dict[str, Any]]:
    """Return LiteLLM's named credentials: name → the parameters of a deployment they stand for."""
    credentials = {}
    for index, entry in enumerate(reading.items(value, "credential_list")):
        path = f"credential_list[{index}]"
        fields = reading.section(
            entry, path, {"credential_name", "credential_values"}, {"credential_info"}, nested={"credential_values"}
        )
        credentials[str(fields.get("credential_name"))] = reading.section(
            fields.get("credential_values"),
            f"{path}.credential_values",
            known.CREDENTIAL_ACTED,
            known.listed("litellm_params"),
            general="credential_list[].credential_values",
        )
    return credentials


def _check_names(reading: Reading, models: Mapping[str, list[Deployment]]) -> None:
    seen: dict[str, str] = {}
    for model, deployments in models.items():
        for deployment in deployments:
            other = seen.get(deployment.name)
            seen[deployment.name] = model
            # Two names that become one alias are a problem that read_names tells.
            if other is not None and (other == model or alias_name(other) != deployment.alias):
                reading.problem(
                    "model_list", f"two deployments are called {deployment.name!r} (of {other!r} and {model!r})"
                )


def _secret(reading: Reading, value: object, path: str) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        reading.problem(path, f"text is needed, not {'nothing' if value == '' else kind(value)}")
        return None
    return value


def _keys(reading: Reading, value: object, master: str | None, names: policy.Names) -> dict[str, VirtualKey]:
    def known_aliases(given: Sequence[str], path: str) -> tuple[str, ...]:
        return () if EVERY_ALIAS & set(given) else policy.read_targets(reading, list(given), path, names)

    keys = sections.read_keys(reading, value, known_aliases)
    if master is not None:
        hashed = sections.token_hash(master)
        keys.setdefault(hashed, VirtualKey(hash=hashed, key_id="master", tenant=ADMIN_TENANT))
    return keys


def _pools(reading: Reading, value: object, names: policy.Names) -> dict[str, Pool]:
    pools = {}
    for name, pool in sections.read_pools(reading, value).items():
        path = f"workers.pools.{name}.aliases"
        every = bool(EVERY_ALIAS & set(pool.aliases))
        aliases = ("*",) if every else policy.read_targets(reading, list(pool.aliases), path, names)
        pools[name] = pool.model_copy(update={"aliases": aliases})
    return pools


def _signing_key(given: str | None, master: str | None) -> SecretStr | None:
    if given:
        return SecretStr(given)
    return SecretStr(hmac.new(master.encode(), SIGNING_LABEL, hashlib.sha256).hexdigest()) if master else None
