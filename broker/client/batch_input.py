"""Reads the lines of an OpenAI batch input file one by one and says what is wrong with a bad one."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import orjson
from pydantic import ValidationError

from broker.client.compact import HashSet
from broker.errors import BrokerError
from schemas.batch import BatchLine
from schemas.request import BODIES

MAX_LINE: Final = 8 << 20
"""Bytes of a line that are read; the log takes records of half that size by default."""

HEAD: Final = 64 << 10
BOM: Final = b"\xef\xbb\xbf"


class BatchFileError(BrokerError):
    """A file of a batch job cannot be used; nothing was sent. The message names it."""


class ResultsExist(BatchFileError):
    """A result file is there already, and neither resuming nor overwriting was asked for."""


class ResultsNotWritten(BrokerError):
    """A result file cannot be written any further (disk full); what stands in it is whole, a resume continues."""


@dataclass(frozen=True, slots=True)
class GoodLine:
    """A request of the file; `number` counts from 1."""

    number: int
    custom_id: str
    url: str
    model: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no request: which field, and why."""

    number: int
    custom_id: str
    field: str
    why: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.field}: {self.why}"


def read_lines(path: Path) -> Iterator[GoodLine | BadLine]:
    """Yield the lines in order, blank ones left out; memory does not grow with the file but for 8-byte hashes."""
    seen = HashSet()
    with open_input(path) as file:
        for number, raw in _raw_lines(file):
            yield _parse(number, raw, seen)


def count_lines(path: Path) -> int:
    """Count the lines that `read_lines` will yield. Blocking."""
    with open_input(path) as file:
        return sum(1 for _ in _raw_lines(file))


def fingerprint(path: Path) -> str:
    """Tell one input file from another by its size and its first 64 KiB. Blocking."""
    with open_input(path) as file:
        head = file.read(HEAD)
        return f"{file.seek(0, 2)}-{hashlib.sha256(head).hexdigest()[:16]}"


def open_input(path: Path) -> IO[bytes]:
    """Open the file; raises `BatchFileError`."""
    try:
        return path.open("rb")
    except OSError as error:
        raise BatchFileError(f"{path}: {error.strerror}") from None


def _raw_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    number = 0
    while raw := file.readline(MAX_LINE + 1):
        number += 1
        if len(raw) > MAX_LINE and not raw.endswith(b"\n"):
            while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        elif raw := (raw.removeprefix(BOM) if number == 1 else raw).strip():
            yield number, raw


class _Reject(Exception):
    """Leaves the parsing of a line: the field, and why."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(field, why)
        self.field = field
        self.why = why


def _parse(number: int, raw: bytes | None, seen: HashSet) -> GoodLine | BadLine:
    custom_id = ""
    try:
        value = _object(raw)
        custom_id = value["custom_id"] if isinstance(value.get("custom_id"), str) else ""
        line = BatchLine.model_validate(value)
        _first(custom_id, seen)
        return GoodLine(number, custom_id, _endpoint(line), _model(line), line.body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return BadLine(number, custom_id, ".".join(str(part) for part in first["loc"]), first["msg"])
    except _Reject as reject:
        return BadLine(number, custom_id, reject.field, reject.why)


def _object(raw: bytes | None) -> dict[str, Any]:
    if raw is None:
        raise _Reject("line", f"is longer than {MAX_LINE} bytes")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _Reject("line", f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _Reject("line", f"is not a JSON object but {type(value).__name__}")
    return value


def _first(custom_id: str, seen: HashSet) -> None:
    if not seen.add(int.from_bytes(hashlib.blake2b(custom_id.encode(errors="replace"), digest_size=8).digest())):
        raise _Reject("custom_id", f"{custom_id!r} stands on an earlier line as well")


def _endpoint(line: BatchLine) -> str:
    if line.url not in BODIES:
        raise _Reject("url", f"{line.url!r} is not served; these are: {', '.join(BODIES)}")
    return line.url


def _model(line: BatchLine) -> str:
    model = line.body.get("model")
    if not isinstance(model, str) or not model:
        raise _Reject("body.model", "must be the name of an alias")
    return model
