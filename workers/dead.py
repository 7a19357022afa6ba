"""Dead letters: finding them, what serving them again would cost, sending them again. Imports the core."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from broker.config import Settings
from broker.envelope import headers as h
from broker.envelope.dead import DeadLetter, dead_letter, read_dead
from broker.ledger.estimate import estimate_tokens
from broker.ledger.prices import PriceTable
from broker.ports import LogProducer, LogReader, Record
from broker.records import OutRecord, Partition
from broker.topics import Lane, TopicNames
from workers.providers.base import Usage

__all__ = ["DeadLetter", "DeadLetters", "Estimate", "Estimator", "Sought", "dead_letter", "read_dead"]

POLL_RECORDS: Final = 1_000
POLL_SECONDS: Final = 1.0
SILENT_POLLS: Final = 5
"""Polls without a record after which a partition's end is taken as read: its last offsets may hold no record."""
SEND_RECORDS: Final = 500

Bounds = Mapping[Partition, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """Which dead letters are meant; what is None or empty does not narrow. Times are unix milliseconds."""

    ids: frozenset[str] = frozenset()
    """Request ids, or places of origin."""
    alias: str | None = None
    reason: str | None = None
    """The code, or a part of the reason in any case."""
    since: int | None = None
    until: int | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing narrows it."""
        return self == Sought()

    def matches(self, letter: DeadLetter, alias: str | None) -> bool:
        """Whether a letter of `alias` is meant."""
        return (
            (not self.ids or letter.request_id in self.ids or letter.origin in self.ids)
            and (self.alias is None or self.alias == alias)
            and (self.reason is None or self.reason == letter.code or self.reason.lower() in letter.reason.lower())
            and (self.since is None or letter.at >= self.since)
            and (self.until is None or letter.at < self.until)
        )


class DeadLetters:
    """Reads the dead-letter topic and sends what is in it again. Reader and producer are started by the caller."""

    def __init__(self, reader: LogReader, names: TopicNames) -> None:
        self._reader = reader
        self._names = names

    def destination(self, letter: DeadLetter) -> str | None:
        """Topic a letter can be served from: its own, or the one it was parked for; None where there is none."""
        names = self._names
        if names.parse(letter.origin_topic) is not None or letter.origin_topic == names.usage:
            return letter.origin_topic
        return letter.target if names.parse(letter.target) is not None else None

    def place(self, letter: DeadLetter) -> tuple[str, Lane] | None:
        """Alias and lane of a letter; None for what is no request."""
        return self._names.parse(self.destination(letter) or "")

    async def bounds(self) -> Bounds:
        """First and end offset of each partition now: a replay must not meet letters of its own making."""
        return await self._reader.bounds(self._names.dead)

    async def find(self, sought: Sought, bounds: Bounds) -> AsyncIterator[DeadLetter]:
        """Yield the letters that are meant, in the order of each partition. Raises `Unavailable`."""
        async for record in self._records(sought, bounds):
            letter = read_dead(record)
            if letter is None:
                continue
            place = self.place(letter)
            if sought.matches(letter, place[0] if place else None):
                yield letter

    async def _records(self, sought: Sought, bounds: Bounds) -> AsyncIterator[Record]:
        start = {partition: first for partition, (first, _) in bounds.items()}
        if sought.since is not None:
            later = await self._reader.offsets_at(self._names.dead, sought.since)
            start = {partition: max(first, later.get(partition, first)) for partition, first in start.items()}
        left = {partition: end for partition, (_, end) in bounds.items() if start[partition] < end}
        await self._reader.assign({partition: start[partition] for partition in left})
        silent = 0
        while left and silent < SILENT_POLLS:
            records = await self._reader.poll(max_records=POLL_RECORDS, timeout=POLL_SECONDS)
            silent = 0 if records else silent + 1
            for record in records:
                partition = Partition(record.topic, record.partition)
                if record.offset < bounds[partition][1]:
                    yield record
                if record.offset >= bounds[partition][1] - 1:
                    left.pop(partition, None)

    async def replay(
        self, letters: AsyncIterator[DeadLetter], producer: LogProducer, deadline: int | None = None
    ) -> "Replayed":
        """Send letters to the topics they came from, each under its request id. Raises `Unavailable`."""
        done = Replayed()
        batch: list[tuple[DeadLetter, OutRecord]] = []
        async for letter in letters:
            topic = self.destination(letter)
            if topic is None or letter.record.value is None:
                done.failed.append((letter, "there is no request in it" if topic is None else "its value was left out"))
                continue
            batch.append((letter, letter.replayed(topic, deadline)))
            if len(batch) == SEND_RECORDS:
                await self._send(batch, producer, done)
                batch.clear()
        await self._send(batch, producer, done)
        return done

    @staticmethod
    async def _send(batch: Sequence[tuple[DeadLetter, OutRecord]], producer: LogProducer, done: "Replayed") -> None:
        if not batch:
            return
        failures = await producer.send_all([record for _, record in batch])
        for (letter, record), failure in zip(batch, failures, strict=True):
            if failure is None:
                done.sent[record.topic] = done.sent.get(record.topic, 0) + 1
            else:
                done.failed.append((letter, failure.reason))


@dataclass(slots=True)
class Replayed:
    """What a replay did: records sent by topic, and letters that could not be sent, with the reason."""

    sent: dict[str, int] = field(default_factory=dict)
    failed: list[tuple[DeadLetter, str]] = field(default_factory=list)


@dataclass(slots=True)
class Estimate:
    """What serving letters again may cost, pico-dollars; only `priced` of `requests` letters are in it."""

    requests: int = 0
    others: int = 0
    """Letters that hold no request."""
    priced: int = 0
    cost_pico: int = 0
    expired: int = 0
    """Letters whose deadline has passed: without a new one they end at once."""
    by_alias: dict[str, int] = field(default_factory=dict)


class Estimator:
    """Adds up letters: tokens as limits guess them, prices of each alias's first deployment."""

    def __init__(self, settings: Settings, letters: DeadLetters, now_ms: int) -> None:
        self._aliases = settings.aliases
        self._letters = letters
        self._now = now_ms
        deployments = [deployment for alias in settings.aliases.values() for deployment in alias.deployments]
        self._prices = PriceTable.compile(deployments, settings.price_overrides, now_ms)
        self.total = Estimate()

    def add(self, letter: DeadLetter) -> None:
        """Count one letter."""
        total, place = self.total, self._letters.place(letter)
        if place is None:
            total.others += 1
            return
        total.requests += 1
        total.by_alias[place[0]] = total.by_alias.get(place[0], 0) + 1
        total.expired += letter.deadline is not None and letter.deadline <= self._now
        cost = self._cost(letter, *place)
        if cost is not None:
            total.priced += 1
            total.cost_pico += cost

    def _cost(self, letter: DeadLetter, alias: str, lane: Lane) -> int | None:
        known = self._aliases.get(alias)
        if known is None or not known.deployments:
            return None
        try:
            body = orjson.loads(letter.record.value or b"")
        except orjson.JSONDecodeError:
            return 0  # refused before any call, as it was the first time
        if not isinstance(body, dict):
            return 0
        tokens = estimate_tokens(body)
        read = estimate_tokens({**body, "max_tokens": 0, "max_completion_tokens": 0})
        usage = Usage(input_tokens=read, output_tokens=tokens - read)
        return self._prices.price(known.deployments[0].name, "", usage, None, lane, self._now).cost_pico


def header_texts(letter: DeadLetter) -> dict[str, str]:
    """Headers of a letter for people to read, the caller's key masked."""
    texts = {name: value.decode(errors="backslashreplace") for name, value in letter.record.headers}
    if h.AUTHORIZATION in texts:
        texts[h.AUTHORIZATION] = "Bearer ***"
    return texts
