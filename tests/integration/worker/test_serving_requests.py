"""Requests through a real log, a real Redis and a scripted upstream."""

import asyncio
from decimal import Decimal

import orjson
import pytest

from broker.envelope import encode_cancel, headers
from broker.records import Partition
from broker.topics import Lane
from schemas.usage import Outcome
from tests.serving import alias, calling, eventually, make_topics, settings_of, working
from tests.upstream import Drop, Hang, Html, Ok, Sse, Status, TruncatedJson, Upstream

pytestmark = pytest.mark.embedded


async def test_a_request_is_answered_and_its_row_written(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("fast", up.url))
        await make_topics(settings)
        async with calling(settings) as caller, working(settings) as process:
            reply = await caller.ask("fast", metadata=b'{"custom_id":"7"}', tags={"team": "blue"})
            (event,) = await caller.events(reply.request_id, 1)
            stored = await process.parts.journal.outcome(reply.request_id)
    assert (reply.status, reply.alias, reply.served_by, reply.attempts) == (200, "fast", "fast/0", 1)
    assert reply.metadata == b'{"custom_id":"7"}'
    assert reply.body()["choices"][0]["message"]["role"] == "assistant"
    assert (event.outcome, event.billable, event.tags) == (Outcome.ANSWERED, True, {"team": "blue"})
    assert event.input_tokens > 0
    assert stored is not None
    assert stored.body == reply.value


@pytest.mark.parametrize("broken", [Html(), TruncatedJson(), Sse(), Drop()], ids=["html", "truncated", "sse", "drop"])
async def test_an_answer_that_is_not_the_contract_is_a_502_attempt_and_retried_elsewhere(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str, broken: Html
) -> None:
    async with Upstream() as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("pair", up.url, count=2))
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            request_id = "one-" + unique_prefix
            up.script_request(request_id, [broken])
            reply = await caller.ask("pair", request_id=request_id)
            first, second = await caller.events(request_id, 2)
    assert (reply.status, reply.attempts) == (200, 2)
    assert (first.status, first.outcome, first.billable) == (502, Outcome.FAILED, False)
    assert (second.outcome, second.billable) == (Outcome.ANSWERED, True)
    assert first.deployment != second.deployment


async def test_retries_spent_lead_to_the_fallback_and_every_try_is_a_row(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        up.script("flaky-0", [Status(503)] * 2)
        flaky = alias("flaky", up.url, num_retries=1, fallbacks=("steady",))
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, flaky, alias("steady", up.url))
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            reply = await caller.ask("flaky")
            events = await caller.events(reply.request_id, 3)
    assert (reply.status, reply.alias, reply.served_by, reply.fallbacks) == (200, "flaky", "steady/0", 1)
    assert [event.outcome for event in events] == [Outcome.FAILED, Outcome.REROUTED, Outcome.ANSWERED]
    assert [event.billable for event in events] == [False, False, True]
    assert [event.alias for event in events] == ["flaky", "flaky", "steady"]


async def test_two_aliases_that_fall_back_to_each_other_end_with_the_last_error_and_all_tries(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream(default=Status(500)) as up:
        left = alias("left", up.url, num_retries=0, fallbacks=("right",))
        right = alias("right", up.url, num_retries=0, fallbacks=("left",))
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, left, right)
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            reply = await caller.ask("left")
    assert (reply.status, reply.attempts) == (500, 2)
    assert [each["deployment"] for each in reply.body()["error"]["attempts"]] == ["left/0", "right/0"]


async def test_a_busy_provider_means_waiting_and_not_a_429(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        up.script("busy-0", [Status(429, retry_after=0.3)] * 4)
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("busy", up.url, num_retries=1))
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            reply = await caller.ask("busy")
    assert (reply.status, reply.attempts) == (200, 5)


async def test_no_more_than_max_parallel_requests_run_at_once(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream(default=Ok(delay=0.05)) as up:
        narrow = alias("narrow", up.url, limits={"max_parallel_requests": 5})
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, narrow)
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            replies = await caller.replies(*[await caller.publish("narrow") for _ in range(50)])
    assert {reply.status for reply in replies} == {200}
    assert up.peak == 5


async def test_a_slow_record_does_not_hold_the_others_and_pins_the_commit(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("mixed", up.url))
        await make_topics(settings, partitions=1)
        up.script_request("slow", [Hang()])
        async with calling(settings) as caller, working(settings, drain_seconds=0.0) as process:
            await caller.publish("mixed", request_id="slow")
            others = [await caller.publish("mixed") for _ in range(20)]
            replies = await caller.replies(*others)
            partition = Partition(caller.names.requests("mixed"), 0)
            await eventually(lambda: process.committer.trackers[partition].in_flight == 1, "20 offsets are finished")
            await process.committer.commit([partition])
            committed = (await process.parts.consumer.committed([partition]))[partition]
        # A second worker starts from what the first one left: the slow record, and only it.
        async with calling(settings) as caller, working(settings):
            (late,) = await asyncio.gather(_answered(up, "slow"))
    assert {reply.status for reply in replies} == {200}
    assert committed.offset == 0
    assert committed.metadata != ""
    assert late == 2
    assert {up.counts[request_id] for request_id in others} == {1}


async def _answered(up: Upstream, request_id: str) -> int:
    await up.until(lambda: up.counts[request_id] == 2, timeout=30)
    return up.counts[request_id]


async def test_expired_work_is_never_started(kafka_bootstrap: str, redis_url: str, unique_prefix: str) -> None:
    async with Upstream() as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("late", up.url))
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            reply = await caller.ask("late", deadline=1)
            (event,) = await caller.events(reply.request_id, 1)
    assert (reply.status, reply.body()["error"]["code"]) == (504, "deadline_exceeded")
    assert (event.outcome, event.billable, event.cost) == (Outcome.EXPIRED, True, Decimal(0))
    assert up.calls == []


async def test_a_deadline_ends_waiting_and_running_work(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream(default=Hang()) as up:
        narrow = alias("narrow", up.url, limits={"max_parallel_requests": 1})
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, narrow)
        await make_topics(settings)
        async with calling(settings) as caller, working(settings) as process:
            deadline = process.parts.clock.now_ms() + 1_500
            both = [await caller.publish("narrow", deadline=deadline) for _ in range(2)]
            replies = await caller.replies(*both)
    assert [reply.status for reply in replies] == [504, 504]
    assert len(up.calls) == 1


async def test_a_cancel_ends_running_and_queued_work_with_499(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream(default=Hang()) as up:
        narrow = alias("narrow", up.url, limits={"max_parallel_requests": 1})
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, narrow)
        await make_topics(settings)
        async with calling(settings) as caller, working(settings) as process:
            both = [await caller.publish("narrow", request_id=f"{unique_prefix}{n}") for n in range(2)]
            await up.until(lambda: len(up.calls) == 1)
            await eventually(lambda: process.dispatcher.waiting()["narrow", Lane.INTERACTIVE] == 1, "one waits")
            now = process.parts.clock.now_ms()
            await caller.write(*[encode_cancel(request_id, caller.names, now) for request_id in both])
            replies = await caller.replies(*both)
            took = process.parts.clock.now_ms() - now
    assert [reply.status for reply in replies] == [499, 499]
    assert len(up.calls) == 1
    assert took < 1_000


async def test_work_cancelled_before_a_worker_started_is_not_called(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("fast", up.url))
        await make_topics(settings)
        async with calling(settings) as caller:
            request_id = await caller.publish("fast", request_id="early")
            await caller.write(encode_cancel("early", caller.names, 2**42))
            async with working(settings):
                (reply,) = await caller.replies(request_id)
    assert reply.status == 499
    assert up.calls == []


async def test_a_stream_arrives_in_order_and_ends_with_the_whole_completion(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("words", up.url))
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            body = {"model": "words", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
            reply = await caller.ask("words", body)
            records = await caller.until(caller.names.replies, 2, {reply.request_id})
    chunks = [record for record in records if headers.SEQ in dict(record.headers)]
    text = "".join(
        choice["delta"].get("content") or ""
        for record in chunks
        for choice in orjson.loads(record.value or b"{}").get("choices", [])
    )
    assert [dict(record.headers)[headers.SEQ] for record in chunks] == [b"%d" % n for n in range(len(chunks))]
    assert len(chunks) > 1
    assert reply.body()["object"] == "chat.completion"
    assert reply.body()["choices"][0]["message"]["content"] == text


async def test_a_request_for_an_alias_nobody_configured_is_answered_404(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream() as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("known", up.url))
        await make_topics(settings, more=("unknown",))
        async with calling(settings) as caller, working(settings):
            reply = await caller.ask("unknown")
    assert (reply.status, reply.body()["error"]["code"]) == (404, "model_not_found")


async def test_a_fallback_whose_topic_does_not_exist_ends_in_a_reply_and_a_dead_letter(
    kafka_bootstrap: str, redis_url: str, unique_prefix: str
) -> None:
    async with Upstream(default=Status(500)) as up:
        settings = settings_of(
            kafka_bootstrap, redis_url, unique_prefix, alias("only", up.url, num_retries=0, fallbacks=("no topic!",))
        )
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            reply = await caller.ask("only")
            (letter,) = await caller.letters(1)
    assert reply.status == 500
    assert letter.topic == caller.names.dead


async def test_batch_lane_requests_are_served(kafka_bootstrap: str, redis_url: str, unique_prefix: str) -> None:
    async with Upstream() as up:
        settings = settings_of(kafka_bootstrap, redis_url, unique_prefix, alias("fast", up.url))
        await make_topics(settings)
        async with calling(settings) as caller, working(settings):
            reply = await caller.ask("fast", lane=Lane.BATCH)
            (event,) = await caller.events(reply.request_id, 1)
    assert event.lane == "batch"
