from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from broker.embedded.merge import merge


def _page(count: int) -> str:
    registry = CollectorRegistry()
    Counter("requests", "Requests", ["alias"], registry=registry).labels("local").inc(count)
    Histogram("seconds", "Seconds", buckets=(1.0,), registry=registry).observe(0.5)
    return generate_latest(registry).decode()


def test_families_of_all_processes_stand_together_and_apart_by_label() -> None:
    merged = merge({"worker-0": _page(1), "worker-1": _page(2)}).decode()

    assert merged.count("# TYPE requests_total counter") == 1
    assert 'requests_total{alias="local",process="worker-0"} 1.0' in merged.splitlines()
    assert 'requests_total{alias="local",process="worker-1"} 2.0' in merged.splitlines()
    assert 'seconds_bucket{le="1.0",process="worker-1"} 1.0' in merged.splitlines()


def test_a_merged_page_can_be_read_again() -> None:
    families = list(text_string_to_metric_families(merge({"a": _page(1), "b": _page(1)}).decode()))

    assert {"requests", "seconds"} <= {family.name for family in families}


def test_no_pages_give_an_empty_page() -> None:
    assert merge({}) == b""
