"""The client against a real Kafka-protocol log, with a worker of a few lines at the other end."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import orjson
import pytest

from broker.adapters.kafka import KafkaProducer, KafkaReader
from broker.adapters.kafka_admin import KafkaAdmin
from broker.client import BrokerClient, Options, Request, RequestFailed
from broker.client.batch import run_batch
from broker.config import Kafka
from broker.envelope import Job, read_cancel
from broker.errors import ModelNotFound
from broker.records import OutRecord
from broker.topics import TopicNames, topic_specs
from tests.unit.client.fake_worker import FakeWorker, chunk, completion, failure, reply

pytestmark = pytest.mark.embedded


def respond(job: Job) -> Sequence[OutRecord]:
    text = str(job.body["messages"][-1]["content"])
    if text.startswith("fail"):
        return [failure(job, 400, "invalid_request", param="messages")]
    answer = reply(job, completion(text.upper()))
    if job.streams:
        return [*(chunk(job, seq, letter) for seq, letter in enumerate(text.upper())), answer]
    return [answer, answer]


@pytest.fixture
async def kafka(kafka_bootstrap: str, unique_prefix: str) -> Kafka:
    kafka = Kafka(bootstrap_servers=kafka_bootstrap, topic_prefix=unique_prefix)
    admin = KafkaAdmin(kafka)
    await admin.start()
    for spec in topic_specs(TopicNames(unique_prefix), ["local"]):
        await admin.create(spec, replication_factor=1)
    await admin.stop()
    return kafka


@pytest.fixture
async def worker(kafka: Kafka) -> AsyncIterator[FakeWorker]:
    names = TopicNames(kafka.topic_prefix)
    async with FakeWorker(KafkaProducer(kafka), KafkaReader(kafka), names, respond=respond) as worker:
        yield worker


async def test_a_chat_comes_back_typed_with_its_reply(kafka: Kafka, worker: FakeWorker) -> None:
    async with BrokerClient(kafka=kafka, key="sk-1", timeout=20) as client:
        answer = await client.chat("local", "hello", options=Options(tags={"team": "x"}), max_tokens=5)
    assert answer.choices[0].message.content == "HELLO"
    assert (answer.reply.status, answer.reply.served_by) == (200, "local/0")
    assert [(job.authorization, job.tags, job.body["max_tokens"]) for job in worker.jobs] == [
        ("Bearer sk-1", {"team": "x"}, 5)
    ]


async def test_a_stream_arrives_in_pieces_and_whole(kafka: Kafka, worker: FakeWorker) -> None:
    async with BrokerClient(kafka=kafka, timeout=20) as client:
        stream = client.stream("local", "hello")
        pieces = [piece.text async for piece in stream]
        whole = await stream.completion()
    assert (pieces, whole.text) == (list("HELLO"), "HELLO")
    assert worker.jobs[0].streams


async def test_many_clients_share_the_replies_topic(kafka: Kafka, worker: FakeWorker) -> None:
    async def one(number: int) -> list[str]:
        async with BrokerClient(kafka=kafka, timeout=20) as client:
            answers = await asyncio.gather(*(client.chat("local", f"n{number}-{turn}") for turn in range(5)))
            return [answer.text for answer in answers]

    assert await asyncio.gather(*map(one, range(4))) == [[f"N{n}-{turn}" for turn in range(5)] for n in range(4)]
    assert len(worker.jobs) == 20


async def test_an_alias_without_topics_is_not_found_at_once(kafka: Kafka) -> None:
    async with BrokerClient(kafka=kafka) as client:
        with pytest.raises(ModelNotFound, match="no alias 'nobody'"):
            await client.chat("nobody", "hello")


async def test_an_error_reply_is_raised_with_its_code(kafka: Kafka, worker: FakeWorker) -> None:
    async with BrokerClient(kafka=kafka, timeout=20) as client:
        with pytest.raises(RequestFailed) as caught:
            await client.chat("local", "fail please")
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_request", "messages")
    assert len(worker.jobs) == 1


async def test_a_cancel_reaches_the_control_topic(kafka: Kafka) -> None:
    names = TopicNames(kafka.topic_prefix)
    async with BrokerClient(kafka=kafka) as client:
        handle = await client.submit(Request(alias="local", body={"messages": []}))
        await handle.cancel()
    reader = KafkaReader(kafka)
    await reader.start()
    await reader.assign({partition: first for partition, (first, _) in (await reader.bounds(names.control)).items()})
    (record,) = await reader.poll(max_records=10, timeout=10)
    await reader.stop()
    cancel = read_cancel(record)
    assert cancel is not None
    assert cancel[0] == handle.request_id


def batch_file(path: Path, lines: int) -> Path:
    with path.open("wb") as file:
        for number in range(lines):
            content = f"fail {number}" if number % 100 == 7 else f"line {number}"
            body = {"model": "local", "messages": [{"role": "user", "content": content}]}
            file.write(orjson.dumps({"custom_id": f"c{number}", "method": "POST", "body": body}) + b"\n")
    return path


async def test_a_file_of_500_lines_gets_500_results(kafka: Kafka, worker: FakeWorker, tmp_path: Path) -> None:
    lines, out, err = batch_file(tmp_path / "in.jsonl", 500), tmp_path / "out.jsonl", tmp_path / "err.jsonl"
    async with BrokerClient(kafka=kafka) as client:
        summary = await run_batch(client, lines, out, err, in_flight=100)
    assert (summary.total, summary.ok, summary.failed, summary.unanswered) == (500, 495, 5, 0)
    results = [orjson.loads(line) for path in (out, err) for line in path.read_bytes().splitlines()]
    assert sorted(result["custom_id"] for result in results) == sorted(f"c{number}" for number in range(500))
    assert len(worker.jobs) == 500


async def test_the_submit_command_writes_both_files_and_exits_with_1(
    kafka: Kafka, worker: FakeWorker, tmp_path: Path
) -> None:
    batch_file(tmp_path / "in.jsonl", 200)
    config = tmp_path / "broker.yaml"
    config.write_text(f"kafka:\n  bootstrap_servers: {kafka.bootstrap_servers}\n  topic_prefix: {kafka.topic_prefix}\n")
    arguments = ["submit", "in.jsonl", "-o", "out.jsonl", "--json", "--tag", "job=nightly", "--config", str(config)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "broker",
        *arguments,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "BROKER_API_KEY": "sk-env"},
    )
    stdout, stderr = await process.communicate()
    assert process.returncode == 1, stderr.decode()
    summary = orjson.loads(stdout)
    assert (summary["total"], summary["ok"], summary["failed"]) == (200, 198, 2)
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 198
    assert len((tmp_path / "out.errors.jsonl").read_bytes().splitlines()) == 2
    assert {(job.authorization, job.tags["job"], job.lane.value) for job in worker.jobs} == {
        ("Bearer sk-env", "nightly", "batch")
    }
