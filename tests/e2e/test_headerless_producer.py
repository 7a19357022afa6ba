"""A producer with nothing of ours: librdkafka, a body, no header at all; the answer is read by the record's place."""

import json
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer

from tests.processes import run, running, write_config
from tests.serving import alias, eventually, make_topics, settings_of
from tests.upstream import Ok, Upstream

pytestmark = pytest.mark.embedded

BODY = json.dumps({"model": "fast", "messages": [{"role": "user", "content": "Hello"}]})


async def test_a_record_with_no_headers_is_served_and_its_answer_read_by_topic_partition_and_offset(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str, tmp_path: Path
) -> None:
    with Upstream(default=Ok()) as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("fast", up.url))
        await make_topics(settings)
        config = write_config(
            tmp_path, bootstrap=kafka_bootstrap, redis_url=redis_url, prefix=unique_prefix, models={"fast": up.url}
        )
        places: list[str] = []

        def delivered(error: object, message: Message) -> None:
            assert error is None
            places.append(f"{message.topic()}-{message.partition()}-{message.offset()}")

        producer = Producer({"bootstrap.servers": kafka_bootstrap})
        producer.produce(f"{unique_prefix}requests.fast", BODY.encode(), on_delivery=delivered)
        assert producer.flush(30) == 0
        async with running("worker", "--config", str(config), "--port", "0", log=tmp_path / "worker.log") as worker:
            await eventually(lambda: len(up.calls) == 1, "the call is made")
            worker.terminate()
            await worker.wait()
        (place,) = places
        answer = json.loads(await run("result", place, "--config", str(config), cwd=tmp_path))
        missing = await run("result", f"{place}9", "--config", str(config), cwd=tmp_path, expect=1)
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert missing == ""
