"""JSON schemas as Anthropic's structured outputs take them. Pure.

platform.claude.com/docs/en/build-with-claude/structured-outputs, "JSON Schema limitations": objects say
`additionalProperties: false`, and bounds on numbers, texts and lists are refused. They are told the model in words, as
the official SDK does it.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

FORMATS: Final = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
"""Of texts."""
_REFUSED: Final = frozenset(
    {
        "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength",
        "maxItems", "uniqueItems", "minProperties", "maxProperties", "contains", "minContains", "maxContains",
    }
)  # fmt: skip
_MANY: Final = ("anyOf", "allOf", "oneOf")
_NAMED: Final = ("properties", "$defs", "definitions")


class Inexpressible(ValueError):
    """The schema asks for something that structured outputs cannot give, such as objects with any keys."""


def cleaned(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that is taken, with what it refuses told in the descriptions.

    Raises `Inexpressible`, and RecursionError for what is nested too deep.
    """
    out: dict[str, Any] = {}
    words: dict[str, Any] = {}
    for name, value in schema.items():
        if (
            name in _REFUSED
            or (name == "minItems" and value not in (0, 1))
            or (name == "format" and value not in FORMATS)
        ):
            words[name] = value
        elif name in _MANY and isinstance(value, list):
            # `oneOf` is refused, and what one of several fits any of them fits.
            out["anyOf" if name == "oneOf" else name] = [_inner(each) for each in value]
        elif name in _NAMED and isinstance(value, dict):
            out[name] = {key: _inner(each) for key, each in value.items()}
        elif name == "items":
            out[name] = _inner(value)
        elif name != "additionalProperties":
            out[name] = value
    if _is_object(schema):
        free = "properties" not in schema and schema.get("additionalProperties") is not False
        if free or schema.get("additionalProperties") or "patternProperties" in schema:
            raise Inexpressible("objects with any keys")
        out.setdefault("properties", {})
        out["additionalProperties"] = False
    if words:
        told = ", ".join(f"{name}: {orjson.dumps(value).decode()}" for name, value in words.items())
        described = out.get("description")
        out["description"] = f"{described}\n\n{{{told}}}" if described else f"{{{told}}}"
    return out


def _is_object(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema


def _inner(value: object) -> Any:  # noqa: ANN401 - a schema, or `true`
    if isinstance(value, dict):
        return cleaned(value)
    if value is True or value == {}:
        raise Inexpressible("a value of any type")
    return value
