"""Which aliases there are, and by which names callers may ask for them. Imports configuration models only."""

from broker.config import Alias, Settings


class Catalog:
    """The aliases of one configuration."""

    __slots__ = ("_by_name",)

    def __init__(self, settings: Settings) -> None:
        """Take the aliases under their own names and under those of `alias_names`; an alias's own name wins."""
        self._by_name = {
            name: settings.aliases[alias] for name, alias in settings.alias_names.items() if alias in settings.aliases
        }
        self._by_name |= settings.aliases

    def resolve(self, name: str) -> Alias | None:
        """Return the alias that callers name `name` (an alias, or what Kafka forbids: `openai/gpt-4o`), or None."""
        return self._by_name.get(name)
