"""Who waits for whom when one tenant fills the queue: a simulated clock, the product's own order. `make fairness`.

100,000 batch requests of tenant a stand in the queue of one deployment with a few permits. Ten interactive requests of
tenant b come one by one; then two batch tenants compete with weights 3:1. Nothing here measures time.
"""

import heapq
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import click

from broker.limits.fairness import FairQueue, Lanes

PERMITS = 5
QUEUED = 100_000
INTERACTIVE = 10
WEIGHTS = {"heavy": 3.0, "light": 1.0}
FAR = 10**15


@dataclass(frozen=True)
class Request:
    """One request: its number, who pays, and its estimated tokens."""

    number: int
    tenant: str
    tokens: int


class Deployment:
    """`PERMITS` calls at once, each 0.5 s and 10 ms a token; starts what the lanes hand out."""

    def __init__(self, lanes: Lanes[Request], rng: random.Random) -> None:
        self.lanes = lanes
        self.now = 0.0
        self.started: list[Request] = []
        self._rng = rng
        self._running: list[tuple[float, int]] = []
        self._numbers = 0

    def add(self, queue: FairQueue[Request], tenant: str, tokens: int) -> Request:
        """Queue a request."""
        self._numbers += 1
        request = Request(self._numbers, tenant, tokens)
        queue.add(request, tenant, tokens, tokens // 2, 0, FAR, self._numbers)
        return request

    def size(self) -> int:
        """Draw the tokens of a request."""
        return self._rng.randint(50, 3_000)

    def turn(self) -> None:
        """Give every free permit away, then let the call that is done first end."""
        while len(self._running) < PERMITS and (lane := self.lanes.next()) is not None:
            request = self.lanes.take(lane)
            self.started.append(request)
            heapq.heappush(self._running, (self.now + 0.5 + request.tokens / 100, request.number))
        if self._running:
            self.now, _ = heapq.heappop(self._running)

    def run(self, until: Callable[[], bool]) -> None:
        """Take turns until `until()`."""
        while not until():
            self.turn()


def interactive(rng: random.Random) -> dict[str, object]:
    """Count the permits that went to others between the arrival of each interactive request and its start."""
    here = Deployment(Lanes(0.05), rng)
    for _ in range(QUEUED):
        here.add(here.lanes.batch, "a", here.size())
    here.run(lambda: len(here.started) >= 100)
    waits = []
    for _ in range(INTERACTIVE):
        before = len(here.started)
        mine = here.add(here.lanes.interactive, "b", here.size())
        here.run(lambda mine=mine: mine in here.started[-PERMITS - 1 :])  # type: ignore[misc]
        waits.append(here.started.index(mine) - before)
    together = len(here.started)
    crowd = [here.add(here.lanes.interactive, "b", here.size()) for _ in range(1_000)]
    here.run(lambda: crowd[-1] in here.started[-PERMITS - 1 :])
    part = here.started[together:]
    floor = sum(request.tenant == "a" for request in part) / len(part)
    return {"permits_to_others": waits, "batch_share_beside_1000_interactive": round(floor, 4)}


def shares(rng: random.Random) -> dict[str, object]:
    """Measure the tokens that two batch tenants of weight 3:1 get while both have requests waiting."""
    here = Deployment(Lanes(0.05, WEIGHTS), rng)
    for _ in range(QUEUED // 2):
        here.add(here.lanes.batch, "heavy", here.size())
        here.add(here.lanes.batch, "light", here.size() // 4 + 1)
    here.run(lambda: len(here.started) >= 20_000)
    tokens: Counter[str] = Counter()
    for request in here.started:
        tokens[request.tenant] += request.tokens
    return {"tokens": dict(tokens), "ratio": round(tokens["heavy"] / tokens["light"], 3)}


@click.command()
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(seed: int, *, as_json: bool) -> None:
    """Show who waits for whom. Exit code 1 where a bar of limits.md is missed."""
    rng = random.Random(seed)  # noqa: S311 - a simulation that can be repeated
    first, second = interactive(rng), shares(rng)
    waits = first["permits_to_others"]
    ratio = second["ratio"]
    if not isinstance(waits, list) or not isinstance(ratio, float):
        raise TypeError(type(waits), type(ratio))
    floor = first["batch_share_beside_1000_interactive"]
    if as_json:
        click.echo(json.dumps({"seed": seed, "interactive": first, "shares": second}))
    else:
        click.echo(f"{QUEUED:,} batch requests of tenant a, {PERMITS} permits, seed {seed}")
        click.echo(f"permits that went to others before each of {INTERACTIVE} interactive requests of b: {waits}")
        click.echo(f"share of the starts that batch keeps beside 1,000 interactive requests: {floor}")
        click.echo(f"tokens of two batch tenants of weight 3:1: {ratio}:1 (bar 2.85–3.15)")
    sys.exit(0 if max(waits) == 0 and abs(ratio - 3) <= 0.15 else 1)  # limits.md: ± 5 %


if __name__ == "__main__":
    main()
