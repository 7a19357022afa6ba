"""Finding dead letters and sending them again, over the log in memory."""

from collections.abc import AsyncIterator, Sequence

import orjson
import pytest

from broker.adapters.memory_log import MemoryLog, MemoryProducer, MemoryReader
from broker.clock import ManualClock
from broker.config import Alias, Deployment, Prices, Settings
from broker.envelope import headers as h
from broker.ports import SendFailure
from broker.records import OutRecord
from broker.topics import TopicNames, topic_specs
from workers.dead import DeadLetter, DeadLetters, Estimator, Sought, dead_letter, header_texts

NAMES = TopicNames()
BODY = orjson.dumps({"messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 50})


class Stand:
    """A log with requests that died, one minute apart."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(clock=self.clock)
        for spec in topic_specs(NAMES, ["chat", "embed"]):
            self.log.create(spec.name, 3)
        self.letters = DeadLetters(MemoryReader(self.log), NAMES)

    def kill(  # noqa: PLR0913 - what letters differ in
        self, request_id: str, topic: str = "", value: bytes | None = BODY, *, reason: str = "no JSON",
        code: str = "invalid_request", headers: Sequence[tuple[str, bytes]] = (),
    ) -> str:  # fmt: skip
        """Dead-letter a request; returns where it came from."""
        record = self.log.append(
            OutRecord(topic or NAMES.requests("chat"), value, None, [(h.REQUEST_ID, request_id.encode()), *headers]), 0
        )
        letter = dead_letter(record, reason, code, self.clock.now_ms(), NAMES.dead)
        self.log.append(letter, len(request_id) % 3)
        self.clock.advance(60)
        return f"{record.topic}-0-{record.offset}"

    async def found(self, **sought: object) -> list[str]:
        wanted = Sought(**sought)  # type: ignore[arg-type]
        letters = self.letters.find(wanted, await self.letters.bounds())
        return sorted([letter.request_id async for letter in letters])

    async def replay(self, deadline: int | None = None, **sought: object) -> tuple[dict[str, int], list[str]]:
        letters = self.letters.find(Sought(**sought), await self.letters.bounds())  # type: ignore[arg-type]
        done = await self.letters.replay(letters, MemoryProducer(self.log), deadline)
        return done.sent, [reason for _, reason in done.failed]


@pytest.fixture
def stand() -> Stand:
    return Stand()


async def test_every_letter_is_found_whatever_its_partition(stand: Stand) -> None:
    for number in range(12):
        stand.kill("r" * (number + 1))
    assert len(await stand.found()) == 12


async def test_no_letters_are_found_in_an_empty_topic(stand: Stand) -> None:
    assert await stand.found() == []


async def test_letters_are_found_by_request_id_and_by_origin(stand: Stand) -> None:
    stand.kill("a")
    origin = stand.kill("b")
    stand.kill("c")
    assert await stand.found(ids=frozenset({"a", origin})) == ["a", "b"]


async def test_letters_are_found_by_alias_in_both_lanes(stand: Stand) -> None:
    stand.kill("a")
    stand.kill("b", NAMES.batch("chat"))
    stand.kill("c", NAMES.requests("embed"))
    assert await stand.found(alias="chat") == ["a", "b"]


async def test_letters_are_found_by_code_and_by_a_part_of_the_reason(stand: Stand) -> None:
    stand.kill("a", reason="the body is not JSON")
    stand.kill("b", reason="sent on in vain", code="internal_error")
    assert await stand.found(reason="internal_error") == ["b"]
    assert await stand.found(reason="not json") == ["a"]


async def test_letters_are_found_by_the_time_they_died(stand: Stand) -> None:
    start = stand.clock.now_ms()
    for name in "abcd":
        stand.kill(name)
    assert await stand.found(since=start + 60_000, until=start + 180_000) == ["b", "c"]


async def test_a_record_that_is_no_dead_letter_is_passed_over(stand: Stand) -> None:
    stand.log.append(OutRecord(NAMES.dead, b"?"), 0)
    stand.kill("a")
    assert await stand.found() == ["a"]


async def test_a_replay_sends_letters_to_the_topics_they_came_from(stand: Stand) -> None:
    stand.kill("a")
    stand.kill("b", NAMES.batch("embed"))
    sent, failed = await stand.replay()
    assert (sent, failed) == ({NAMES.requests("chat"): 1, NAMES.batch("embed"): 1}, [])
    again = stand.log.records(NAMES.batch("embed"))[-1]
    assert (again.value, dict(again.headers)) == (BODY, {h.REQUEST_ID: b"b"})


async def test_a_replay_does_not_meet_what_dies_meanwhile(stand: Stand) -> None:
    stand.kill("a")
    bounds = await stand.letters.bounds()
    stand.kill("b")
    assert [letter.request_id async for letter in stand.letters.find(Sought(), bounds)] == ["a"]


async def test_a_parked_request_goes_back_to_the_topic_it_waited_for(stand: Stand) -> None:
    stand.kill("a", NAMES.delay("30s"), headers=[(h.TARGET, NAMES.requests("embed").encode())])
    assert await stand.replay() == ({NAMES.requests("embed"): 1}, [])


async def test_a_target_written_by_a_caller_is_not_believed(stand: Stand) -> None:
    stand.kill("a", headers=[(h.TARGET, b"llm.usage")])
    assert await stand.replay() == ({NAMES.requests("chat"): 1}, [])


async def test_what_cannot_be_sent_is_told_and_holds_up_nothing(stand: Stand) -> None:
    stand.kill("a", NAMES.delay("30s"))
    stand.kill("b", value=None)
    stand.kill("c")
    sent, failed = await stand.replay()
    assert sent == {NAMES.requests("chat"): 1}
    assert sorted(failed) == ["its value was left out", "there is no request in it"]


async def test_a_letter_the_log_refuses_is_told(stand: Stand) -> None:
    stand.kill("a")
    stand.log.fail_sends = lambda _: SendFailure("too large", permanent=True)
    assert await stand.replay() == ({}, ["too large"])


async def test_a_replay_gives_a_new_deadline_where_one_is_asked_for(stand: Stand) -> None:
    stand.kill("a", headers=[(h.DEADLINE, b"1")])
    await stand.replay(deadline=99)
    assert dict(stand.log.records(NAMES.requests("chat"))[-1].headers)[h.DEADLINE] == b"99"


async def test_thousands_of_letters_are_replayed_in_batches(stand: Stand) -> None:
    for number in range(1_234):
        stand.kill(f"r{number:05}")
    sent, failed = await stand.replay()
    assert (sent, failed) == ({NAMES.requests("chat"): 1_234}, [])


def settings() -> Settings:
    prices = Prices(input_cost_per_token="0.001", output_cost_per_token="0.01")
    priced = Deployment(name="chat/0", alias="chat", provider="openai", model="m", prices=prices)
    unpriced = Deployment(name="embed/0", alias="embed", provider="openai", model="nobody-knows-it")
    return Settings(
        aliases={
            "chat": Alias(name="chat", deployments=(priced,)),
            "embed": Alias(name="embed", deployments=(unpriced,)),
        }
    )


async def letters_of(stand: Stand) -> AsyncIterator[DeadLetter]:
    async for letter in stand.letters.find(Sought(), await stand.letters.bounds()):
        yield letter


async def test_the_cost_of_a_replay_is_estimated_from_input_and_output_bound(stand: Stand) -> None:
    stand.kill("a")
    stand.kill("b", NAMES.requests("embed"))
    stand.kill("c", value=b"not JSON")
    stand.kill("d", NAMES.usage)
    stand.kill("e", headers=[(h.DEADLINE, b"1")])
    estimator = Estimator(settings(), stand.letters, stand.clock.now_ms())
    async for letter in letters_of(stand):
        estimator.add(letter)
    total = estimator.total
    assert (total.requests, total.others, total.priced, total.expired) == (4, 1, 3, 1)
    assert total.by_alias == {"chat": 3, "embed": 1}
    # 400 characters are 100 tokens, 4 for the message; 50 come back: 2 × (104 × 0.001 + 50 × 0.01) USD.
    assert total.cost_pico == 2 * (104 * 10**9 + 50 * 10**10)


async def test_the_caller_s_key_is_not_shown(stand: Stand) -> None:
    stand.kill("a", headers=[(h.AUTHORIZATION, b"Bearer sk-secret"), ("tags", b"\xff")])
    (letter,) = [letter async for letter in letters_of(stand)]
    texts = header_texts(letter)
    assert "sk-secret" not in str(letter.record.headers)
    assert texts["tags"] == "\\xff"


async def test_the_caller_s_key_in_a_letter_that_something_else_wrote_is_not_shown(stand: Stand) -> None:
    origin = (h.DEAD_ORIGIN, f"{NAMES.requests('chat')}-0-0".encode())
    stand.log.append(OutRecord(NAMES.dead, BODY, None, [origin, (h.AUTHORIZATION, b"Bearer sk-secret")]), 0)
    (letter,) = [letter async for letter in letters_of(stand)]
    assert header_texts(letter)[h.AUTHORIZATION] == "Bearer ***"
