"""What a chaos run does to the stand: one coroutine a fault. Each ends when the stand is whole again.

A fault returns how many calls it may have made necessary twice: those in flight where a worker died or stood still.
"""

import asyncio
import math
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from tests.chaos.stand import CUT_WORKER, LEASE_SECONDS, Process, Stand

RESTART_S: Final = 3.0
"""What an orchestrator takes to start a killed process again."""
SESSION_S: Final = 30.0
"""After which the log gives a dead member's partitions away (delivery.md)."""
FROZEN_S: Final = LEASE_SECONDS + 10
CUT_S: Final = SESSION_S + 10
LEDGER_AWAY_S: Final = 60.0

Fault = Callable[[Stand, random.Random], Awaitable[int]]


async def nothing(stand: Stand, rng: random.Random) -> int:
    """Nothing happens: what a run without faults looks like."""
    del stand, rng
    await asyncio.sleep(10)
    return 0


async def _calls(worker: Process) -> int:
    """Return the calls of a worker, and a few for those it starts between the question and what comes next."""
    return math.ceil(await worker.calls() * 1.05) + 5


async def _kill(worker: Process) -> int:
    calls = await _calls(worker)
    await worker.kill()
    return calls


async def kill_worker(stand: Stand, rng: random.Random) -> int:
    """One worker dies and is started again at once, under its name in the group."""
    with stand.victims(rng) as (worker,):
        calls = await _kill(worker)
        await asyncio.sleep(RESTART_S)
        await worker.start()
    return calls


async def kill_two_workers(stand: Stand, rng: random.Random) -> int:
    """Two workers die and stay away until the others have their partitions."""
    with stand.victims(rng, 2) as victims:
        calls = sum(await asyncio.gather(*map(_kill, victims)))
        await asyncio.sleep(SESSION_S + 5)
        await asyncio.gather(*(worker.start() for worker in victims))
    return calls


async def kill_broker(stand: Stand, rng: random.Random) -> int:
    """A broker dies and comes back."""
    number = rng.randrange(3)
    await stand.cluster.kill(number)
    await asyncio.sleep(10)
    await stand.cluster.restart(number)
    return 0


async def freeze_worker(stand: Stand, rng: random.Random) -> int:
    """A worker stands still for longer than its leases last, then goes on as if nothing had been."""
    with stand.victims(rng) as (worker,):
        calls = await _calls(worker)
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(FROZEN_S)
        worker.signal(signal.SIGCONT)
        await worker.until_ready()
    return calls


async def cut_network(stand: Stand, rng: random.Random) -> int:
    """A worker reaches Redis and the provider, but no broker, for longer than its session lasts."""
    del rng
    stand.cluster.cut()
    await asyncio.sleep(CUT_S)
    stand.cluster.heal()
    await stand.workers[CUT_WORKER].until_ready()
    return 0


async def restart_redis(stand: Stand, rng: random.Random) -> int:
    """Redis dies and comes back with what it had written a second before."""
    del rng
    await stand.redis_dies(empty=False)
    return 0


async def empty_redis(stand: Stand, rng: random.Random) -> int:
    """Redis dies and comes back with nothing: no lease, no answer, no limit."""
    del rng
    await stand.redis_dies(empty=True)
    return 0


async def kill_sink(stand: Stand, rng: random.Random) -> int:
    """The sink dies and is started again."""
    del rng
    await stand.sink.kill()
    await asyncio.sleep(RESTART_S)
    await stand.sink.start()
    return 0


async def ledger_away(stand: Stand, rng: random.Random) -> int:
    """ClickHouse is away for a minute."""
    del rng
    await stand.clickhouse_leaves()
    await asyncio.sleep(LEDGER_AWAY_S)
    await stand.clickhouse_comes_back()
    return 0


async def rolling_restart(stand: Stand, rng: random.Random) -> int:
    """Every worker is stopped and started, one after the other, as in a deployment."""
    del rng
    for worker in stand.workers:
        await worker.stop()
        await worker.start()
    return 0


FAULTS: Final[dict[str, Fault]] = {
    "none": nothing,
    "kill a worker": kill_worker,
    "kill two workers": kill_two_workers,
    "kill a broker": kill_broker,
    "freeze a worker": freeze_worker,
    "cut a worker off": cut_network,
    "restart Redis": restart_redis,
    "empty Redis": empty_redis,
    "kill the sink": kill_sink,
    "ClickHouse away": ledger_away,
    "rolling restart": rolling_restart,
}

MIXED: Final = (
    "kill a worker",
    "kill a broker",
    "restart Redis",
    "kill the sink",
    "cut a worker off",
    "freeze a worker",
)


def mixed(rng: random.Random) -> tuple[str, Fault]:
    """Choose three faults and moments of their own for them, so that they meet; return their names and the whole."""
    chosen = rng.sample(MIXED, 3)
    delays = [rng.uniform(0, 10) for _ in chosen]

    async def later(stand: Stand, name: str, delay: float) -> int:
        await asyncio.sleep(delay)
        return await FAULTS[name](stand, rng)

    async def together(stand: Stand, _: random.Random) -> int:
        calls = await asyncio.gather(*(later(stand, *each) for each in zip(chosen, delays, strict=True)))
        return sum(calls)

    return " + ".join(chosen), together
