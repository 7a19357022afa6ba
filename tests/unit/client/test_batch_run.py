"""Batch jobs over the log in memory: results, bad lines, crashes and resumes."""

import asyncio
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.client import BrokerClient, Lane, LogPorts
from broker.client.batch import BatchSummary, Progress, run_batch
from broker.client.batch_files import BatchPaths, ResultFiles
from broker.client.batch_input import BatchFileError, ResultsExist, ResultsNotWritten
from broker.clock import ManualClock
from broker.envelope import Job
from broker.records import OutRecord
from schemas.batch import BatchResponse
from tests.unit.client.fake_worker import FakeWorker, completion, echo, failure, reply
from tests.unit.client.instant_log import InstantLog


class Files:
    """The files of one job in a folder."""

    def __init__(self, folder: Path) -> None:
        self.input = folder / "in.jsonl"
        self.out = folder / "out.jsonl"
        self.err = folder / "out.errors.jsonl"
        self.note = BatchPaths(self.out, self.err).run

    def write(self, *lines: Any) -> None:
        raw = [line if isinstance(line, bytes) else orjson.dumps(line) for line in lines]
        self.input.write_bytes(b"".join(each + b"\n" for each in raw))

    def numbered(self, count: int, text: str = "n") -> None:
        self.write(*(line(f"c{number}", f"{text}{number}") for number in range(count)))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def line(custom_id: str, content: str = "hi", model: str = "local") -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": content}]}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def results(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(raw) for raw in path.read_bytes().splitlines()] if path.exists() else []


async def run(ports: LogPorts, files: Files, **options: Any) -> BatchSummary:
    async with BrokerClient(ports=ports) as client:
        return await run_batch(client, files.input, files.out, files.err, **options)


async def test_an_answer_is_written_as_openai_writes_it(ports: LogPorts, worker: FakeWorker, files: Files) -> None:
    files.write(line("first", "hello"))
    summary = await run(ports, files)
    (result,) = results(files.out)
    assert result == {
        "id": f"batch_req_{summary.run_id}_1",
        "custom_id": "first",
        "response": {
            "status_code": 200,
            "request_id": f"batch-{summary.run_id}-1",
            "body": completion("HELLO"),
        },
        "error": None,
    }
    assert results(files.err) == []
    assert worker.jobs[0].lane is Lane.BATCH
    assert worker.jobs[0].metadata == b'{"custom_id":"first"}'
    assert worker.jobs[0].idempotency_key is None


async def test_what_failed_goes_to_the_error_file(ports: LogPorts, worker: FakeWorker, files: Files) -> None:
    def respond(job: Job) -> Sequence[OutRecord]:
        return (
            [failure(job, 400, "context_length_exceeded")] if job.body["messages"][0]["content"] == "x" else echo(job)
        )

    worker.respond = respond
    files.write(line("good"), line("bad", "x"), b"{oops", line("good"), line("lost", model="no/alias"))
    summary = await run(ports, files)
    assert (summary.total, summary.ok, summary.failed, summary.unanswered) == (5, 1, 4, 1)
    assert [result["custom_id"] for result in results(files.out)] == ["good"]
    told = sorted(results(files.err), key=lambda result: result["id"])
    assert [(each["custom_id"], each["error"] and each["error"]["code"]) for each in told] == [
        ("bad", None),
        ("", "invalid_line"),
        ("good", "invalid_line"),
        ("lost", "model_not_found"),
    ]
    assert told[0]["response"]["status_code"] == 400
    assert told[0]["response"]["body"]["error"]["code"] == "context_length_exceeded"
    assert told[2]["error"]["message"] == "line 4: custom_id: 'good' stands on an earlier line as well"


async def test_counts_of_a_run(ports: LogPorts, worker: FakeWorker, files: Files) -> None:
    worker.respond = lambda job: [reply(job, completion("x"), fallbacks="1")]
    files.numbered(30)
    seen: list[Progress] = []
    summary = await run(ports, files, in_flight=4, on_progress=seen.append)
    assert (summary.ok, summary.rerouted, summary.input_tokens, summary.output_tokens) == (30, 30, 60, 90)
    assert summary.all_ok
    assert (seen[-1].total, seen[-1].done, seen[-1].waiting) == (30, 30, 0)
    assert not files.note.exists()


async def test_an_existing_result_is_not_overwritten_unasked(ports: LogPorts, worker: FakeWorker, files: Files) -> None:
    files.numbered(2)
    first = await run(ports, files)
    with pytest.raises(ResultsExist, match=r"out\.jsonl exists"):
        await run(ports, files)
    second = await run(ports, files, overwrite=True)
    assert (len(results(files.out)), len(worker.jobs)) == (2, 4)
    assert first.run_id != second.run_id


async def test_a_finished_run_resumed_sends_nothing(ports: LogPorts, worker: FakeWorker, files: Files) -> None:
    worker.respond = lambda job: [failure(job, 400, "x")] if b"c1" in (job.metadata or b"") else echo(job)
    files.numbered(5)
    await run(ports, files)
    summary = await run(ports, files, resume=True)
    assert (len(worker.jobs), summary.skipped, summary.failed_before, summary.ok) == (5, 5, 1, 0)
    assert not summary.all_ok


async def interrupted(ports: LogPorts, files: Files, *, after: int, in_flight: int = 10) -> None:
    """Run until `after` lines are answered, then end as a process does that is interrupted."""
    async with BrokerClient(ports=ports) as client:
        enough = asyncio.Event()

        def watch(progress: Progress) -> None:
            if progress.done >= after:
                enough.set()

        job = asyncio.create_task(
            run_batch(client, files.input, files.out, files.err, in_flight=in_flight, on_progress=watch)
        )
        await enough.wait()
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


async def test_a_resume_sends_only_what_has_no_final_reply_as_the_same_request(
    ports: LogPorts, worker: FakeWorker, files: Files
) -> None:
    silent = {f"n{number}" for number in range(20, 40)}
    worker.respond = lambda job: [] if job.body["messages"][0]["content"] in silent else echo(job)
    files.numbered(100)
    await interrupted(ports, files, after=20, in_flight=20)
    sent = {job.request_id for job in worker.jobs}
    worker.jobs.clear()
    worker.respond = echo
    summary = await run(ports, files, resume=True)
    again = {job.request_id for job in worker.jobs}
    assert (summary.total, summary.skipped, summary.ok, summary.failed) == (100, 20, 80, 0)
    assert len(again & sent) == len(sent) - 20
    assert sorted(result["custom_id"] for result in results(files.out)) == sorted(f"c{number}" for number in range(100))


@pytest.mark.parametrize("tail", [b'{"id":"batch_req_', b"\0\0\0\0", b"\xff"])
async def test_a_half_written_last_line_is_cut_off_and_its_request_sent_again(
    ports: LogPorts, worker: FakeWorker, files: Files, tail: bytes
) -> None:
    files.numbered(3)
    await run(ports, files)
    whole = files.out.read_bytes().splitlines(keepends=True)
    files.out.write_bytes(b"".join(whole[:2]) + tail)
    summary = await run(ports, files, resume=True)
    assert (summary.skipped, summary.ok, len(worker.jobs)) == (2, 1, 4)
    assert sorted(result["custom_id"] for result in results(files.out)) == ["c0", "c1", "c2"]


async def test_a_whole_last_line_without_its_newline_is_kept(ports: LogPorts, worker: FakeWorker, files: Files) -> None:
    files.numbered(3)
    await run(ports, files)
    files.out.write_bytes(files.out.read_bytes().rstrip())
    summary = await run(ports, files, resume=True)
    assert (summary.skipped, len(worker.jobs), len(results(files.out))) == (3, 3, 3)


async def test_a_line_without_a_reply_is_sent_again_and_its_error_goes(
    ports: LogPorts, worker: FakeWorker, files: Files
) -> None:
    worker.respond = lambda job: [] if job.body["messages"][0]["content"] == "n1" else echo(job)
    files.numbered(3)
    summary = await run(ports, files, deadline=-59.9)
    assert [each["error"]["code"] for each in results(files.err)] == ["batch_expired"] * 3
    assert (summary.failed, summary.unanswered) == (3, 3)
    assert files.note.exists()
    worker.respond = echo
    summary = await run(ports, files, resume=True)
    assert (summary.ok, summary.failed) == (3, 0)
    assert results(files.err) == []


async def test_what_is_not_sent_by_the_deadline_of_the_job_expires(
    ports: LogPorts, worker: FakeWorker, files: Files
) -> None:
    clock = ManualClock()

    def respond(job: Job) -> Sequence[OutRecord]:
        clock.advance(30)
        return echo(job)

    worker.respond = respond
    files.numbered(5)
    summary = await run(ports, files, deadline=50, in_flight=1, clock=clock)
    assert (summary.ok, summary.failed, len(worker.jobs)) == (2, 3, 2)
    assert {each["error"]["code"] for each in results(files.err)} == {"batch_expired"}


async def test_another_input_cannot_be_resumed_into_the_same_output(
    ports: LogPorts, worker: FakeWorker, files: Files
) -> None:
    worker.respond = lambda job: [] if job.body["messages"][0]["content"] == "n3" else echo(job)
    files.numbered(4)
    await interrupted(ports, files, after=3)
    files.numbered(5, text="other")
    with pytest.raises(BatchFileError, match="another input file"):
        await run(ports, files, resume=True)


async def test_a_file_of_somebody_else_is_not_appended_to(ports: LogPorts, files: Files) -> None:
    files.numbered(1)
    files.out.write_bytes(b'{"name": "not ours"}\n')
    with pytest.raises(BatchFileError, match="line 1 was not written by this command"):
        await run(ports, files, resume=True)
    assert files.out.read_bytes() == b'{"name": "not ours"}\n'


async def test_the_input_is_never_an_output(ports: LogPorts, files: Files) -> None:
    files.numbered(1)
    files.out = files.input
    with pytest.raises(BatchFileError, match="three files"):
        await run(ports, files, overwrite=True)
    assert len(results(files.input)) == 1


async def test_an_empty_file_is_a_job_of_no_lines(ports: LogPorts, files: Files) -> None:
    files.write()
    summary = await run(ports, files)
    assert (summary.total, summary.all_ok) == (0, True)


async def test_a_full_disk_ends_the_job_instead_of_losing_lines(
    ports: LogPorts, worker: FakeWorker, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ResultFiles) -> None:
        raise ResultsNotWritten(f"{self} is full")

    worker.respond = lambda _: []
    files.numbered(3)
    monkeypatch.setattr(ResultFiles, "flush", full)
    with pytest.raises(ResultsNotWritten):
        await run(ports, files)
    assert files.note.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_what_the_disk_does_not_take_is_told_with_the_file_s_name(tmp_path: Path) -> None:
    results = ResultFiles(BatchPaths(Path("/dev/full"), tmp_path / "err"), "0" * 12)
    results.answered(1, "c", BatchResponse(status_code=200, request_id="r", body={}))
    with pytest.raises(ResultsNotWritten, match="/dev/full: No space left on device"):
        results.flush()
    with pytest.raises(ResultsNotWritten), results:
        pass


async def test_an_answer_that_is_no_json_object_counts_as_none(
    ports: LogPorts, worker: FakeWorker, files: Files
) -> None:
    worker.respond = lambda job: [reply(job, ["no object"])]
    files.numbered(1)
    summary = await run(ports, files)
    assert (summary.failed, summary.unanswered, results(files.err)[0]["error"]["code"]) == (1, 1, "bad_reply")


@pytest.mark.parametrize("note", [b"{", b"[]", b'{"run": 1}'])
async def test_a_note_that_cannot_be_read_stops_the_resume(ports: LogPorts, files: Files, note: bytes) -> None:
    files.numbered(1)
    files.note.write_bytes(note)
    with pytest.raises(BatchFileError, match=r"out\.jsonl\.run"):
        await run(ports, files, resume=True)


async def test_results_of_two_runs_are_not_mixed(ports: LogPorts, files: Files) -> None:
    files.numbered(1)
    lines = [
        {"id": f"batch_req_{run_id}_1", "custom_id": "c0", "response": {"status_code": 200}}
        for run_id in ("a" * 12, "b" * 12)
    ]
    files.out.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in lines))
    with pytest.raises(BatchFileError, match=r"different runs: a+, b+"):
        await run(ports, files, resume=True)


async def test_a_resume_of_nothing_is_a_new_run(ports: LogPorts, worker: FakeWorker, files: Files) -> None:
    files.numbered(2)
    assert (await run(ports, files, resume=True)).ok == len(worker.jobs) == 2


async def test_memory_does_not_grow_with_the_file(files: Files) -> None:
    """Lines and answers of 4 KB: a job that held either would need 14 MB more for the longer file."""

    async def peak(count: int) -> int:
        with files.input.open("wb") as file:
            file.writelines(orjson.dumps(line(f"c{number}", "x" * 4000)) + b"\n" for number in range(count))
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        async with BrokerClient(ports=InstantLog(orjson.dumps(completion("y" * 4000))).ports) as client:
            summary = await run_batch(client, files.input, files.out, files.err, overwrite=True, in_flight=10)
        assert summary.ok == count
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        short, long = await peak(500), await peak(4000)
    finally:
        tracemalloc.stop()
    assert long - short < 500_000
