"""One slice of a run: broken seeds of one dialect, and what they ended in."""

import random
import traceback
from collections import Counter
from typing import NamedTuple

from broker.errors import RequestError
from tests.fuzz.mutate import mutated
from tests.fuzz.seeds import seeds


class Found(NamedTuple):
    """What came of a slice: outcomes by name, and the first failure with its bytes."""

    dialect: str
    outcomes: Counter[str]
    failure: str | None


def fuzz(dialect: str, count: int, seed: int) -> Found:
    """Break the seeds of a dialect `count` times."""
    draw = random.Random(f"{seed} {dialect}")  # noqa: S311 - a run that can be repeated
    known, outcomes = seeds()[dialect], Counter[str]()
    for _ in range(count):
        one = draw.choice(known)
        raw = mutated(one.raw, draw)
        try:
            read = one.read(raw)
            outcomes[type(read).__name__ if isinstance(read, RequestError) else f"{one.kind} read"] += 1
        except RequestError as error:
            outcomes[type(error).__name__] += 1
        except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
            return Found(dialect, outcomes, f"{one.kind}: {traceback.format_exc()}\n{raw!r}")
    return Found(dialect, outcomes, None)
