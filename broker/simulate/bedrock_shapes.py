"""Checks a call to Bedrock against AWS's own description of the service, which botocore carries.

Source: botocore's `data/bedrock-runtime/2023-09-30/service-2.json`: members, required ones, unions, values, bounds.
"""

import base64
import binascii
from functools import lru_cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape

from broker.simulate.shapes import Place, Wrong, dotted

NUMBERS = ("integer", "long", "float", "double")


@lru_cache(maxsize=1)
def service() -> ServiceModel:
    """Return the description; read once, when the first call comes."""
    return ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"), "bedrock-runtime")


def check(operation: str, body: object) -> None:
    """Raise `Wrong` where a JSON body is not what an operation takes; what the path holds is not looked at."""
    shape = service().operation_model(operation).input_shape
    if not isinstance(shape, StructureShape):
        raise TypeError(operation)
    in_path = {name for name, member in shape.members.items() if member.serialization.get("location") == "uri"}
    _structure(shape, body, (), in_path)


def _value(shape: Shape, value: Any, place: Place) -> None:  # noqa: ANN401 - any JSON
    if getattr(shape, "is_document_type", False):
        return
    if isinstance(shape, StructureShape):
        _structure(shape, value, place, set())
    elif isinstance(shape, ListShape):
        if not isinstance(value, list):
            raise Wrong("type", place, "array", value)
        _bounds(shape, len(value), place)
        for index, each in enumerate(value):
            _value(shape.member, each, (*place, index))
    elif isinstance(shape, MapShape):
        if not isinstance(value, dict):
            raise Wrong("type", place, "object", value)
        for name, each in value.items():
            _value(shape.value, each, (*place, name))
    else:
        _scalar(shape, value, place)


def _structure(shape: StructureShape, value: Any, place: Place, elsewhere: set[str]) -> None:  # noqa: ANN401 - any JSON
    if not isinstance(value, dict):
        raise Wrong("type", place, "object", value)
    members = {member.serialization.get("name", name): member for name, member in shape.members.items()}
    for name, each in value.items():
        if name not in members:
            raise Wrong("unknown", (*place, name))
        if each is not None:
            _value(members[name], each, (*place, name))
    for name in shape.required_members:
        if value.get(name) is None and name not in elsewhere:
            raise Wrong("missing", (*place, name))
    if getattr(shape, "is_tagged_union", False) and sum(each is not None for each in value.values()) != 1:
        raise Wrong("form", place, f"exactly one of {', '.join(members)}")


def _scalar(shape: Shape, value: Any, place: Place) -> None:  # noqa: ANN401 - any JSON
    kind = shape.type_name
    if kind in NUMBERS:
        whole = kind in {"integer", "long"}
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise Wrong("type", place, "integer" if whole else "decimal", value)
        _bounds(shape, value, place)
    elif kind == "boolean":
        if not isinstance(value, bool):
            raise Wrong("type", place, "boolean", value)
    else:
        if not isinstance(value, str):
            raise Wrong("type", place, "string", value)
        allowed = getattr(shape, "enum", None)
        if allowed and value not in allowed:
            raise Wrong("value", place, tuple(allowed), value)
        if kind == "blob":
            _decodes(value, place)
        elif not allowed:
            _bounds(shape, len(value), place)


def _decodes(value: str, place: Place) -> None:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Wrong("form", place, f"base64 at {dotted(place)}") from None


def _bounds(shape: Shape, size: float, place: Place) -> None:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        raise Wrong("low", place, low, size)
    if high is not None and size > high:
        raise Wrong("high", place, high, size)
