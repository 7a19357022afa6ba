"""Counters and histograms of one thread say what prometheus_client's own would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from broker.series import CounterFamily, HistogramFamily

BOUNDS = (0.1, 1, 2.5)


def lines(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(st.lists(st.floats(0, 5) | st.sampled_from(BOUNDS), max_size=20))
def test_a_histogram_reads_as_the_library_s_own(values: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    family = HistogramFamily("wait_seconds", "Waiting", ["alias"], BOUNDS, ours)
    reference = Histogram("wait_seconds", "Waiting", ["alias"], buckets=BOUNDS, registry=theirs)
    for value in values:
        family.labels("a").observe(value)
        reference.labels("a").observe(value)
    assert lines(ours) == lines(theirs)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=20))
def test_a_counter_reads_as_the_library_s_own(steps: list[tuple[str, int]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    family = CounterFamily("things_total", "Things", ["kind"], ours)
    reference = Counter("things_total", "Things", ["kind"], registry=theirs)
    for kind, amount in steps:
        family.labels(kind).inc(amount)
        reference.labels(kind).inc(amount)
    assert lines(ours) == lines(theirs)


def test_without_labels_a_series_is_there_from_the_start() -> None:
    registry = CollectorRegistry()
    CounterFamily("things_total", "Things", [], registry).inc()
    HistogramFamily("wait_seconds", "Waiting", [], BOUNDS, registry).observe(0.5)
    assert registry.get_sample_value("things_total") == 1
    assert registry.get_sample_value("wait_seconds_count") == 1


def test_a_wrong_number_of_label_values_is_refused() -> None:
    family = CounterFamily("things_total", "Things", ["kind"], CollectorRegistry())
    with pytest.raises(ValueError, match=r"things_total has the labels \('kind',\), not 2 values"):
        family.labels("a", "b")


def test_a_name_is_registered_once() -> None:
    registry = CollectorRegistry()
    CounterFamily("things_total", "Things", [], registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        CounterFamily("things_total", "Things", [], registry)
