"""Reads the file itself: YAML to plain values, included files merged as LiteLLM merges them."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import yaml

from broker.config.problems import kind
from broker.errors import ConfigError

QUOTED: Final = re.compile(r"'[^']*'")


class _StrictLoader(yaml.SafeLoader):
    """YAML's own rule, which PyYAML does not hold: a key stands in a mapping once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"the key {key.value} stands twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_tree(path: Path) -> dict[str, Any]:
    """Return the file's top-level mapping, `include` files merged in: lists are joined, other keys are taken over.

    Raises `ConfigError` with file, line and column. What the parser quotes is left out: it may be part of a secret.
    """
    tree = _read(path)
    for name in _include(tree.pop("include", None), path):
        for key, value in _read(path.parent / name).items():
            if isinstance(value, list) and isinstance(tree.get(key), list):
                tree[key] = [*tree[key], *value]
            else:
                tree[key] = value
    return tree


def _include(value: object, path: Path) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ConfigError(f"{path}: include: a list of file names is needed, not {kind(value)}")
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: the file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: the file is not UTF-8 text (byte {error.start})") from None
    try:
        tree = yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = QUOTED.sub("…", error.problem or "it is not YAML")
        raise ConfigError(f"{path}{where}: {problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError):
        raise ConfigError(f"{path}: it is not YAML") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a mapping of sections is needed, not {kind(tree)}")
    return {str(key): value for key, value in tree.items()}
