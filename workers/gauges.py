"""The gauges for dashboards and autoscalers, set from a worker's snapshot and from what workers share of limits.

Each worker speaks for its own partitions and permits, so that sums over workers are right. Imports metrics and ports.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from prometheus_client import Gauge

from broker.ledger.money import PICO
from broker.metrics import Metrics
from broker.ports import Granted

NEVER_SECONDS: Final = 604_800.0
"""Told as seconds to drain where nothing finishes: 7 days, for which request topics keep a record. An autoscaler that
is told of infinity takes it for an error, and may scale down."""


class BacklogGauges:
    """Sets the gauges of backlog and limits; `set_lanes` and `set_limits` every second or two."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._idle_since: dict[tuple[str, str], int] = {}
        """Since when, unix ms, a lane has had a backlog of which nothing was read."""

    def set_lanes(self, snapshot: Mapping[str, Any]) -> None:
        """Set the gauges of every lane in a worker's snapshot."""
        metrics = self._metrics
        for lane in snapshot["lanes"]:
            place = str(lane["alias"]), str(lane["lane"])
            backlog, rate = lane["backlog"], lane["finished_rate"]
            metrics.backlog_requests.labels(*place).set(backlog)
            _set_known(metrics.backlog_tokens, place, lane["mean_tokens"], backlog)
            cost = lane["mean_cost_pico"]
            _set_known(metrics.backlog_dollars, place, None if cost is None else cost / PICO, backlog)
            drain = 0.0 if not backlog else min(backlog / rate, NEVER_SECONDS) if rate else NEVER_SECONDS
            metrics.drain_seconds.labels(*place).set(drain)
            metrics.oldest_request_seconds.labels(*place).set(self._oldest(place, lane, snapshot["now_ms"]))

    def set_limits(self, deployments: Sequence[str], granted: Sequence[Granted], running: Mapping[str, int]) -> None:
        """Set the gauges of deployments; `running` is this worker's own calls."""
        metrics = self._metrics
        for name, state in zip(deployments, granted, strict=True):
            metrics.permits.labels(name, "running").set(running.get(name, 0))
            if state.slots is not None:
                metrics.permits.labels(name, "held").set(state.slots)
            if state.concurrency is not None:
                metrics.limit.labels(name, "concurrency").set(state.concurrency)
            metrics.cooling.labels(name).set(_finite(max(state.cooling_for, state.blocked_for)))
            for limit, value in state.limits.items():
                metrics.limit.labels(name, limit).set(value)

    def _oldest(self, place: tuple[str, str], lane: Mapping[str, Any], now_ms: int) -> float:
        """Seconds; where nothing was read of a backlog, since it has been so: its records' times are not known."""
        oldest = lane["oldest_ms"]
        if oldest is None and lane["backlog"]:
            oldest = self._idle_since.setdefault(place, now_ms)
        else:
            self._idle_since.pop(place, None)
        return 0.0 if oldest is None else max(0, now_ms - oldest) / 1000


def _set_known(gauge: Gauge, place: tuple[str, str], mean: float | None, backlog: int) -> None:
    """Set an estimate, or leave the series out: an unknown estimate is not zero, but no backlog is."""
    if not backlog:
        gauge.labels(*place).set(0)
    elif mean is not None:
        gauge.labels(*place).set(mean * backlog)
    else:
        with contextlib.suppress(KeyError):
            gauge.remove(*place)


def _finite(seconds: float) -> float:
    return min(seconds, NEVER_SECONDS) if not math.isnan(seconds) else 0.0
