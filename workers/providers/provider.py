"""What a row of the table of providers says. Imports nothing of ours."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirk:
    """What some of a provider's models do differently from its others."""

    models: str
    """A regular expression that their names begin with."""
    lacks: frozenset[str] = frozenset()
    renames: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A row. Capabilities default to what every server of the dialect has."""

    source: str
    """The page its facts are from."""
    base_url: str | None = None
    """None where the address is the user's own: the configuration must name it."""
    dialect: str = "openai"
    auth: str = "bearer"
    """How the key is sent, one of `AUTH`."""
    extra: tuple[tuple[str, str], ...] = ()
    """Headers of every call that the provider wants, names in lower case."""
    renames: tuple[tuple[str, str], ...] = ()
    """Parameters that it knows by another name: OpenAI's and its own."""
    lacks: frozenset[str] = frozenset()
    """Parameters of OpenAI's that it refuses, by its own documentation; what is not here is sent as it is."""
    quirks: tuple[Quirk, ...] = ()
    """The first that fits a model holds beside the rest of the row."""
    path: str = ""
    """Completes an address that has no path, as users of LiteLLM write it."""
    asks_usage: bool = True
    """Whether a stream tells its usage only when asked by `stream_options`."""
    cost_field: str = ""
    """The field of `usage` that states what the call cost."""
    cost_exponent: int = 0
    """That field times ten to this power is USD."""
    inlines_media: bool = False
    """Whether it takes images and files as bytes only: what stands at a URL is fetched here (`media`)."""
    limits: tuple[tuple[str, str], ...] = ()
    """Limit headers of its own, and OpenAI's names of them (`x-ratelimit-remaining-tokens`, …), in lower case."""
