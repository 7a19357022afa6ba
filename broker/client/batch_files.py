"""Writes the output and error files of a batch job, and reads them back to resume it after a crash.

A line is whole or it is the last one: files are only appended to, and a resume cuts off what a crash left half written.
"""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

import orjson

from broker.client.batch_input import BatchFileError, ResultsExist, ResultsNotWritten
from broker.client.compact import LineSet
from schemas.batch import BatchError, BatchOutputLine, BatchResponse

FLUSH_BYTES: Final = 256 << 10
LINE_ID: Final = re.compile(r"batch_req_([0-9a-f]{12})_(\d{1,15})")


@dataclass(frozen=True, slots=True)
class BatchPaths:
    """Where a job's results go. `run` names the run until every line has its final reply."""

    out: Path
    err: Path

    @property
    def run(self) -> Path:
        """The file beside the output that makes a resumed line the same request."""
        return self.out.with_name(self.out.name + ".run")

    def check_new(self) -> None:
        """Raise `ResultsExist` where a new run would overwrite anything."""
        for path in self.present():
            raise ResultsExist(f"{path} exists: resume the run that wrote it, or overwrite it")

    def present(self) -> list[Path]:
        """Return the files that exist."""
        return [path for path in (self.out, self.err, self.run) if path.exists()]


def default_errors_path(out: Path) -> Path:
    """`answers.jsonl` → `answers.errors.jsonl`."""
    return out.with_name(f"{out.stem}.errors{out.suffix}")


@dataclass(slots=True)
class Finished:
    """What an earlier run left: lines with a final reply, and how many of those replies were errors."""

    run_id: str
    lines: LineSet
    failed: int = 0


class ResultFiles:
    """The two result files, open for appending. Blocking, with writes gathered until `flush`."""

    def __init__(self, paths: BatchPaths, run_id: str) -> None:
        self._paths = paths
        self._run_id = run_id
        with _named(paths.out):
            self._out = paths.out.open("ab", buffering=0)
        with _named(paths.err):
            self._err = paths.err.open("ab", buffering=0)
        self._pending: dict[IO[bytes], list[bytes]] = {self._out: [], self._err: []}
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
            for file, path in self._files():
                with _writing(path):
                    os.fsync(file.fileno())
        finally:
            self._out.close()
            self._err.close()

    def answered(self, number: int, custom_id: str, response: BatchResponse) -> None:
        """Write a final reply: status 200 to the output, any other to the errors."""
        line = BatchOutputLine(id=self._id(number), custom_id=custom_id, response=response)
        self._write(self._out if response.status_code == 200 else self._err, line)  # noqa: PLR2004 - HTTP

    def unanswered(self, number: int, custom_id: str, code: str, message: str) -> None:
        """Write why a line has no final reply; a resume tries it again."""
        error = BatchError(code=code, message=message)
        self._write(self._err, BatchOutputLine(id=self._id(number), custom_id=custom_id, error=error))

    def flush(self) -> None:
        """Hand everything to the operating system, so that it outlives this process. Raises `ResultsNotWritten`."""
        for file, path in self._files():
            data = b"".join(self._pending[file])
            self._pending[file].clear()
            with _writing(path):
                _write_all(file, data)
        self._bytes = 0

    def _files(self) -> tuple[tuple[IO[bytes], Path], ...]:
        return (self._out, self._paths.out), (self._err, self._paths.err)

    def _id(self, number: int) -> str:
        return f"batch_req_{self._run_id}_{number}"

    def _write(self, file: IO[bytes], line: BatchOutputLine) -> None:
        response = line.response
        raw = orjson.dumps(
            {
                "id": line.id,
                "custom_id": line.custom_id,
                "response": None
                if response is None
                else {"status_code": response.status_code, "request_id": response.request_id, "body": response.body},
                "error": None if line.error is None else {"code": line.error.code, "message": line.error.message},
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        self._pending[file].append(raw)
        self._bytes += len(raw)
        if self._bytes >= FLUSH_BYTES:
            self.flush()


def new_run(paths: BatchPaths, input_print: str, *, overwrite: bool) -> Finished:
    """Begin a new run, in new files. Raises `BatchFileError` where files exist that `overwrite` does not give up."""
    if not overwrite:
        paths.check_new()
    for path in paths.present():
        with _named(path):
            path.unlink()
    run_id = secrets.token_hex(6)
    with _named(paths.run), paths.run.open("wb") as file:
        file.write(orjson.dumps({"run": run_id, "input": input_print}))
        file.flush()
        os.fsync(file.fileno())
    return Finished(run_id, LineSet())


def resumed_run(paths: BatchPaths, input_print: str) -> Finished:
    """Find out what an earlier run has finished; begin a new one where there was none.

    Cuts off a half-written last line, and takes the lines without a final reply out of the error file. Raises
    `BatchFileError` where the files are not those of a run over this input.
    """
    noted = _read_run(paths.run)
    if noted is not None and noted["input"] != input_print:
        raise BatchFileError(f"{paths.run}: that run read another input file; choose another output, or overwrite it")
    ids = set() if noted is None else {noted["run"]}
    finished = Finished("", LineSet())
    _keep(paths.out, finished, ids)
    _keep(paths.err, finished, ids)
    if not ids:
        return new_run(paths, input_print, overwrite=True)
    if len(ids) > 1:
        raise BatchFileError(f"{paths.out} and {paths.err} hold lines of different runs: {', '.join(sorted(ids))}")
    finished.run_id = ids.pop()
    return finished


def _read_run(path: Path) -> dict[str, str] | None:
    try:
        value = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise BatchFileError(f"{path}: {error}") from None
    if isinstance(value, dict) and isinstance(value.get("run"), str) and isinstance(value.get("input"), str):
        return value
    raise BatchFileError(f"{path} is not the note of a run")


def _keep(path: Path, finished: Finished, ids: set[str]) -> None:
    """Rewrite a result file with its final lines only, where it holds anything else; mark those lines finished."""
    if not path.exists():
        return
    spare = path.with_name(path.name + ".new")
    with _named(path), path.open("rb") as old, spare.open("wb") as new:
        kept_all = True
        for raw, line in _result_lines(old, path):
            run_id, number, status = line
            ids.add(run_id)
            if status is None or not finished.lines.add(number):
                kept_all = False
                continue
            finished.failed += status != 200  # noqa: PLR2004 - HTTP
            new.write(raw)
            kept_all = kept_all and raw.endswith(b"\n")
        kept_all = kept_all and new.tell() == old.seek(0, 2)
        new.flush()
        os.fsync(new.fileno())
    if kept_all:
        spare.unlink()
    else:
        spare.replace(path)


def _result_lines(file: IO[bytes], path: Path) -> Iterator[tuple[bytes, tuple[str, int, int | None]]]:
    for number, raw in enumerate(file, start=1):
        line = _result_line(raw)
        if line is not None:
            yield raw if raw.endswith(b"\n") else raw + b"\n", line
        elif raw.endswith(b"\n") and raw.strip(b"\0 \r\n"):
            raise BatchFileError(f"{path}: line {number} was not written by this command")


def _result_line(raw: bytes) -> tuple[str, int, int | None] | None:
    """Run id, line number and status (None: no final reply) of a result line; None where it is none."""
    try:
        value: Any = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    name = LINE_ID.fullmatch(str(value.get("id"))) if isinstance(value, dict) else None
    if name is None:
        return None
    response = value.get("response")
    return name[1], int(name[2]), int(response["status_code"]) if isinstance(response, dict) else None


def _write_all(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResultsNotWritten(f"{path}: {error.strerror}") from None


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BatchFileError(f"{path}: {error.strerror}") from None
