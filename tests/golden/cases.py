"""Golden files of the dialects: one folder a dialect, one list of cases a kind. What stands in them is said here.

`requests.json`: `{"says", "deployment": {"provider", "model", …}, "endpoint", "body", "streams", "url", "sent"}`, and
`"headers"` where the dialect sends some of its own. `answers.json`: `{"says", "deployment", "endpoint", "asked",
"answer", "body", "usage", "model"}`, and `"headers"` of the answer, `"tier"`, `"cost"`. `streams.json`: `{"says",
"deployment", "endpoint", "asked", "stream", "chunks", "body"}`, where `stream` is a file beside it: `.sse` as it came,
`.hex` for bytes that are no text. `errors.json`: `{"says", "status", "headers", "body", "error", "reply"}`.

Times and ids that a dialect makes up are `"<made up>"` in what is expected.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from broker.config import Deployment
from workers.providers.catalog import ResolvedDeployment, resolve
from workers.providers.dialect import Dialect
from workers.providers.registry import DIALECTS

FOLDER = Path(__file__).parent
MADE_UP = "<made up>"


def folders() -> list[str]:
    """Folders of dialects that have golden files in this form."""
    return sorted(path.parent.name for path in FOLDER.glob("*/streams.json"))


def cases(kind: str) -> list[Any]:
    """Cases of a kind of every dialect, as parameters `(folder, case)`."""
    found = []
    for folder in folders():
        path = FOLDER / folder / f"{kind}.json"
        listed = json.loads(path.read_text()) if path.exists() else []
        found += [pytest.param(folder, case, id=f"{folder}: {case['says']}") for case in listed]
    return found


def target(fields: dict[str, Any]) -> ResolvedDeployment:
    """Resolve the deployment of a case."""
    return resolve(Deployment(**{"name": "a/0", "alias": "a", **fields}))


def dialect_of(resolved: ResolvedDeployment) -> Dialect:
    """Return what speaks the API of a deployment."""
    return DIALECTS[resolved.provider.dialect]


def stream_of(folder: str, name: str) -> bytes:
    """Return the recorded bytes of a stream."""
    path = FOLDER / folder / name
    return bytes.fromhex(path.read_text()) if path.suffix == ".hex" else path.read_bytes()


def masked(actual: Any, expected: Any) -> Any:
    """Return `actual` with what is expected to be made up replaced by the mark, where it is there at all."""
    if expected == MADE_UP and isinstance(actual, str | int) and actual:
        return MADE_UP
    if isinstance(actual, dict) and isinstance(expected, dict):
        return {name: masked(value, expected.get(name)) for name, value in actual.items()}
    if isinstance(actual, list) and isinstance(expected, list) and len(actual) == len(expected):
        return [masked(one, other) for one, other in zip(actual, expected, strict=True)]
    return actual
