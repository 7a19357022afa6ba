"""Gauges of backlog and limits: right when summed over workers, absent where unknown, finite for an autoscaler."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from broker.ledger.money import PICO
from broker.metrics import PREFIX, Metrics
from broker.ports import Granted
from broker.topics import Lane
from workers.gauges import NEVER_SECONDS, BacklogGauges
from workers.snapshot import Identity, LaneNow, Meter, snapshot

PLACE = {"alias": "fast", "lane": "batch"}


class Worker:
    """One worker's meter and gauges."""

    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.gauges = BacklogGauges(self.metrics)
        self.meter = Meter(0.0)
        self.now = 0.0

    def tell(self, seconds: float, now: LaneNow | None) -> Mapping[str, Any]:
        self.now += seconds
        self.meter.roll(self.now)
        said = snapshot(
            Identity("w", "default", "h", 1, 0, "0"),
            now_ms=round(self.now * 1000),
            in_flight=0,
            problems={},
            lanes={} if now is None else {("fast", Lane.BATCH): now},
            meter=self.meter,
            deployments={},
        )
        self.gauges.set_lanes(said)
        return said

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(PREFIX + name, labels or PLACE)


def test_the_backlog_is_told_in_requests_tokens_dollars_and_seconds() -> None:
    worker = Worker()
    for _ in range(20):
        worker.meter.finished("fast", Lane.BATCH, 500, PICO // 100)
    worker.tell(10, LaneNow(partitions=3, unread=950, unfinished=50, waiting=10, oldest_ms=4_000))
    assert worker.value("backlog_requests") == 1_000
    assert worker.value("backlog_tokens") == 500_000
    assert worker.value("backlog_dollars") == pytest.approx(10)
    assert worker.value("drain_seconds") == pytest.approx(1_000 / 2)
    assert worker.value("oldest_request_seconds") == 6


def test_an_estimate_that_is_unknown_is_absent_and_not_zero() -> None:
    worker = Worker()
    worker.meter.finished("fast", Lane.BATCH, 500, None)
    worker.tell(10, LaneNow(unread=10))
    assert (worker.value("backlog_tokens"), worker.value("backlog_dollars")) == (5_000, None)
    worker.tell(10, LaneNow())
    assert (worker.value("backlog_tokens"), worker.value("backlog_dollars")) == (0, 0)
    worker.tell(10, LaneNow(unread=1))
    assert worker.value("backlog_dollars") is None


def test_a_backlog_of_which_nothing_finishes_has_a_finite_time_to_drain() -> None:
    worker = Worker()
    worker.tell(10, LaneNow(unread=10))
    assert worker.value("drain_seconds") == NEVER_SECONDS
    worker.tell(10, LaneNow())
    assert worker.value("drain_seconds") == 0


def test_partitions_that_went_to_another_worker_leave_no_backlog_behind() -> None:
    worker = Worker()
    worker.tell(10, LaneNow(partitions=1, unread=10))
    worker.tell(10, None)
    assert (worker.value("backlog_requests"), worker.value("oldest_request_seconds")) == (0, 0)


def test_a_backlog_nobody_reads_grows_old_all_the_same() -> None:
    worker = Worker()
    worker.tell(10, LaneNow(unread=10))
    worker.tell(25, LaneNow(unread=10))
    assert worker.value("oldest_request_seconds") == 25
    worker.tell(5, LaneNow(unread=10, unfinished=1, oldest_ms=38_000))
    assert worker.value("oldest_request_seconds") == 2
    worker.tell(5, LaneNow(unread=10))
    assert worker.value("oldest_request_seconds") == 0


def test_permits_limits_and_cool_downs_are_told_by_deployment() -> None:
    worker = Worker()
    granted = [
        Granted(slots=4, cooling_for=3.5, concurrency=12, limits={"rpm": 500, "tpm": 1_000}, running=9),
        Granted(blocked_for=math.inf),
    ]
    worker.gauges.set_limits(["fast/0", "fast/1"], granted, {"fast/0": 3})
    # Of this worker alone: 9 calls run over all of them.
    assert worker.value("permits", deployment="fast/0", state="running") == 3
    assert worker.value("permits", deployment="fast/0", state="held") == 4
    assert worker.value("permits", deployment="fast/1", state="held") is None
    assert worker.value("cooling", deployment="fast/0") == 3.5
    assert worker.value("cooling", deployment="fast/1") == NEVER_SECONDS
    assert worker.value("limit", deployment="fast/0", limit="rpm") == 500
    assert worker.value("limit", deployment="fast/0", limit="concurrency") == 12
