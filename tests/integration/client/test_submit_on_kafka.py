"""`broker submit` as a command on a real Kafka-protocol log: finished, interrupted, killed, resumed."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.config import Kafka
from broker.envelope import Job
from broker.records import OutRecord
from tests.integration.client.conftest import respond
from tests.unit.client.fake_worker import FakeWorker

pytestmark = pytest.mark.embedded

LINES = 400
FAILING = 4


def batch_file(path: Path) -> None:
    with path.open("wb") as file:
        for number in range(LINES):
            content = f"fail {number}" if number % 100 == 7 else f"line {number}"
            body = {"model": "local", "messages": [{"role": "user", "content": content}]}
            file.write(orjson.dumps({"custom_id": f"c{number}", "method": "POST", "body": body}) + b"\n")


@pytest.fixture
def folder(tmp_path: Path, kafka: Kafka) -> Path:
    batch_file(tmp_path / "in.jsonl")
    section = {"bootstrap_servers": kafka.bootstrap_servers, "topic_prefix": kafka.topic_prefix}
    (tmp_path / "broker.yaml").write_bytes(orjson.dumps({"kafka": section}))
    return tmp_path


async def start(folder: Path, *options: str) -> Process:
    arguments = ["submit", "in.jsonl", "-o", "out.jsonl", "--json", "--config", "broker.yaml", *options]
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "BROKER_API_KEY": "sk-env"}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "broker",
        *arguments,
        cwd=folder,
        stdout=PIPE,
        stderr=PIPE,
        env=environment,
        # A shell's background jobs ignore SIGINT, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


async def ended(process: Process) -> tuple[int | None, dict[str, Any], str]:
    """Exit code, summary and what was said on stderr."""
    stdout, stderr = await process.communicate()
    return process.returncode, orjson.loads(stdout or b"{}"), stderr.decode()


def results(folder: Path) -> list[str]:
    """The custom ids of all whole lines of both files, sorted."""
    raw = [line for name in ("out", "out.errors") for line in (folder / f"{name}.jsonl").read_bytes().splitlines()]
    return sorted(orjson.loads(line)["custom_id"] for line in raw)


EVERY_LINE = sorted(f"c{number}" for number in range(LINES))


def silent_after(worker: FakeWorker, count: int) -> asyncio.Event:
    """Let the worker answer `count` requests and no more; the event tells when that many are answered."""
    reached = asyncio.Event()

    def answer(job: Job) -> Sequence[OutRecord]:
        if len(worker.jobs) > count:
            reached.set()
            return []
        return respond(job)

    worker.respond = answer
    return reached


async def written(folder: Path, lines: int) -> None:
    """Wait until another process has written so many whole result lines."""
    async with asyncio.timeout(20):
        while (folder / "out.jsonl").read_bytes().count(b"\n") < lines:  # noqa: ASYNC110 - another process writes them
            await asyncio.sleep(0.02)


async def test_a_file_becomes_answers_and_errors(folder: Path, worker: FakeWorker) -> None:
    code, summary, said = await ended(await start(folder, "--tag", "job=nightly"))
    assert (code, summary["total"], summary["ok"], summary["failed"]) == (1, LINES, LINES - FAILING, FAILING), said
    assert results(folder) == EVERY_LINE
    assert len((folder / "out.errors.jsonl").read_bytes().splitlines()) == FAILING
    sent = {(job.authorization, job.tags["job"], job.lane.value) for job in worker.jobs}
    assert sent == {("Bearer sk-env", "nightly", "batch")}
    assert len(worker.jobs) == LINES


async def test_ctrl_c_says_how_to_continue_and_the_resume_completes(folder: Path, worker: FakeWorker) -> None:
    reached = silent_after(worker, 150)
    process = await start(folder, "--in-flight", "50")
    await reached.wait()
    await written(folder, 140)
    process.send_signal(signal.SIGINT)
    code, _, said = await ended(process)
    assert code == 130
    assert "the rest is continued by\n  broker submit in.jsonl -o out.jsonl" in said
    assert "--resume --config broker.yaml" in said
    assert "Traceback" not in said
    worker.respond = respond
    code, summary, said = await ended(await start(folder, "--resume"))
    assert (code, summary["skipped"], summary["unanswered"]) == (1, 150, 0), said
    assert results(folder) == EVERY_LINE
    assert len({job.request_id for job in worker.jobs}) == LINES


async def test_a_job_that_was_killed_is_completed_without_a_line_twice(folder: Path, worker: FakeWorker) -> None:
    reached = silent_after(worker, 150)
    process = await start(folder, "--in-flight", "50")
    await reached.wait()
    await written(folder, 140)
    process.kill()
    await process.communicate()
    with (folder / "out.jsonl").open("ab") as file:
        file.write(b'{"id":"batch_req_12')
    worker.respond = respond
    code, summary, said = await ended(await start(folder, "--resume"))
    assert (code, summary["ok"] + summary["skipped"] + summary["failed"]) == (1, LINES), said
    assert results(folder) == EVERY_LINE
    assert len({job.request_id for job in worker.jobs}) == LINES
