"""What is wrong with a configuration: every problem found, each one line that names the field. Imports errors only."""

import difflib
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from pydantic import SecretStr

from broker.errors import ConfigError

KINDS: Final = {
    type(None): "nothing",
    bool: "true or false",
    int: "a number",
    float: "a number",
    Decimal: "a number",
    str: "text",
    SecretStr: "text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
}
"""What a value is, in the words of someone who writes YAML."""


class ConfigProblems(ConfigError):
    """Every problem of one configuration. `problems` holds one line each; the text is the first and a count."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        more = f" (and {len(problems) - 1} more; `broker config check` lists them)" if len(problems) > 1 else ""
        super().__init__(f"{source}: {problems[0]}{more}")
        self.source = source
        self.problems = tuple(problems)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that looks most like `word`; None when nothing is known."""
    lowered = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.0)
    return lowered[close[0]] if close else None


def likeness(one: str, other: str) -> float:
    """Return how alike two words are, 0 to 1."""
    return difflib.SequenceMatcher(None, one.lower(), other.lower()).ratio()


def kind(value: object) -> str:
    """Say what a bad value is without saying what it holds: it may be a secret in the wrong place."""
    return KINDS.get(type(value), f"a {type(value).__name__}")
