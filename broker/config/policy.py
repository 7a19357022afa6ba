"""`router_settings` and `litellm_settings` → the policy of every alias and its fallbacks. Imports no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from broker.config import known
from broker.config.deployments import alias_name
from broker.config.models import Alias, Deployment, Strategy
from broker.config.problems import kind, nearest
from broker.config.reading import Reading

STRATEGIES: Final = {strategy.value: strategy for strategy in Strategy} | {
    "usage-based-routing-v2": Strategy.USAGE_BASED,
}
"""LiteLLM's names of a strategy; its two forms of usage-based routing differ only in how they count."""

ANY_ALIAS: Final = "*"
"""As the source of a fallback it stands for every alias without fallbacks of its own."""


@dataclass(frozen=True, slots=True)
class Names:
    """What models are called: every name of the file, and the alias behind it."""

    aliases: Mapping[str, str]
    wildcards: tuple[str, ...] = ()
    """Names with a `*`, which in LiteLLM stand for every model that fits."""

    def find(self, name: object) -> str | None:
        """Return the alias of a name as the file writes it."""
        return self.aliases.get(name) if isinstance(name, str) else None

    def only_by_wildcard(self, name: object) -> bool:
        """Whether LiteLLM would serve this name by a wildcard, which we do not act on."""
        return isinstance(name, str) and any(fnmatchcase(name, pattern) for pattern in self.wildcards)


def read_policy(reading: Reading, router: object, litellm: object) -> dict[str, tuple[Any, str]]:
    """Return the policy keys of both sections, each with its path; `router_settings` goes first, as in LiteLLM."""
    policy: dict[str, tuple[Any, str]] = {}
    for value, path, acted, listed in (
        (litellm, "litellm_settings", known.LITELLM_ACTED, known.listed("litellm_settings")),
        (router, "router_settings", known.ROUTER_ACTED, known.listed("router_settings")),
    ):
        for key, item in reading.section(value, path, acted, listed).items():
            if item is not None:
                policy[known.SAME_POLICY.get(key, key)] = (item, f"{path}.{key}")
    return policy


def deployment_defaults(policy: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
    """Return the fields of `Deployment` that the policy sets where an entry does not."""
    return {field: policy[key][0] for key, field in known.DEPLOYMENT_DEFAULTS.items() if key in policy}


def alias_values(reading: Reading, policy: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
    """Return the fields of `Alias` that the policy sets for every alias."""
    values = {field: policy[field][0] for field in known.ALIAS_FIELDS if field in policy}
    if "routing_strategy" in policy:
        name, path = policy["routing_strategy"]
        values["strategy"] = read_strategy(reading, name, path)
    if policy.get("disable_cooldowns", (False, ""))[0] is True:
        values["cooldown_time"] = 0.0
    return values


def read_strategy(reading: Reading, name: object, path: str) -> Strategy:
    """Return the strategy of a name; an unknown one is a problem that names the nearest."""
    if not isinstance(name, str):
        reading.problem(path, f"the name of a strategy is needed, not {kind(name)}")
        return Strategy.SIMPLE_SHUFFLE
    if name in known.STRATEGIES_KNOWN:
        reading.ignore(f"{path}={name}")
    elif name not in STRATEGIES:
        reading.problem(path, f"no strategy {name!r}; the nearest one is {nearest(name, STRATEGIES)}")
    return STRATEGIES.get(name, Strategy.SIMPLE_SHUFFLE)


def read_names(
    reading: Reading, models: Mapping[str, list[Deployment]], groups: tuple[Any, str] | None
) -> tuple[Names, dict[str, str]]:
    """Return every name's alias, and the names that differ from their alias.

    Two names that become one alias, or that Kafka would take for one topic (it does not tell `.` from `_` in metric
    names and refuses the second), are a problem.
    """
    aliases: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in models:
        alias = alias_name(name)
        other = taken.setdefault(alias.replace(".", "_"), name)
        if other != name:
            reading.problem("model_list", f"{other!r} and {name!r} would share one Kafka topic; rename one of them")
        if len(alias) > known.ALIAS_LENGTH:
            reading.problem("model_list", f"model_name {name[:40]!r}… is longer than {known.ALIAS_LENGTH} characters")
        if "*" in name:
            reading.ignore(f"model_list[].model_name={name}")
        aliases[name] = alias
        aliases.setdefault(alias, alias)
    renamed = {name: alias for name, alias in aliases.items() if name != alias}
    for name, target in _group_aliases(reading, groups):
        if target in aliases:
            renamed[name] = aliases[target]
        else:
            _unknown_alias(reading, f"{groups[1] if groups else ''}.{name}", target, Names(aliases))
    return Names({**aliases, **renamed}, tuple(name for name in models if "*" in name)), renamed


def _group_aliases(reading: Reading, groups: tuple[Any, str] | None) -> list[tuple[str, str]]:
    if groups is None:
        return []
    value, path = groups
    pairs = []
    for name, target in reading.mapping(value, path).items():
        model = target.get("model") if isinstance(target, dict) else target
        if isinstance(model, str):
            pairs.append((name, model))
        else:
            reading.problem(f"{path}.{name}", f"the name of a model is needed, not {kind(target)}")
    return pairs


def read_fallbacks(reading: Reading, policy: Mapping[str, tuple[Any, str]], names: Names) -> dict[str, dict[str, Any]]:
    """Return, by kind, alias → the aliases to try next; `*` stands for every other alias."""
    return {
        kind_: _fallback_list(reading, *policy[kind_], names) if kind_ in policy else {}
        for kind_ in known.FALLBACK_KINDS
    }


def _fallback_list(reading: Reading, value: object, path: str, names: Names) -> dict[str, tuple[str, ...]]:
    """Read LiteLLM's form, a list of one-entry mappings; a plain mapping says the same and is taken as well."""
    entries = [value] if isinstance(value, dict) else reading.items(value, path)
    found: dict[str, tuple[str, ...]] = {}
    for index, entry in enumerate(entries):
        place = path if isinstance(value, dict) else f"{path}[{index}]"
        for source, targets in reading.mapping(entry, place).items():
            alias = ANY_ALIAS if source == ANY_ALIAS else names.find(source)
            if alias is None:
                _unknown_alias(reading, f"{place}.{source}", source, names)
            else:
                found[alias] = found.get(alias, ()) + read_targets(reading, targets, f"{place}.{source}", names)
    return found


def read_targets(reading: Reading, value: object, path: str, names: Names) -> tuple[str, ...]:
    """Return the aliases a list of fallbacks names, in order; one that is not in `model_list` is a problem."""
    targets = []
    for index, item in enumerate([value] if isinstance(value, str) else reading.items(value, path)):
        name = item
        if isinstance(item, dict):
            name = item.get("model")
            for key in item.keys() - {"model"}:
                reading.ignore(f"{path}[{index}].{key}")
        alias = names.find(name)
        if alias is None:
            _unknown_alias(reading, f"{path}[{index}]", name, names)
        elif alias not in targets:
            targets.append(alias)
    return tuple(targets)


def _unknown_alias(reading: Reading, path: str, name: object, names: Names) -> None:
    if not isinstance(name, str):
        reading.problem(path, f"the name of an alias is needed, not {kind(name)}")
        return
    if names.only_by_wildcard(name):
        reading.ignore(path if path.endswith(f".{name}") else f"{path}={name}")
        return
    hint = nearest(name, names.aliases)
    reading.problem(path, f"no alias {name!r} in model_list" + (f"; the nearest one is {hint!r}" if hint else ""))


def read_own(reading: Reading, value: object, names: Names) -> dict[str, dict[str, Any]]:
    """Return what our section `aliases` says of single aliases: alias → fields of `Alias`."""
    own: dict[str, dict[str, Any]] = {}
    for name, entry in reading.mapping(value, "aliases").items():
        path = f"aliases.{name}"
        alias = names.find(name)
        if alias is None:
            _unknown_alias(reading, path, name, names)
            continue
        values = reading.section(entry, path, known.ALIAS_ACTED)
        for field in known.FALLBACK_KINDS:
            if field in values:
                values[field] = read_targets(reading, values[field], f"{path}.{field}", names)
        if "routing_strategy" in values:
            values["strategy"] = read_strategy(reading, values.pop("routing_strategy"), f"{path}.routing_strategy")
        own[alias] = {key: item for key, item in values.items() if item is not None}
    return own


def build_aliases(
    reading: Reading,
    models: Mapping[str, list[Deployment]],
    shared: Mapping[str, Any],
    own: Mapping[str, Mapping[str, Any]],
    fallbacks: Mapping[str, Mapping[str, tuple[str, ...]]],
) -> dict[str, Alias]:
    """Return the aliases: deployments of the list, policy of all, then what `aliases` says of the one."""
    built = {}
    for name, deployments in models.items():
        alias = alias_name(name)
        values: dict[str, Any] = {
            **shared,
            **{field: targets.get(alias, targets.get(ANY_ALIAS, ())) for field, targets in fallbacks.items()},
            **own.get(alias, {}),
        }
        values |= {"name": alias, "deployments": tuple(deployments)}
        path = f"aliases.{alias}" if alias in own else "router_settings"
        found = reading.build(Alias, values, path, known.ALIAS_WORDS)
        if found is not None:
            built[alias] = found
    return built
