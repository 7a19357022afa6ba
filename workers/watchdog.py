"""Notices a consumer or an event loop that stands still: builds the consumer anew, then ends the process.

Imports the log's ports; what counts as standing still is measured by `workers.watched` and by the request loop.
"""

import asyncio
import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from broker.clock import Clock
from broker.errors import Unavailable
from broker.ports import LogReader
from broker.records import Partition
from workers.watched import WatchedConsumer

log = logging.getLogger(__name__)

EXIT_STUCK: Final = 3
"""Exit code of a process that could not help itself; whoever supervises it starts it anew."""
CHECK_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 5.0
"""After a longer pause between two looks the process was stopped, or its machine slept."""
PROBE_POLLS: Final = 5
PROBE_SECONDS: Final = 1.0
"""How long one of the `PROBE_POLLS` polls that look for an unread record waits."""


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """Seconds after which something counts as stuck."""

    loop: float = 60.0
    """The request loop did not turn, while the event loop did."""
    reading: float = 30.0
    """A partition with room was asked and gave nothing, though a record was there all the while."""
    joining: float = 90.0
    """No assignment came, or none could be adopted: a rebalance may take 20 s, and a dead member 30 s to be noticed."""
    rebuild: float = 60.0
    """A new consumer could not join."""
    calm: float = 600.0
    """Being stuck again within this after a rebuild ends the process: the rebuild did not help."""


async def unread(make_reader: Callable[[], LogReader], positions: Mapping[Partition, int]) -> frozenset[Partition]:
    """Return partitions that hold a record at or above their position, as a reader of its own finds them.

    An end offset would not do: the markers of transactions count in it and are never handed out. Raises `Unavailable`:
    then the log is away and no consumer is to blame.
    """
    reader = make_reader()
    await reader.start()
    try:
        behind: dict[Partition, int] = {}
        for topic in sorted({partition.topic for partition in positions}):
            for partition, (first, end) in (await reader.bounds(topic)).items():
                if partition in positions and (start := max(first, positions[partition])) < end:
                    behind[partition] = start
        found: set[Partition] = set()
        for _ in range(PROBE_POLLS):
            if left := {partition: start for partition, start in behind.items() if partition not in found}:
                await reader.assign(left)
                records = await reader.poll(max_records=len(left), timeout=PROBE_SECONDS)
                found.update(Partition(record.topic, record.partition) for record in records)
        return frozenset(found)
    finally:
        await reader.stop()


class Watchdog:
    """Looks once a second; for one event loop. `problem` is for `/ready`, `wait` for whoever ends the process."""

    def __init__(  # noqa: PLR0913 - what it looks at
        self,
        *,
        consumer: WatchedConsumer,
        turned: Callable[[], float],
        adopted: Callable[[], bool],
        make_reader: Callable[[], LogReader],
        clock: Clock,
        limits: WatchLimits | None = None,
    ) -> None:
        """`turned`: when the request loop last turned; `adopted`: whether an assignment's positions are known."""
        self._consumer = consumer
        self._turned = turned
        self._adopted = adopted
        self._make_reader = make_reader
        self._clock = clock
        self._limits = limits or WatchLimits()
        self._task: asyncio.Task[None] | None = None
        self._given_up = asyncio.Event()
        self._looked = clock.monotonic()
        self._unadopted_since: float | None = None
        self._gone_since = 0.0
        self._rebuilt: float | None = None
        self._away = False
        self._suspects: dict[Partition, int] = {}
        """Partitions where the last look found a record that had not been handed out, and the offset to come next."""
        self.problem: str | None = None
        """Why this process cannot read; None while it can, as far as can be told."""

    def start(self) -> None:
        """Begin to look; after the consumer was started."""
        self._looked = self._clock.monotonic()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="watchdog")

    async def stop(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def wait(self) -> str:
        """Return why the process has to end, once it has to: calls in flight may finish, then `EXIT_STUCK`."""
        await self._given_up.wait()
        return str(self.problem)

    async def check(self) -> None:
        """Look once, and do what has to be done. Raises nothing."""
        now = self._clock.monotonic()
        paused, self._looked = now - self._looked > PAUSE_SECONDS, now
        if paused or self._given_up.is_set():
            return  # after a pause of the whole process everything looks old; the next look tells
        if self._consumer.absent:
            await self._join_again(now)
            return
        try:
            trouble = await self._trouble(now)
        except Unavailable as error:
            self.problem = f"the log cannot be reached: {error}"
            self._away = True
            self._consumer.patience()
            self._suspects.clear()
            self._unadopted_since = None
            return
        finally:
            self._looked = self._clock.monotonic()
        if trouble is not None:
            await self._help(trouble)
            return
        self.problem = None
        if self._rebuilt is not None and now - self._rebuilt > self._limits.calm:
            self._rebuilt = None

    async def _trouble(self, now: float) -> str | None:
        """Return what is stuck. Raises `Unavailable` where it is the log that does not answer."""
        limits, consumer = self._limits, self._consumer
        if self._away:
            await self._ask_log()
            self._away = False
        if (age := now - self._turned()) > limits.loop:
            return f"the request loop did not turn for {age:.0f} s"
        if (since := consumer.joining_since) is not None and now - since > limits.joining:
            await self._ask_log()
            if consumer.joining_since == since:
                return f"the group gave no assignment for {now - since:.0f} s"
        if self._adopted():
            self._unadopted_since = None
        elif self._unadopted_since is None:
            self._unadopted_since = now
        elif now - self._unadopted_since > limits.joining:
            await self._ask_log()
            if not self._adopted():
                return f"positions of the assignment cannot be read for {now - self._unadopted_since:.0f} s"
        if hungry := consumer.hungry(limits.reading):
            return await self._starved(hungry)
        return None

    async def _starved(self, hungry: Mapping[Partition, int]) -> str | None:
        """Tell hungry from idle: only who is found twice with the same record unread has not been given it."""
        found = await unread(self._make_reader, hungry)
        waiting = self._consumer.hungry(self._limits.reading)
        for partition in sorted(found & waiting.keys()):
            if self._suspects.get(partition) == waiting[partition]:
                return (
                    f"{partition.topic}-{partition.partition} was asked for {self._limits.reading:.0f} s and gave "
                    f"nothing, though it holds records from offset {waiting[partition]} on"
                )
        self._suspects = {partition: hungry[partition] for partition in found}
        self._consumer.fed(list(hungry))
        return None

    async def _ask_log(self) -> None:
        """Raise `Unavailable` where the log does not answer a client of its own."""
        await unread(self._make_reader, {})

    async def _help(self, trouble: str) -> None:
        if self._rebuilt is not None:
            self._end(f"{trouble}, {self._clock.monotonic() - self._rebuilt:.0f} s after its consumer was built anew")
            return
        self.problem = trouble
        log.error("the consumer is stuck and is built anew: %s", trouble)
        self._unadopted_since = None
        self._suspects.clear()
        await self._consumer.give_up()
        self._gone_since = self._looked = self._clock.monotonic()
        await self._join_again(self._gone_since)

    async def _join_again(self, now: float) -> None:
        try:
            await self._consumer.start_again()
        except Unavailable as error:
            if now - self._gone_since <= self._limits.rebuild:
                return
            try:
                await self._ask_log()
            except Unavailable:
                self._gone_since = now  # the log is away for everybody; a new process would not reach it either
            else:
                self._end(f"{self.problem}; no new consumer can join: {error}")
        else:
            self._rebuilt = self._clock.monotonic()
            log.warning("a new consumer has been started")
        finally:
            self._looked = self._clock.monotonic()

    def _end(self, why: str) -> None:
        self.problem = why
        log.critical("this process ends with exit code %d, to be started anew: %s", EXIT_STUCK, why)
        self._given_up.set()

    async def _run(self) -> None:
        while not self._given_up.is_set():
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self.check()
            except Exception:  # what watches the others must not end before them
                log.exception("the watchdog failed")


def _dump() -> None:
    faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)


class LoopGuard:
    """A daemon thread that ends the process when its event loop stands still, whatever holds it.

    `beat` is called by the event loop, `look` by the thread. Time in which the thread did not run either (a process
    that was stopped, a machine that slept) does not count.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        warn_after: float = 10.0,
        exit_after: float = 60.0,
        leave: Callable[[int], None] = os._exit,
        dump: Callable[[], None] = _dump,
    ) -> None:
        """Seconds without a beat until the stack is logged, and until the process ends; `leave` must not return."""
        self._clock = clock
        self._warn_after = warn_after
        self._exit_after = exit_after
        self._leave = leave
        self._dump = dump
        self._beats = self._seen = 0
        self._silent = 0.0
        self._left = float("inf")
        self._looked = clock.monotonic()
        self._warned = False
        self._done = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to beat in the running event loop, and to look in a thread."""
        self._looked = self._clock.monotonic()
        self._task = asyncio.get_running_loop().create_task(self._beating(), name="heartbeat")
        threading.Thread(target=self._looking, name="loop-guard", daemon=True).start()

    def stop(self) -> None:
        """End both; does not wait for the thread."""
        self._done.set()
        if self._task is not None:
            self._task.cancel()

    def allow(self, seconds: float) -> None:
        """End the process after so many seconds in any case: it is to end by itself before."""
        self._left = seconds

    def beat(self) -> None:
        """Note that the event loop turns."""
        self._beats += 1

    def look(self) -> None:
        """See whether the event loop has beaten since the last look."""
        now = self._clock.monotonic()
        passed, self._looked = min(now - self._looked, 2 * CHECK_SECONDS), now
        self._left -= passed
        if self._beats != self._seen:
            self._seen, self._silent, self._warned = self._beats, 0.0, False
        else:
            self._silent += passed
        if self._silent > self._warn_after and not self._warned:
            self._warned = True
            log.error("the event loop has stood still for %.0f s; the stack of every thread follows", self._silent)
            self._dump()
        if self._silent > self._exit_after or self._left <= 0:
            why = "it did not stop in time" if self._left <= 0 else f"its loop stood still for {self._silent:.0f} s"
            log.critical("this process ends at once with exit code %d: %s", EXIT_STUCK, why)
            self._leave(EXIT_STUCK)

    async def _beating(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(CHECK_SECONDS)

    def _looking(self) -> None:
        while not self._done.wait(CHECK_SECONDS):
            self.look()
