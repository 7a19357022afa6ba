"""The provider of a chaos run: answers after a while, fails now and then, and counts paid calls by request id.

As a process: `python -m tests.chaos.upstream --seed 1` prints `{"url": …}`; `GET /-/stats` tells what was paid for.
Every answer has a text of its own, so that two calls of one request can be told from one answer published twice.
"""

import argparse
import asyncio
import json
import random
import resource
from collections import Counter
from typing import Any, Final

from tests.upstream import Ok, ReceivedCall, Status, Step, Upstream

FAILURES: Final = 0.01
"""Part of the calls that is answered 500, which costs nothing and is tried again."""
FRAIL: Final = "frail"
"""Models whose name starts so always fail: their requests are rerouted."""


class Provider(Upstream):
    """Knows of a request only how often it was paid for: a run is too long to keep bodies."""

    def __init__(self, low: float, high: float, seed: int, port: int = 0) -> None:
        super().__init__(port)
        self._range = low, high
        self._random = random.Random(seed)  # noqa: S311 - a run that can be repeated, no secret
        self.paid: Counter[str] = Counter()
        self.refused = 0
        self.cut = 0
        """Calls whose caller went away before it had the answer."""
        self._costly: set[int] = set()

    def begin(self, call: ReceivedCall) -> Step:
        """Count a call and choose what it gets."""
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        if call.model.startswith(FRAIL) or self._random.random() < FAILURES:
            self.refused += 1
            return Status(500, delay=0.1)
        self.paid[call.request_id] += 1
        self._costly.add(id(call))
        return Ok(text=f"answer {self.paid.total()} to {call.request_id}", delay=self._random.uniform(*self._range))

    def end(self, call: ReceivedCall, *, disconnected: bool) -> None:
        """Count a call that was cut off."""
        self.in_flight -= 1
        if id(call) in self._costly:
            self._costly.discard(id(call))
            self.cut += disconnected

    def stats(self) -> dict[str, Any]:
        """What `GET /-/stats` answers."""
        return {
            "in_flight": self.in_flight,
            "peak": self.peak,
            "paid": self.paid.total(),
            "refused": self.refused,
            "cut": self.cut,
            "again": {request_id: count for request_id, count in self.paid.items() if count > 1},
        }


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--low", type=float, default=3.0, help="seconds a call takes at least")
    parser.add_argument("--high", type=float, default=6.0, help="and at most")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard >= 0 else 10_240, hard))

    async def serve() -> None:
        async with Provider(options.low, options.high, options.seed) as provider:
            print(json.dumps({"url": provider.url}), flush=True)  # noqa: T201 - tells who started it where it listens
            await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
