"""Cancelling by id: what is written, and what is told."""

import asyncio

import pytest

from broker.adapters.memory_journal import MemoryJournal
from broker.adapters.memory_log import MemoryLog, MemoryProducer
from broker.cli.cancel import cancel
from broker.envelope import read_cancel
from broker.errors import Unavailable
from broker.ports import Answer, Ending, SendFailure
from broker.records import Partition
from broker.topics import TopicNames

NAMES = TopicNames()


def answer(status: int) -> Answer:
    return Answer(request_id="r1", status=status, body=b"{}", headers={})


def written(log: MemoryLog) -> list[str]:
    cancels = [read_cancel(record) for record in log.read(Partition(NAMES.control, 0), 0, 10)]
    return [each[0] for each in cancels if each is not None]


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog({NAMES.control: 1})


@pytest.fixture
async def journal() -> MemoryJournal:
    journal = MemoryJournal()
    await journal.start()
    return journal


async def asked(log: MemoryLog, journal: MemoryJournal, *, wait: float) -> Answer | None:
    return await cancel("r1", producer=MemoryProducer(log), journal=journal, names=NAMES, wait=wait)


async def test_a_request_that_has_ended_is_left_alone(log: MemoryLog, journal: MemoryJournal) -> None:
    await journal.complete([Ending(None, "", answer(200))])
    assert (await asked(log, journal, wait=5), written(log)) == (answer(200), [])


async def test_the_outcome_is_told_as_soon_as_it_is_stored(log: MemoryLog, journal: MemoryJournal) -> None:
    cancelling = asyncio.create_task(asked(log, journal, wait=20))
    await log.wait(5)
    await journal.complete([Ending(None, "", answer(499))])
    assert (await cancelling, written(log)) == (answer(499), ["r1"])


async def test_a_request_nobody_has_come_to_keeps_its_cancel(log: MemoryLog, journal: MemoryJournal) -> None:
    assert (await asked(log, journal, wait=0.01), written(log)) == (None, ["r1"])


async def test_a_cancel_that_cannot_be_written_fails(log: MemoryLog, journal: MemoryJournal) -> None:
    log.fail_sends = lambda _: SendFailure("no leader", permanent=False)
    with pytest.raises(Unavailable, match="could not be written: no leader"):
        await asked(log, journal, wait=5)
