"""`broker result` and `broker cancel` against a real answer store and a real log."""

import asyncio
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from broker.adapters.kafka_admin import KafkaAdmin
from broker.adapters.redis_journal import RedisJournal
from broker.cli import cancel, result
from broker.config import Kafka, load
from broker.errors import ConfigError
from broker.ports import Answer, Ending
from broker.topics import TopicNames, topic_specs

pytestmark = pytest.mark.embedded

BODY = b'{"choices":[{"message":{"content":"Hi"}}]}'


@pytest.fixture
def config(tmp_path: Path, kafka_bootstrap: str, redis_url: str, unique_prefix: str) -> str:
    path = tmp_path / "broker.yaml"
    kafka = {"bootstrap_servers": kafka_bootstrap, "topic_prefix": unique_prefix}
    path.write_bytes(orjson.dumps({"kafka": kafka, "redis": {"url": redis_url}}))
    asyncio.run(make_control_topic(Kafka(bootstrap_servers=kafka_bootstrap, topic_prefix=unique_prefix)))
    return str(path)


async def make_control_topic(kafka: Kafka) -> None:
    admin = KafkaAdmin(kafka)
    await admin.start()
    for spec in topic_specs(TopicNames(kafka.topic_prefix), []):
        await admin.create(spec, replication_factor=1)
    await admin.stop()


def store(config: str, request_id: str, status: int, body: bytes) -> None:
    async def put() -> None:
        settings = load(Path(config))
        journal = RedisJournal(settings.redis, TopicNames(settings.kafka.topic_prefix))
        await journal.start()
        headers = {"status": str(status), "served-by": "local/0"}
        answer = Answer(request_id=request_id, status=status, body=body, headers=headers)
        await journal.complete([Ending(None, "", answer)])
        await journal.stop()

    asyncio.run(put())


def run(command: str, *arguments: str) -> tuple[int, str]:
    module = {"result": result, "cancel": cancel}[command]
    done = CliRunner().invoke(module.command, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_a_stored_answer_is_printed_as_it_is(config: str) -> None:
    store(config, "llm.requests.local-3-42", 200, BODY)
    assert run("result", "llm.requests.local-3-42", "--config", config) == (0, BODY.decode() + "\n")


def test_the_headers_come_before_the_body_when_asked_for(config: str) -> None:
    store(config, "r1", 200, BODY)
    code, output = run("result", "r1", "--headers", "--config", config)
    assert (code, output) == (0, f"status: 200\nserved-by: local/0\n\n{BODY.decode()}\n")


def test_an_answer_as_json_carries_status_headers_and_body(config: str) -> None:
    store(config, "r1", 400, b'{"error":{}}')
    code, output = run("result", "r1", "--json", "--config", config)
    assert code == 0
    assert orjson.loads(output) == {
        "request_id": "r1",
        "status": 400,
        "headers": {"status": "400", "served-by": "local/0"},
        "body": {"error": {}},
    }


def test_an_answer_that_is_not_there_is_one_line_and_exit_code_1(config: str) -> None:
    code, output = run("result", "nobody", "--config", config)
    assert (code, output.count("\n")) == (1, 1)
    assert output.startswith("error: no answer is stored for nobody")


def test_a_request_that_has_ended_is_not_cancelled(config: str) -> None:
    store(config, "r1", 200, BODY)
    code, output = run("cancel", "r1", "--config", config)
    assert (code, "with status 200" in output) == (1, True)


def test_a_request_that_is_cancelled_already_is_told_so(config: str) -> None:
    store(config, "r1", 499, BODY)
    assert run("cancel", "r1", "--config", config) == (0, "r1 is cancelled\n")


def test_a_cancel_is_written_although_nobody_works(config: str) -> None:
    code, output = run("cancel", "r1", "--wait", "100ms", "--config", config)
    assert (code, "the cancel is written" in output) == (0, True)
    code, output = run("cancel", "r1", "--wait", "100ms", "--json", "--config", config)
    assert (code, orjson.loads(output)) == (0, {"request_id": "r1", "status": None, "cancelled": False})


@pytest.mark.parametrize("command", ["result", "cancel"])
def test_without_its_servers_a_command_says_what_to_start(tmp_path: Path, command: str) -> None:
    (tmp_path / "broker.yaml").write_text("kafka: {}\n")
    with pytest.raises(ConfigError, match="broker up"):
        run(command, "r1", "--config", str(tmp_path / "broker.yaml"))
