"""Holds JSON against the request types of the official SDKs, strictly: what they do not name is a fault.

`faults` reads typed dictionaries (Anthropic's SDK); the models of google-genai refuse unknown fields themselves.
"""

import collections.abc
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import typing_extensions
from google.genai import types as google
from pydantic import TypeAdapter

_LISTS = (list, collections.abc.Iterable, collections.abc.Sequence, collections.abc.Collection)
_MARKS = (typing.Required, typing.NotRequired, typing_extensions.Required, typing_extensions.NotRequired)


def faults(value: Any, kind: Any, path: str = "$") -> list[str]:
    """Return what of `value` does not fit a type of the SDK, each with its path."""
    return list(_faults(value, kind, path))


def _faults(value: Any, kind: Any, path: str) -> Iterator[str]:
    origin = get_origin(kind)
    if origin in _MARKS or origin is typing.Annotated:
        yield from _faults(value, get_args(kind)[0], path)
    elif origin in {Union, types.UnionType}:
        tried = [faults(value, each, path) for each in get_args(kind)]
        if all(tried):
            # The variant that fits best: the fewest faults, and those the deepest inside.
            yield from min(tried, key=lambda found: (len(found), -max(map(len, found))))
    elif typing_extensions.is_typeddict(kind):
        yield from _typed(value, kind, path)
    elif origin in _LISTS or getattr(origin, "__name__", "").startswith("SequenceNotStr"):
        yield from _listed(value, kind, path)
    else:
        yield from _plain(value, kind, origin, path)


def _listed(value: Any, kind: Any, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path}: a list is needed"
        return
    for index, each in enumerate(value):
        yield from _faults(each, get_args(kind)[0], f"{path}[{index}]")


def _typed(value: Any, kind: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: an object is needed"
        return
    hints = typing_extensions.get_type_hints(kind, include_extras=True)
    for name in value.keys() - hints.keys():
        yield f"{path}.{name}: {kind.__name__} has no such field"
    for name in kind.__required_keys__ - value.keys():
        yield f"{path}.{name}: {kind.__name__} needs it"
    for name in value.keys() & hints.keys():
        yield from _faults(value[name], hints[name], f"{path}.{name}")


def _plain(value: Any, kind: Any, origin: Any, path: str) -> Iterator[str]:
    if kind in {object, Any}:
        return
    if origin is Literal:
        fits = value in get_args(kind)
    elif origin in {dict, collections.abc.Mapping}:
        fits = isinstance(value, dict)
    elif kind is type(None):
        fits = value is None
    elif kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        fits = isinstance(kind, type) and type(value) is kind
    if not fits:
        yield f"{path}: {value!r} is no {kind}"


_TOP: dict[str, Any] = {
    "contents": list[google.Content],
    "systemInstruction": google.Content,
    "tools": list[google.Tool],
    "toolConfig": google.ToolConfig,
    "safetySettings": list[google.SafetySetting],
    "cachedContent": str,
    "serviceTier": google.ServiceTier,
}
"""Of a body of generateContent, as the SDK writes it for this API (`_GenerateContentParameters_to_mldev`)."""


def google_check(body: dict[str, Any]) -> None:
    """Raise ValidationError, or KeyError for a field that the API has not, where a body of generateContent is wrong."""
    for name, value in body.items():
        if name != "generationConfig":
            TypeAdapter(_TOP[name]).validate_python(value)
    config = body.get("generationConfig", {})
    # The SDK's own configuration names some of the fields that stand here on the wire, and the wire's type the others.
    known = {field.alias or name for name, field in google.GenerationConfig.model_fields.items()}
    google.GenerationConfig.model_validate({name: value for name, value in config.items() if name in known})
    google.GenerateContentConfig.model_validate({name: value for name, value in config.items() if name not in known})
