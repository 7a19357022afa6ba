"""How slots are shared between workers: by need, evenly where all of them lack. Pure; imports nothing."""

from collections.abc import Mapping


def water_filling(cap: int, demands: Mapping[str, int]) -> dict[str, int]:
    """Return each worker's share of `cap` slots: its demand, or the same level as all who lack; the rest by name."""
    shares: dict[str, int] = {}
    left, order = cap, sorted(demands, key=lambda worker: (demands[worker], worker))
    for place, worker in enumerate(order):
        waiting = len(order) - place
        level = left // waiting + (1 if left % waiting and demands[worker] > left // waiting else 0)
        shares[worker] = min(demands[worker], level)
        left -= shares[worker]
    return shares
