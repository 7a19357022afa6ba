"""What the simulator answers: a text of so many tokens, and values that fit a JSON schema. Pure."""

from collections.abc import Mapping
from typing import Any, Final

WORDS: Final = "the quick brown fox jumps over the lazy dog while a calm river runs past"
DEEPEST: Final = 12


def text(tokens: int) -> str:
    """Return a text that counts `tokens` tokens: four characters each."""
    words = f"{WORDS} " * (tokens * 4 // len(WORDS) + 1)
    return words[: max(1, tokens * 4)].strip() or "ok"


def pieces(told: str, count: int) -> list[str]:
    """Cut a text into at most `count` pieces, as a stream sends it."""
    size = max(1, -(-len(told) // max(1, count)))
    return [told[start : start + size] for start in range(0, len(told), size)]


def fitting(schema: Mapping[str, Any], depth: int = 0) -> Any:  # noqa: ANN401 - any JSON
    """Return the plainest value of a JSON schema: its first choice, its required properties, one item."""
    if depth > DEEPEST:
        return None
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if schema.get("enum"):
        return schema["enum"][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return fitting(schema[name][0], depth + 1)
    return _typed(schema, depth)


def _typed(schema: Mapping[str, Any], depth: int) -> Any:  # noqa: ANN401 - any JSON
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        properties = schema.get("properties") or {}
        wanted = schema.get("required") or list(properties)
        return {name: fitting(properties.get(name) or {}, depth + 1) for name in wanted}
    if kind == "array":
        return [fitting(schema.get("items") or {}, depth + 1)]
    return {
        "integer": schema.get("minimum", 1),
        "number": schema.get("minimum", 1.5),
        "boolean": True,
        "null": None,
    }.get(kind, "text")
