"""Holds JSON against the types of an official SDK, strictly: what the type does not name is a fault."""

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

SCALARS: dict[Any, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (int, float)}

OURS = {
    "ChatCompletionMessage": {"reasoning_content", "tool_plan", "citations"},
    "ChoiceDelta": {"reasoning_content", "tool_plan", "citations"},
    "CompletionUsage": {"billed_units", "tokens"},
    "V2RerankResponseResultsItem": {"document"},
}
"""What an answer has beside the types: what Cohere alone tells, and the documents that version 1 gave back."""


def faults(value: object, kind: Any, path: str = "$", more: Mapping[str, set[str]] | None = None) -> list[str]:
    """Return what is wrong with a value; `more` are fields by model's name that are ours to add."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return faults(value, args[0], path, more)
    if origin in {Union, types.UnionType}:
        return _of_several(value, args, path, more)
    if origin in {list, Sequence}:
        return _list(value, args[0], path, more)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _model(value, kind, path, more or {})
    return [] if _fits(value, kind) else [f"{path}: {value!r} is none of {args or kind}"]


def _fits(value: object, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin is Literal:
        return value in get_args(kind)
    if origin in {dict, Mapping}:
        return isinstance(value, dict)
    if kind in {Any, object, None, type(None)}:
        return kind in {Any, object} or value is None
    return isinstance(value, SCALARS[kind]) and (kind is bool or not isinstance(value, bool))


def _of_several(value: object, kinds: Sequence[Any], path: str, more: Mapping[str, set[str]] | None) -> list[str]:
    # `Literal[…] | Any` is how the SDK writes an open enumeration; here it is closed.
    closed = any(get_origin(kind) is Literal for kind in kinds)
    found = [faults(value, kind, path, more) for kind in kinds if not (closed and kind is Any)]
    return min(found, key=len)


def _list(value: object, kind: Any, path: str, more: Mapping[str, set[str]] | None) -> list[str]:
    if not isinstance(value, list):
        return [f"{path}: no list"]
    return [fault for index, each in enumerate(value) for fault in faults(each, kind, f"{path}[{index}]", more)]


def _model(value: object, model: type[BaseModel], path: str, more: Mapping[str, set[str]]) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: no object"]
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    unknown = value.keys() - fields.keys() - more.get(model.__name__, set())
    found = [f"{path}.{name}: {model.__name__} has no such field" for name in sorted(unknown)]
    for name, field in fields.items():
        if name in value:
            found += faults(value[name], field.annotation, f"{path}.{name}", more)
        elif field.is_required():
            found.append(f"{path}.{name}: missing")
    return found


def request_faults(body: Mapping[str, Any], method: Callable[..., Any], fixed: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a body that `method` of a client would send; `fixed` is what it adds by itself."""
    hints = get_type_hints(method, include_extras=True)
    parameters = inspect.signature(method).parameters
    names = parameters.keys() - {"self", "request_options"}
    required = {name for name in names if parameters[name].default is inspect.Parameter.empty}
    found = [f"${name}: missing" for name in sorted(required - body.keys())]
    found += [f"${name}: no such parameter" for name in sorted(body.keys() - names - fixed.keys())]
    found += [f"${name}: not {value!r}" for name, value in fixed.items() if body.get(name) != value]
    for name in body.keys() & names:
        found += faults(body[name], hints[name], f"${name}")
    return found
