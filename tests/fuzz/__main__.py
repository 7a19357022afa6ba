"""100,000 broken bodies and event streams a dialect: each ends in a typed outcome, never in any other exception.

`python -m tests.fuzz --count 100000 --seed 1` prints what they ended in, a line a dialect, and exits with 1 where
anything else came out, with the bytes that did it. One process a core.
"""

import argparse
import json
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

from tests.fuzz.run import fuzz
from tests.fuzz.seeds import seeds

SLICES: Final = 4
"""Tasks a dialect's count is cut into."""


def main() -> int:
    """Run, print, and say whether all went well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="broken inputs a dialect")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dialect", action="append", help="only these; a golden folder's name")
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    names = sorted(seeds())
    unknown = set(options.dialect or ()) - set(names)
    if unknown or options.count < 1:
        parser.error(f"--dialect: one of {', '.join(names)}" if unknown else "--count: at least 1")
    names = [name for name in names if not options.dialect or name in options.dialect]
    total: dict[str, Counter[str]] = {name: Counter() for name in names}
    failed = False
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        share = -(-options.count // SLICES)
        tasks = [pool.submit(fuzz, name, share, options.seed * 1000 + n) for name in names for n in range(SLICES)]
        for task in tasks:
            found = task.result()
            total[found.dialect].update(found.outcomes)
            if found.failure is not None:
                failed = True
                print(f"{found.dialect}: {found.failure}", file=sys.stderr)  # noqa: T201 - what the command is for
    if options.as_json:
        print(json.dumps(total))  # noqa: T201
    else:
        for name, outcomes in total.items():
            told = ", ".join(f"{kind} {number}" for kind, number in outcomes.most_common())
            print(f"{name}: {outcomes.total()} ({told})")  # noqa: T201
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
