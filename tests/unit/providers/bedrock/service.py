"""Bedrock as its SDK knows it: botocore's model of the service, its checks, its own writer and its own readers."""

import base64
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator

OPERATIONS = {"converse": "Converse", "converse-stream": "ConverseStream", "invoke": "InvokeModel"}


@cache
def model() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"), "bedrock-runtime")


def operation(url: str) -> OperationModel:
    return model().operation_model(OPERATIONS[url.rpartition("/")[2]])


def faults(sent: Any, shape: Shape, path: str = "") -> list[str]:
    """What botocore's own checks leave out: values that are not listed, patterns, the most and the least."""
    here: list[str] = []
    if shape.type_name in {"list", "map", "string"}:
        here += _range(len(sent), shape, path)
    elif shape.type_name in {"integer", "long", "float", "double"}:
        here += _range(sent, shape, path)
    for name, value, inner in _inside(sent, shape):
        here += faults(value, inner, f"{path}.{name}")
    if shape.type_name == "string":
        listed, pattern = getattr(shape, "enum", None), shape.metadata.get("pattern")
        if listed and sent not in listed:
            here.append(f"{path}: {sent!r} is not listed")
        if pattern and not re.fullmatch(pattern, sent):
            here.append(f"{path}: {sent!r} does not fit its pattern")
    return here


def _inside(sent: Any, shape: Shape) -> Iterator[tuple[object, Any, Shape]]:
    if shape.type_name == "structure" and not getattr(shape, "is_document_type", False):
        yield from ((name, value, shape.members[name]) for name, value in sent.items())
    elif shape.type_name == "list":
        yield from ((index, value, shape.member) for index, value in enumerate(sent))
    elif shape.type_name == "map":
        for name, value in sent.items():
            yield name, name, shape.key
            yield name, value, shape.value


def _range(value: float, shape: Shape, path: str) -> list[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    return [f"{path}: {value}"] if (least is not None and value < least) or (most is not None and value > most) else []


def with_bytes(sent: Any, shape: Shape) -> Any:
    """The parameters as the SDK takes them: bytes where the wire has base64."""
    if shape.type_name == "blob":
        return base64.b64decode(sent)
    if shape.type_name == "structure" and not getattr(shape, "is_document_type", False):
        return {name: with_bytes(value, shape.members[name]) for name, value in sent.items()}
    if shape.type_name == "list":
        return [with_bytes(value, shape.member) for value in sent]
    if shape.type_name == "map":
        return {name: with_bytes(value, shape.value) for name, value in sent.items()}
    return sent


def check(url: str, body: bytes, model_id: str) -> None:
    """Hold a request against the service: every field known and in range, URL and body what botocore would send."""
    found = operation(url)
    sent = json.loads(body)
    parameters: dict[str, Any]
    if found.name == "InvokeModel":
        parameters = {"modelId": model_id, "body": body}
    else:
        report = ParamValidator().validate({"modelId": model_id, **sent}, found.input_shape)
        assert not report.has_errors(), report.generate_report()
        assert faults({"modelId": model_id, **sent}, found.input_shape) == []
        parameters = {"modelId": model_id, **with_bytes(sent, found.input_shape)}
    written = create_serializer("rest-json").serialize_to_request(parameters, found)
    assert url.endswith(written["url_path"])
    assert json.loads(written["body"]) == sent


def parse(name: str, raw: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    """What botocore's own parser makes of an answer."""
    response = {"status_code": status, "headers": headers or {}, "body": raw}
    return create_parser("rest-json").parse(response, model().operation_model(name).output_shape)
