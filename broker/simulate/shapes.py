"""Checks of a request's JSON, put together from small parts: a shape says what a field may be. Pure.

A shape is called with a value and its place; it raises `Wrong` with the rule that is broken and the place of the field.
Each API says it in its own words.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Place = tuple[str | int, ...]
Shape = Callable[[Any, Place], None]


@dataclass(frozen=True)
class Wrong(Exception):
    """A field breaks a rule.

    `rule` is one of `unknown`, `missing`, `type`, `value`, `low`, `high`, `few`, `many`, `long`, `short`, `form`.
    """

    rule: str
    place: Place
    expected: Any = None
    """The type's name, the values allowed, or the bound."""
    got: Any = None

    def __str__(self) -> str:
        return f"{dotted(self.place)}: {self.rule}, expected {self.expected}"


def dotted(place: Place) -> str:
    """Write a place as `messages.0.content`."""
    return ".".join(str(step) for step in place)


def indexed(place: Place) -> str:
    """Write a place as `messages[0].content`."""
    told = ""
    for step in place:
        told += f"[{step}]" if isinstance(step, int) else f".{step}" if told else step
    return told


def kind_of(value: object) -> str:
    """Name a JSON type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "integer", float: "decimal", list: "array", dict: "object"}
    return names.get(type(value), "value")


def anything(value: object, place: Place) -> None:
    """Take any JSON."""
    del value, place


def boolean(value: object, place: Place) -> None:
    """Take true or false."""
    if not isinstance(value, bool):
        raise Wrong("type", place, "boolean", value)


def mapping(value: object, place: Place) -> None:
    """Take any object."""
    if not isinstance(value, dict):
        raise Wrong("type", place, "object", value)


def texts_by_name(value: object, place: Place) -> None:
    """Take an object of strings."""
    mapping(value, place)
    for name, each in value.items():  # type: ignore[attr-defined] # `mapping` has seen that it is a dict
        text()(each, (*place, name))


def text(least: int = 0, most: int | None = None) -> Shape:
    """Take a string of `least` to `most` characters."""

    def check(value: object, place: Place) -> None:
        if not isinstance(value, str):
            raise Wrong("type", place, "string", value)
        if len(value) < least:
            raise Wrong("short", place, least, value)
        if most is not None and len(value) > most:
            raise Wrong("long", place, most, value)

    return check


def number(low: float | None = None, high: float | None = None, *, whole: bool = False) -> Shape:
    """Take a number from `low` to `high`, integers only where `whole`."""

    def check(value: object, place: Place) -> None:
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise Wrong("type", place, "integer" if whole else "decimal", value)
        if low is not None and value < low:
            raise Wrong("low", place, low, value)
        if high is not None and value > high:
            raise Wrong("high", place, high, value)

    return check


def integer(low: int | None = None, high: int | None = None) -> Shape:
    """Take an integer from `low` to `high`."""
    return number(low, high, whole=True)


def one_of(*values: object) -> Shape:
    """Take one of these values."""

    def check(value: object, place: Place) -> None:
        if not isinstance(value, type(values[0])):
            raise Wrong("type", place, "string" if isinstance(values[0], str) else "value", value)
        if value not in values:
            raise Wrong("value", place, values, value)

    return check


def listed(item: Shape, least: int = 0, most: int | None = None) -> Shape:
    """Take an array whose items all have a shape."""

    def check(value: object, place: Place) -> None:
        if not isinstance(value, list):
            raise Wrong("type", place, "array", value)
        if len(value) < least:
            raise Wrong("few", place, least, value)
        if most is not None and len(value) > most:
            raise Wrong("many", place, most, value)
        for index, each in enumerate(value):
            item(each, (*place, index))

    return check


def struct(fields: Mapping[str, Shape], *required: str) -> Shape:
    """Take an object of these fields and no other; a null is as if the field were absent."""

    def check(value: object, place: Place) -> None:
        if not isinstance(value, dict):
            raise Wrong("type", place, "object", value)
        for name, each in value.items():
            shape = fields.get(name)
            if shape is None:
                raise Wrong("unknown", (*place, name))
            if each is not None:
                shape(each, (*place, name))
        for name in required:
            if value.get(name) is None:
                raise Wrong("missing", (*place, name))

    return check


def tagged(tag: str, kinds: Mapping[str, Shape]) -> Shape:
    """Take an object whose field `tag` says which of the shapes it has."""

    def check(value: object, place: Place) -> None:
        if not isinstance(value, dict):
            raise Wrong("type", place, "object", value)
        kind = value.get(tag)
        if kind is None:
            raise Wrong("missing", (*place, tag))
        shape = kinds.get(kind) if isinstance(kind, str) else None
        if shape is None:
            raise Wrong("value", (*place, tag), tuple(kinds), kind)
        shape(value, place)

    return check


def base64_text(value: object, place: Place) -> None:
    """Take a string that decodes as base64."""
    if not isinstance(value, str):
        raise Wrong("type", place, "string", value)
    try:
        good = bool(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        good = False
    if not good:
        raise Wrong("form", place, "base64 data")


def either(*shapes: Shape) -> Shape:
    """Take what one of the shapes takes; the fault told is the one that lies deepest."""

    def check(value: object, place: Place) -> None:
        faults = []
        for shape in shapes:
            try:
                return shape(value, place)
            except Wrong as wrong:
                faults.append(wrong)
        raise max(faults, key=lambda wrong: (len(wrong.place), wrong.rule != "type"))

    return check


TEXT: Final = text()
FILLED: Final = text(least=1)
