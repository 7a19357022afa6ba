"""What a worker says of itself: rates, means, backlog of its own partitions."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.delivery.tracker import PartitionTracker
from broker.records import Partition
from broker.topics import Lane, TopicNames
from workers.snapshot import RATE_SECONDS, REMEMBERED, Identity, LaneMeter, LaneNow, Meter, lanes_now, snapshot

FAST = ("fast", Lane.INTERACTIVE)


def test_rates_are_means_over_the_last_thirty_seconds() -> None:
    meter = Meter(0.0)
    for second in range(1, 121):
        meter.read("fast", Lane.BATCH, 20 if second > 60 else 100)
        for _ in range(10 if second > 60 else 50):
            meter.finished("fast", Lane.BATCH, 100, 5)
        meter.roll(float(second))
    assert meter.lane("fast", Lane.BATCH).rates() == (20.0, 10.0)


def test_a_lane_that_finished_nothing_of_late_has_no_rate_but_keeps_its_means() -> None:
    meter = LaneMeter()
    meter.roll(0.0)
    meter.ended()
    meter.took(300, 7_000)
    for second in range(1, 90):
        meter.roll(float(second))
    assert (meter.rates(), meter.mean_tokens, meter.mean_cost) == ((0.0, 0.0), 300, 7_000)


def test_before_the_first_request_has_finished_the_means_are_unknown() -> None:
    meter = LaneMeter()
    meter.roll(1.0)
    assert (meter.rates(), meter.mean_tokens, meter.mean_cost) == ((0.0, 0.0), None, None)


def test_a_request_without_a_known_price_does_not_make_the_mean_cheaper() -> None:
    meter = LaneMeter()
    meter.took(100, None)
    meter.roll(1.0)
    assert (meter.mean_tokens, meter.mean_cost) == (100, None)
    meter.took(100, 4_000)
    meter.took(100, None)
    meter.roll(2.0)
    assert meter.mean_cost == 4_000


def test_a_request_that_was_refused_or_sent_on_counts_for_the_rate_and_not_for_the_means() -> None:
    meter = LaneMeter()
    meter.roll(0.0)
    meter.ended()
    meter.ended()
    meter.took(80, 400)
    meter.roll(1.0)
    assert (meter.rates(), meter.mean_tokens, meter.mean_cost) == ((0.0, 2.0), 80, 400)


def test_the_means_follow_a_change_of_the_requests() -> None:
    meter = LaneMeter()
    for tokens in (100, 900):
        for second in range(20):
            for _ in range(int(REMEMBERED) // 10):
                meter.took(tokens, tokens)
            meter.roll(float(second))
    assert meter.mean_tokens is not None
    assert 800 < meter.mean_tokens < 900
    assert meter.mean_cost == pytest.approx(meter.mean_tokens)


@given(st.lists(st.tuples(st.floats(0.1, 5), st.integers(0, 50)), min_size=1, max_size=80))
def test_a_rate_is_what_finished_between_the_marks_and_no_more_than_the_window_is_kept(
    steps: list[tuple[float, int]],
) -> None:
    meter, now = LaneMeter(), 0.0
    meter.roll(now)
    done: list[tuple[float, int]] = []
    for pause, count in steps:
        now += pause
        for _ in range(count):
            meter.ended()
        meter.roll(now)
        done.append((now, count))
    # The oldest mark is the last one at or before the window's begin.
    begin = max((at for at, _ in [(0.0, 0), *done] if at <= now - RATE_SECONDS), default=0.0)
    expected = sum(count for at, count in done if at > begin) / (now - begin)
    assert meter.rates()[1] == pytest.approx(expected)


def test_only_partitions_that_are_ours_count() -> None:
    names = TopicNames()
    ours, other = Partition(names.requests("fast"), 0), Partition(names.requests("fast"), 1)
    tracker = PartitionTracker()
    for offset in range(5):
        tracker.receive(offset)
    tracker.finish(0, 0)
    found = lanes_now(
        names,
        assigned=[ours, Partition(names.batch("slow"), 3), Partition("elsewhere", 0)],
        trackers={ours: tracker, other: PartitionTracker()},
        lag={ours: 10, other: 99},
        waiting={FAST: 3, ("slow", Lane.BATCH): 0, ("gone", Lane.BATCH): 1, ("never", Lane.BATCH): 0},
        oldest={FAST: 1_000},
    )
    assert found == {
        FAST: LaneNow(partitions=1, unread=10, unfinished=4, waiting=3, oldest_ms=1_000),
        ("slow", Lane.BATCH): LaneNow(partitions=1),
        ("gone", Lane.BATCH): LaneNow(waiting=1),
    }


def test_a_snapshot_is_json_and_tells_lanes_that_went_to_other_workers_as_empty() -> None:
    meter = Meter(0.0)
    for _ in range(10):
        meter.finished("fast", Lane.INTERACTIVE, 50, 2_000)
    meter.read("gone", Lane.BATCH)
    meter.roll(10.0)
    said = snapshot(
        Identity(worker="w", pool="default", host="h", pid=1, started_ms=5, version="0.1.0"),
        now_ms=10_005,
        in_flight=2,
        problems={"group": "no partition is assigned"},
        lanes={FAST: LaneNow(2, 100, 4, 3, 9_000)},
        meter=meter,
        deployments={"fast/0": 2, "fast/1": 0},
    )
    assert orjson.loads(orjson.dumps(said)) == said
    fast, gone = said["lanes"]
    assert (fast["backlog"], fast["finished_rate"], fast["mean_tokens"], fast["oldest_ms"]) == (104, 1.0, 50, 9_000)
    assert (gone["alias"], gone["lane"], gone["partitions"], gone["backlog"]) == ("gone", "batch", 0, 0)
    assert said["deployments"] == {"fast/0": 2}
    assert said["problems"] == {"group": "no partition is assigned"}
