"""What is broken: every answer, stream and error of the golden files, and how a dialect is asked to read it."""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from schemas.request import CHAT
from tests.golden.cases import FOLDER, cases, dialect_of, stream_of, target

Read = Callable[[bytes], object]
PIECE: Final = 300


@dataclass(frozen=True)
class Seed:
    """Bytes as they may come, and what reads them."""

    dialect: str
    kind: str
    raw: bytes
    read: Read


def seeds() -> dict[str, list[Seed]]:
    """Return the seeds by dialect."""
    found: dict[str, list[Seed]] = defaultdict(list)
    for kind, made in (("answers", _answer), ("streams", _stream), ("errors", _error)):
        for each in cases(kind):
            folder, case = each.values
            seed = made(str(folder), case)
            found[seed.dialect].append(seed)
    for seed in _openai():
        found[seed.dialect].append(seed)
    return dict(found)


def raw_of(value: Any) -> bytes:
    """Return a recorded body as it came."""
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def _answer(folder: str, case: dict[str, Any]) -> Seed:
    resolved = target(case["deployment"])
    dialect, headers = dialect_of(resolved), case.get("headers", {})

    def read(raw: bytes) -> object:
        return dialect.answer(resolved, case["endpoint"], case["asked"], raw, headers)

    return Seed(folder, "answer", raw_of(case["answer"]), read)


def _stream(folder: str, case: dict[str, Any]) -> Seed:
    resolved = target(case["deployment"])
    dialect = dialect_of(resolved)

    def read(raw: bytes) -> object:
        stream = dialect.stream(resolved, case["endpoint"], case["asked"])
        for start in range(0, len(raw), PIECE):
            for chunk, _ in stream.feed(raw[start : start + PIECE]):
                json.loads(chunk)
            if stream.done:
                break
        return stream.body()

    return Seed(folder, "stream", stream_of(folder, case["stream"]), read)


def _error(folder: str, case: dict[str, Any]) -> Seed:
    dialect = dialect_of(target(case.get("deployment") or {"provider": folder, "model": "m"}))

    def read(raw: bytes) -> object:
        return dialect.error(case["status"], case["headers"], raw, 0.0)

    return Seed(folder, "error", raw_of(case["text"] if "text" in case else case["body"]), read)


def _openai() -> list[Seed]:
    """Return those of the dialect whose golden files have a form of their own."""
    folder: Path = FOLDER / "openai"
    plain = {"provider": "openai", "model": "m"}
    found = [
        _answer("openai", {**case, "deployment": {**plain, "provider": case["provider"], "api_base": "http://h/v1"}})
        for case in json.loads((folder / "answers.json").read_text())
    ]
    found += [
        _stream("openai", {"deployment": plain, "endpoint": CHAT, "asked": {}, "stream": path.name})
        for path in sorted(folder.glob("*.sse"))
    ]
    errors = json.loads((folder / "errors.json").read_text())
    return found + [_error("openai", {**case, "deployment": plain}) for case in errors]
