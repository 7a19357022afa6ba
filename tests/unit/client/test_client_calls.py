"""The calls of the client over the log in memory."""

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson
import pytest

from broker.adapters.memory_log import MemoryLog, MemoryProducer, MemoryReader
from broker.client import BrokerClient, Lane, LogPorts, Options, Reply, ReplyTimeout, Request, RequestFailed
from broker.client.errors import failure_of
from broker.client.outbox import Backoff
from broker.clock import ManualClock
from broker.errors import InvalidRequest, ModelNotFound, Unavailable
from broker.ports import SendFailure
from broker.records import OutRecord
from tests.unit.client.conftest import NAMES
from tests.unit.client.fake_worker import FakeWorker, completion, failure, reply

QUICK = Backoff(first=0.001, most=0.01)


def chat(text: str, **options: Any) -> Request:
    body: Mapping[str, Any] = {"messages": [{"role": "user", "content": text}]}
    return Request(alias="local", body=body, options=Options(**options))


async def test_a_chat_answers_with_attributes(ports: LogPorts, worker: FakeWorker) -> None:
    async with BrokerClient(ports=ports) as client:
        answer = await client.chat("local", [{"role": "user", "content": "hi"}], temperature=0)
    assert answer.choices[0].message.content == answer.text == "HI"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    info = answer.reply
    assert (info.served_by, info.attempts, info.cost, info.queue_ms, info.upstream_ms) == (
        "local/0",
        1,
        Decimal("0.00012"),
        4,
        20,
    )
    assert worker.jobs[0].body == {
        "model": "local",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
    }


async def test_a_completion_and_an_embedding_go_to_their_endpoints(ports: LogPorts, worker: FakeWorker) -> None:
    async with BrokerClient(ports=ports) as client:
        assert (await client.complete("local", "ab")).text == "abab"
        assert (await client.embed("local", "four")).data[0].embedding == [4.0]
    assert [job.endpoint for job in worker.jobs] == ["/v1/completions", "/v1/embeddings"]


async def test_every_option_travels_in_its_header(ports: LogPorts, worker: FakeWorker) -> None:
    clock = ManualClock(1_000_000)
    options = Options(
        deadline=2.5,
        priority=1,
        lane=Lane.BATCH,
        tags={"team": "x"},
        metadata={"row": 7},
        idempotency_key="once",
        traceparent="00-1-2-01",
    )
    async with BrokerClient(ports=ports, key="sk-1", clock=clock) as client:
        answer = await client.chat("local", "hi", options=options)
    job = worker.jobs[0]
    assert (job.deadline, job.priority, job.lane, job.tags) == (1_002_500, 1, Lane.BATCH, {"team": "x"})
    assert (job.idempotency_key, job.traceparent, job.authorization) == ("once", "00-1-2-01", "Bearer sk-1")
    assert orjson.loads(answer.reply.metadata or b"") == {"row": 7}


async def test_a_call_that_is_not_waited_for_is_not_started(ports: LogPorts, worker: FakeWorker) -> None:
    async with BrokerClient(ports=ports, clock=ManualClock(1_000_000)) as client:
        await client.chat("local", "hi", timeout=30)
    assert worker.jobs[0].deadline == 1_030_000


async def test_the_key_shows_in_no_repr(ports: LogPorts) -> None:
    async with BrokerClient(ports=ports, key="sk-secret") as client:
        shown = repr(client) + repr(vars(client)) + repr(vars(client._exchange))  # noqa: SLF001 - looks for a leak
    assert "sk-secret" not in shown


async def test_a_name_that_kafka_forbids_is_mapped_to_its_alias(ports: LogPorts, worker: FakeWorker) -> None:
    async with BrokerClient(ports=ports, alias_names={"openai/gpt-4o": "local"}) as client:
        await client.chat("openai/gpt-4o", "hi")
    assert (worker.jobs[0].alias, worker.jobs[0].body["model"]) == ("local", "openai/gpt-4o")


@pytest.mark.parametrize("alias", ["nobody", "not/allowed", ""])
async def test_an_alias_nobody_serves_is_not_found(ports: LogPorts, alias: str) -> None:
    async with BrokerClient(ports=ports) as client:
        with pytest.raises(ModelNotFound):
            await client.chat(alias, "hi")
        assert client.waiting == 0


async def test_an_error_reply_raises_with_everything_it_says(ports: LogPorts, worker: FakeWorker) -> None:
    worker.respond = lambda job: [failure(job, 429, "rate_limit_exceeded", "slow down", "tokens")]
    async with BrokerClient(ports=ports) as client:
        with pytest.raises(RequestFailed, match="429 rate_limit_exceeded: slow down") as caught:
            await client.chat("local", "hi")
    error = caught.value
    assert (error.status, error.code, error.param, error.body["error"]["message"]) == (
        429,
        "rate_limit_exceeded",
        "tokens",
        "slow down",
    )
    assert error.reply.cost is None


async def test_an_answer_of_the_wrong_shape_is_a_bad_upstream_response(ports: LogPorts, worker: FakeWorker) -> None:
    worker.respond = lambda job: [reply(job, {"choices": "none"})]
    async with BrokerClient(ports=ports) as client:
        with pytest.raises(RequestFailed, match="502 bad_upstream_response: the reply is no ChatCompletion: choices"):
            await client.chat("local", "hi")


async def test_a_timeout_raises_and_leaves_nothing_behind(ports: LogPorts) -> None:
    async with BrokerClient(ports=ports) as client:
        with pytest.raises(ReplyTimeout, match=r"no reply to \w+ within 0.01 s"):
            await client.chat("local", "hi", timeout=0.01)
        assert client.waiting == 0


async def test_a_call_that_is_cancelled_leaves_nothing_behind(ports: LogPorts, worker: FakeWorker) -> None:
    worker.respond = lambda _: []
    async with BrokerClient(ports=ports) as client:
        call = asyncio.create_task(client.chat("local", "hi"))
        await worker.seen.wait()
        assert client.waiting == 1
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert client.waiting == 0


async def test_closing_tells_everyone_who_still_waits(ports: LogPorts) -> None:
    client = BrokerClient(ports=ports)
    await client.open()
    handle = await client.submit(chat("hi"))
    await client.close()
    with pytest.raises(Unavailable, match="closed before"):
        await handle.result()
    with pytest.raises(Unavailable, match="not open"):
        await client.chat("local", "hi")


async def test_a_handle_gives_its_reply_as_often_as_it_is_asked(ports: LogPorts, worker: FakeWorker) -> None:
    worker.respond = lambda job: [failure(job, 400, "invalid_request")]
    async with BrokerClient(ports=ports) as client:
        handle = await client.submit(chat("hi"))
        replies = [await handle.result(timeout=5), await handle.result()]
    assert [reply.status for reply in replies] == [400, 400]
    assert handle.done()


async def test_a_handle_can_be_asked_again_after_its_timeout(ports: LogPorts, log: MemoryLog) -> None:
    async with BrokerClient(ports=ports) as client:
        async with FakeWorker(MemoryProducer(log), MemoryReader(log), NAMES, respond=lambda _: []) as worker:
            handle = await client.submit(chat("hi"))
            with pytest.raises(ReplyTimeout):
                await handle.result(timeout=0.001)
            await worker.seen.wait()
            log.send(reply(worker.jobs[0], completion("late")), 0)
            log.wake()
        assert (await handle.result(timeout=5)).status == 200


async def test_a_request_id_of_the_caller_is_kept_and_not_used_twice_at_once(ports: LogPorts) -> None:
    async with BrokerClient(ports=ports) as client:
        request = Request(alias="local", body={"messages": []}, request_id="mine")
        assert (await client.submit(request)).request_id == "mine"
        with pytest.raises(InvalidRequest, match="mine is already waited for"):
            await client.submit(request)


async def test_a_record_the_log_refuses_is_an_invalid_request(ports: LogPorts, log: MemoryLog) -> None:
    log.fail_sends = lambda record: SendFailure("too large", permanent=True) if record.value else None
    async with BrokerClient(ports=ports) as client:
        with pytest.raises(InvalidRequest, match="too large"):
            await client.submit(chat("hi"))
        with pytest.raises(InvalidRequest, match="too large"):
            await client.chat("local", "hi")
        assert client.waiting == 0


async def test_a_send_that_fails_for_a_while_is_repeated(ports: LogPorts, log: MemoryLog, worker: FakeWorker) -> None:
    failures = iter([SendFailure("no leader", permanent=False)] * 3)

    def sometimes(record: OutRecord) -> SendFailure | None:
        return next(failures, None) if record.topic == NAMES.requests("local") else None

    log.fail_sends = sometimes
    async with BrokerClient(ports=ports, backoff=QUICK) as client:
        assert (await client.chat("local", "hi", timeout=10)).text == "HI"
    assert len(worker.jobs) == 1


async def test_a_send_that_never_succeeds_ends_with_the_timeout_and_its_reason(ports: LogPorts, log: MemoryLog) -> None:
    log.fail_sends = lambda _: SendFailure("no leader", permanent=False)
    async with BrokerClient(ports=ports, backoff=QUICK) as client:
        with pytest.raises(ReplyTimeout, match="not sent: no leader"):
            await client.chat("local", "hi", timeout=0.05)


async def test_a_log_without_the_replies_topic_says_what_to_do() -> None:
    log = MemoryLog()
    client = BrokerClient(ports=LogPorts(producer=MemoryProducer(log), open_reader=lambda: MemoryReader(log)))
    with pytest.raises(Unavailable, match="broker topics apply"):
        await client.open()


async def test_a_log_that_is_down_is_unavailable_at_once(ports: LogPorts, log: MemoryLog) -> None:
    log.down = True
    with pytest.raises(Unavailable):
        await BrokerClient(ports=ports).open()


async def test_what_cannot_be_json_is_an_invalid_request(ports: LogPorts) -> None:
    async with BrokerClient(ports=ports) as client:
        with pytest.raises(InvalidRequest, match="body cannot be written as JSON"):
            await client.chat("local", "hi", seed=object())


async def test_a_cancel_that_cannot_be_written_is_told(ports: LogPorts, log: MemoryLog) -> None:
    async with BrokerClient(ports=ports) as client:
        handle = await client.submit(chat("hi"))
        log.fail_sends = lambda _: SendFailure("no leader", permanent=False)
        with pytest.raises(Unavailable, match="could not be written: no leader"):
            await handle.cancel()
        assert repr(handle) == f"Handle('{handle.request_id}', waiting)"


def test_an_error_whose_body_is_no_json_keeps_what_it_says() -> None:
    failed = failure_of(Reply(request_id="r", value=b"<html>Bad gateway", final=True, status=502))
    assert (failed.message, failed.code, failed.body, failed.request_id) == ("<html>Bad gateway", None, None, "r")


async def test_a_send_that_waits_for_another_try_is_given_up_at_the_end(ports: LogPorts, log: MemoryLog) -> None:
    tried = asyncio.Event()

    def refuse(_: OutRecord) -> SendFailure:
        tried.set()
        return SendFailure("no leader", permanent=False)

    log.fail_sends = refuse
    client = BrokerClient(ports=ports, backoff=Backoff(first=60, most=60))
    await client.open()
    call = asyncio.create_task(client.chat("local", "hi"))
    await tried.wait()
    await client.close()
    with pytest.raises(Unavailable, match="closed before"):
        await call
