"""Runs an OpenAI batch file through the client: every line one request, every final reply one line of a result file."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from broker.client.batch_files import BatchPaths, Finished, ResultFiles, default_errors_path, new_run, resumed_run
from broker.client.batch_input import BadLine, BatchFileError, GoodLine, count_lines, fingerprint, read_lines
from broker.client.client import BrokerClient
from broker.client.errors import ReplyTimeout, parsed
from broker.client.mailbox import Result
from broker.client.models import usage_of
from broker.client.request import Options, Request
from broker.clock import Clock, SystemClock
from broker.envelope import Reply
from broker.errors import BrokerError, RequestError
from broker.topics import Lane
from schemas.batch import BatchResponse

IN_FLIGHT: Final = 1000
TICK_S: Final = 0.25
"""How often results reach the disk and progress is told."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a job stands. `done` counts lines answered with 200 in this run, `waiting` those sent and still open."""

    total: int
    done: int
    failed: int
    skipped: int
    rerouted: int
    waiting: int
    input_tokens: int
    output_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSummary:
    """How a job ended. `failed` counts bad lines, error replies and lines without a reply of this run.

    `skipped` lines had their final reply from an earlier run, `failed_before` of them an error; `unanswered` are the
    failed ones that a resume will send again.
    """

    run_id: str
    total: int
    ok: int
    failed: int
    skipped: int
    failed_before: int
    unanswered: int
    rerouted: int
    input_tokens: int
    output_tokens: int
    seconds: float

    @property
    def all_ok(self) -> bool:
        """Whether every line of the file is answered with 200."""
        return self.failed == 0 and self.failed_before == 0


async def run_batch(  # noqa: PLR0913 - keyword-only settings of a job, each with its default
    client: BrokerClient,
    lines_path: Path,
    out_path: Path,
    err_path: Path | None = None,
    *,
    lane: Lane = Lane.BATCH,
    deadline: float | None = None,
    tags: Mapping[str, str] | None = None,
    in_flight: int = IN_FLIGHT,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    clock: Clock | None = None,
) -> BatchSummary:
    """Send every line and write every result; takes constant memory and may be killed at any time.

    `deadline` is seconds for the whole job: what is not sent by then becomes an error `batch_expired`. Results are
    appended in the order in which they come. With `resume`, lines that have a final reply are not sent, and the others
    are sent under the request ids of the first run: one that was answered meanwhile is not paid twice. Raises
    `BatchFileError` before anything is sent where a file cannot be used, `ResultsNotWritten` when the disk is full.
    """
    paths = BatchPaths(out_path, err_path or default_errors_path(out_path))
    total, finished = await asyncio.to_thread(_prepare, lines_path, paths, resume=resume, overwrite=overwrite)
    with ResultFiles(paths, finished.run_id) as files:
        options = Options(lane=lane, deadline=deadline, tags=tags)
        run = _Run(total, finished, files, options, clock or SystemClock())
        await _first_to_end(run.work(client, lines_path, in_flight), run.tick(on_progress))
    if on_progress is not None:
        on_progress(run.progress())
    if run.unanswered == 0:
        paths.run.unlink(missing_ok=True)
    return run.summary()


def _prepare(lines_path: Path, paths: BatchPaths, *, resume: bool, overwrite: bool) -> tuple[int, Finished]:
    if len({path.resolve() for path in (lines_path, paths.out, paths.err)}) < len(("in", "out", "err")):
        raise BatchFileError("input, output and error file must be three files")
    total, input_print = count_lines(lines_path), fingerprint(lines_path)
    return total, resumed_run(paths, input_print) if resume else new_run(paths, input_print, overwrite=overwrite)


@dataclass(slots=True)
class _Run:
    """Counters of one run, and what becomes of each line."""

    total: int
    finished: Finished
    files: ResultFiles
    options: Options
    clock: Clock
    began: float = field(init=False)
    sent: int = 0
    settled: int = 0
    ok: int = 0
    failed: int = 0
    unanswered: int = 0
    rerouted: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __post_init__(self) -> None:
        self.began = self.clock.monotonic()

    async def work(self, client: BrokerClient, lines_path: Path, in_flight: int) -> None:
        """Send every line and take every result."""
        async with aclosing(client.outcomes(self.requests(lines_path), in_flight=in_flight)) as outcomes:
            async for request, result in outcomes:
                self.take(request, result)

    def requests(self, lines_path: Path) -> Iterator[Request]:
        """Yield the requests still to be sent; settle the lines that will not be."""
        deadline = self.options.deadline
        for line in read_lines(lines_path):
            if line.number in self.finished.lines:
                continue
            left = None if deadline is None else deadline - self._seconds()
            if isinstance(line, BadLine):
                self.failed += 1
                self.files.unanswered(line.number, line.custom_id, "invalid_line", str(line))
            elif left is not None and left <= 0:
                self._without_reply(
                    line.number, line.custom_id, "batch_expired", "the deadline passed before it was sent"
                )
            else:
                self.sent += 1
                yield self._request(line, left)

    def take(self, request: Request, result: Result) -> None:
        """Write the result of one request."""
        self.settled += 1
        number = int((request.request_id or "").rpartition("-")[2])
        custom_id = str(request.options.metadata["custom_id"])
        if isinstance(result, BrokerError):
            self._without_reply(number, custom_id, _code(result), str(result))
            return
        body = parsed(result)
        if not isinstance(body, dict):
            self._without_reply(number, custom_id, "bad_reply", "the reply's body is not a JSON object")
            return
        self._count(result, body)
        response = BatchResponse.model_construct(status_code=result.status, request_id=result.request_id, body=body)
        self.files.answered(number, custom_id, response)

    async def tick(self, on_progress: Callable[[Progress], None] | None) -> None:
        """Bring results to the disk and tell progress, until cancelled."""
        while True:
            self.files.flush()
            if on_progress is not None:
                on_progress(self.progress())
            await asyncio.sleep(TICK_S)

    def progress(self) -> Progress:
        """Return where the run stands."""
        return Progress(
            total=self.total,
            done=self.ok,
            failed=self.failed,
            skipped=len(self.finished.lines),
            rerouted=self.rerouted,
            waiting=self.sent - self.settled,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            seconds=self._seconds(),
        )

    def summary(self) -> BatchSummary:
        """Return how the run ended."""
        return BatchSummary(
            run_id=self.finished.run_id,
            total=self.total,
            ok=self.ok,
            failed=self.failed,
            skipped=len(self.finished.lines),
            failed_before=self.finished.failed,
            unanswered=self.unanswered,
            rerouted=self.rerouted,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            seconds=self._seconds(),
        )

    def _request(self, line: GoodLine, left: float | None) -> Request:
        return Request(
            alias=line.model,
            body=line.body,
            endpoint=line.url,
            options=replace(self.options, deadline=left, metadata={"custom_id": line.custom_id}),
            request_id=f"batch-{self.finished.run_id}-{line.number}",
        )

    def _without_reply(self, number: int, custom_id: str, code: str, message: str) -> None:
        self.failed += 1
        self.unanswered += 1
        self.files.unanswered(number, custom_id, code, message)

    def _count(self, reply: Reply, body: dict[str, Any]) -> None:
        if reply.status == 200:  # noqa: PLR2004 - HTTP
            self.ok += 1
        else:
            self.failed += 1
        self.rerouted += reply.fallbacks > 0
        tokens_in, tokens_out = usage_of(body)
        self.input_tokens += tokens_in
        self.output_tokens += tokens_out

    def _seconds(self) -> float:
        return self.clock.monotonic() - self.began


async def _first_to_end(*jobs: Coroutine[Any, Any, None]) -> None:
    """Run jobs side by side until one ends or fails, then end the others; raises what that one raised."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _code(error: BrokerError) -> str:
    return error.code if isinstance(error, RequestError | ReplyTimeout) else "unavailable"
