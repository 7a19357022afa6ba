"""The whole life of requests under crashes between any two steps, against the moves that lifecycle.py allows."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.adapters.memory_log import MemoryProducer, MemoryReader
from broker.delivery.lifecycle import FINAL, MOVES, State
from broker.envelope import encode_cancel
from broker.errors import UpstreamError, UpstreamUnreachable
from broker.ports import SendFailure
from broker.records import OutRecord, Partition, Record
from schemas.usage import Outcome, UsageEvent
from tests.unit.workers.world import World, make_alias
from workers.pool import WorkerProcess
from workers.providers.base import Call, CallResult, OnChunk, Usage
from workers.work import Work

FAILURES = {
    "busy": UpstreamError("busy", status=503),
    "wrong": UpstreamError("wrong", status=400),
    "cut": UpstreamUnreachable("the connection broke"),
}
PORT_STEPS = 14
"""Steps at the ports in the life of a single request; crashes are drawn from a little more."""


PATIENCE = 20.0


class CrashPoint:
    """Stops the process at a step: whoever takes it never comes back, and the test then kills the process."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.reached = asyncio.Event()

    async def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.reached.set()
        if self.left <= 0:
            await asyncio.Event().wait()


class Stepped:
    """A port whose methods take a step before and after they do what they do."""

    def __init__(self, inner: object, point: CrashPoint, methods: Sequence[str]) -> None:
        self._inner = inner
        self._point = point
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._wrapped(found) if name in self._methods else found

    def _wrapped(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._point.step()
            result = await method(*args, **kwargs)
            await self._point.step()
            return result

        return call


class SteppedProducer(MemoryProducer):
    """A producer that takes a step before and after it writes."""

    def __init__(self, world: World, point: CrashPoint) -> None:
        super().__init__(world.log)
        self._point = point

    async def send_all(self, records: Sequence[OutRecord]) -> Sequence[SendFailure | None]:
        await self._point.step()
        failures = await super().send_all(records)
        await self._point.step()
        return failures


class Upstream:
    """Answers by a script of its own for each request; counts every call and how many of them came to an end."""

    def __init__(self, script: dict[str, list[str]], point: Callable[[], CrashPoint]) -> None:
        self.script = script
        self.calls: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self._point = point

    async def call(self, call: Call, on_chunk: OnChunk | None = None) -> CallResult:
        del on_chunk
        self.calls[call.request_id] += 1
        await self._point().step()
        planned = self.script[call.request_id]
        what = planned.pop(0) if planned else "good"
        self.ended[call.request_id] += 1
        if what in FAILURES:
            raise FAILURES[what]
        body = b'{"choices": [], "n": %d}' % self.calls[call.request_id]
        return CallResult(body, "model", Usage(3, 0, 0, 2))

    async def close(self) -> None:
        return


async def life(script: dict[str, list[str]], crashes: list[int], *, cancel: bool) -> None:
    """Let workers serve the requests of `script`, each worker but the last dying at its step; check what came of it."""
    world = World(make_alias("fast", num_retries=1, fallbacks=("slow",)), make_alias("slow", num_retries=1))
    point = CrashPoint(0)
    upstream = Upstream(script, lambda: point)
    world.provider = upstream  # type: ignore[assignment] # the same port
    journal = world.journal
    await world.publish("fast", *script)
    if cancel:
        await world.write(encode_cancel(next(iter(script)), world.names, world.clock.now_ms()))
    for at in (*crashes, 0):
        point = CrashPoint(at or 1_000_000)
        methods = ("acquire", "begin", "complete", "published", "release")
        world.journal = Stepped(journal, point, methods)  # type: ignore[assignment] # the same port
        async with world.worker(SteppedProducer(world, point)) as process:
            if at:
                served = asyncio.ensure_future(finished(world, script))
                reached = asyncio.ensure_future(point.reached.wait())
                await asyncio.wait({served, reached}, return_when=asyncio.FIRST_COMPLETED)
                for task in (served, reached):
                    task.cancel()
                await asyncio.gather(served, reached, return_exceptions=True)
                await world.crash(process)
            else:
                await finished(world, script)
                await world.until(lambda: nothing_open(process))
    await check(world, upstream, script, crashed=len(crashes))


def nothing_open(process: WorkerProcess) -> bool:
    return not process.inference.oldest() and process.outbox.backlog == 0


async def finished(world: World, script: dict[str, list[str]]) -> None:
    """Return when every request has its final reply and its billable row."""
    while True:
        replied = {(record.key or b"").decode() for record in await everything(world, world.names.replies)}
        if replied >= script.keys() and {row.request_id for row in await billable(world)} >= script.keys():
            return
        await asyncio.sleep(0.01)


async def everything(world: World, topic: str) -> list[Record]:
    """Return what a topic holds now."""
    reader = MemoryReader(world.log)
    await reader.start()
    await reader.assign({Partition(topic, 0): 0})
    found: list[Record] = []
    while more := await reader.poll(max_records=1_000, timeout=0):
        found += more
    await reader.stop()
    return found


async def events(world: World) -> list[UsageEvent]:
    records = await everything(world, world.names.usage)
    found = {event.usage_id: event for event in (UsageEvent.model_validate_json(each.value or b"") for each in records)}
    return list(found.values())


async def billable(world: World) -> list[UsageEvent]:
    return [event for event in await events(world) if event.billable]


async def check(world: World, upstream: Upstream, script: dict[str, list[str]], *, crashed: int) -> None:
    replies = await everything(world, world.names.replies)
    bodies: dict[bytes | None, set[bytes | None]] = {}
    for record in replies:
        bodies.setdefault(record.key, set()).add(record.value)
    assert {key.decode() for key in bodies if key is not None} == set(script)
    assert {len(each) for each in bodies.values()} == {1}, "a reply with two bodies"
    bills = Counter(event.request_id for event in await billable(world))
    assert bills == dict.fromkeys(script, 1)
    lost = upstream.calls - upstream.ended
    unknown = Counter(event.request_id for event in await events(world) if event.outcome is Outcome.UNKNOWN)
    assert sum(unknown.values()) <= crashed * len(script)
    assert {request_id for request_id, count in lost.items() if count} <= set(unknown), "a waste that no row tells"


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[State, State]]:
    """Every move that works make."""
    made: list[tuple[State, State]] = []
    move = Work.move

    def noted(work: Work, to: State) -> None:
        made.append((work.state, to))
        move(work, to)

    monkeypatch.setattr(Work, "move", noted)
    monkeypatch.setattr("workers.admission.LOOK_AGAIN", 0.05)
    monkeypatch.setattr("tests.unit.workers.world.LEASE_SECONDS", 1.0)
    return made


scripts = st.lists(st.sampled_from(["good", "busy", "wrong", "cut"]), max_size=4)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.dictionaries(st.sampled_from(["a", "b", "c"]), scripts, min_size=1),
    crashes=st.lists(st.integers(1, PORT_STEPS + 6), max_size=2),
    cancel=st.booleans(),
)
def test_every_request_ends_once_whatever_dies_between_two_steps(
    moves: list[tuple[State, State]], script: dict[str, list[str]], crashes: list[int], *, cancel: bool
) -> None:
    asyncio.run(
        asyncio.wait_for(life({key: list(steps) for key, steps in script.items()}, crashes, cancel=cancel), PATIENCE)
    )
    assert {to for _, to in moves} & FINAL
    assert all(to in MOVES[state] for state, to in moves)


@pytest.mark.parametrize("at", range(1, PORT_STEPS + 1))
def test_a_crash_at_each_step_of_a_request_in_turn(moves: list[tuple[State, State]], at: int) -> None:
    asyncio.run(asyncio.wait_for(life({"a": ["busy", "busy"]}, [at], cancel=False), PATIENCE))
    assert all(to in MOVES[state] for state, to in moves)
