"""The metrics: names, bounded labels, and what one attempt leaves behind."""

import re
from decimal import Decimal
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from broker.metrics import MAX_TENANTS, OTHER, PREFIX, Metrics
from broker.topics import Lane
from schemas.usage import Outcome


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(PREFIX + name, labels)


def test_one_attempt_shows_in_every_series_it_touches() -> None:
    metrics = Metrics(CollectorRegistry())
    children = metrics.attempt_children("local", "local/0", "openai", "acme", Lane.BATCH)
    children.request.waited(0.02)
    children.started()
    assert value(metrics, "in_flight", alias="local", deployment="local/0") == 1
    children.finished(Outcome.ANSWERED, upstream_seconds=1.5, ttft_seconds=0.3)
    children.used(Decimal("0.25"), input=10, output=5)
    children.request.final(Outcome.ANSWERED)

    assert value(metrics, "in_flight", alias="local", deployment="local/0") == 0
    attempt = {"alias": "local", "deployment": "local/0", "provider": "openai", "outcome": "answered"}
    assert value(metrics, "attempts_total", **attempt) == 1
    request = {"alias": "local", "lane": "batch", "tenant": "acme", "outcome": "answered"}
    assert value(metrics, "requests_total", **request) == 1
    where = {"alias": "local", "deployment": "local/0"}
    assert value(metrics, "upstream_seconds_bucket", **where, le="2.0") == 1
    assert value(metrics, "upstream_seconds_bucket", **where, le="1.0") == 0
    assert value(metrics, "time_to_first_token_seconds_count", **where) == 1
    assert value(metrics, "queue_wait_seconds_count", alias="local", lane="batch") == 1
    assert value(metrics, "tokens_total", **where, tenant="acme", kind="input") == 10
    assert value(metrics, "cost_dollars_total", **where, tenant="acme") == 0.25
    assert value(metrics, "unpriced_total", **where) == 0


def test_an_attempt_without_a_price_is_counted_as_unpriced_and_adds_no_cost() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.attempt_children("local", "local/0", "openai", "acme", Lane.BATCH).used(None, input=10)
    assert value(metrics, "unpriced_total", alias="local", deployment="local/0") == 1
    assert value(metrics, "cost_dollars_total", alias="local", deployment="local/0", tenant="acme") == 0


def test_every_outcome_is_counted_as_itself() -> None:
    metrics = Metrics(CollectorRegistry())
    children = metrics.attempt_children("a", "a/0", "openai", "t", Lane.BATCH)
    for outcome in Outcome:
        children.started()
        children.finished(outcome, upstream_seconds=1)
        children.skipped(outcome)
        children.request.final(outcome)
    for outcome in Outcome:
        attempt = {"alias": "a", "deployment": "a/0", "provider": "openai", "outcome": outcome.value}
        assert value(metrics, "attempts_total", **attempt) == 2
        assert value(metrics, "requests_total", alias="a", lane="batch", tenant="t", outcome=outcome.value) == 1


def test_bound_series_are_made_once() -> None:
    metrics = Metrics(CollectorRegistry())
    first = metrics.attempt_children("a", "a/0", "openai", "t", Lane.BATCH)
    assert metrics.attempt_children("a", "a/0", "openai", "t", Lane.BATCH) is first
    assert metrics.attempt_children("a", "a/0", "openai", "t", Lane.INTERACTIVE) is not first
    assert metrics.request_children("a", Lane.BATCH, "t") is first.request


def test_tenants_beyond_the_limit_share_one_label() -> None:
    metrics = Metrics(CollectorRegistry())
    for number in range(MAX_TENANTS + 5):
        metrics.request_children("a", Lane.BATCH, f"tenant-{number}").final(Outcome.ANSWERED)
    labels = {"alias": "a", "lane": "batch", "outcome": "answered"}
    assert value(metrics, "requests_total", **labels, tenant=OTHER) == 5
    assert metrics.tenant("tenant-0") == "tenant-0"
    assert metrics.tenant("tenant-204") == OTHER


def test_every_series_starts_with_the_prefix_and_says_what_it_is() -> None:
    families = list(Metrics(CollectorRegistry()).registry.collect())
    assert [family.name for family in families if not family.name.startswith(PREFIX)] == []
    assert [family.name for family in families if not family.documentation] == []


def test_every_metric_is_recorded_somewhere() -> None:
    root = Path(__file__).parents[2]
    sources = [path.read_text() for top in ("broker", "workers") for path in (root / top).rglob("*.py")]
    recorded = {name for text in sources for name in re.findall(r"metrics\.(\w+)", text)}
    public = {name for name in vars(Metrics(CollectorRegistry())) if not name.startswith("_")}
    assert public - recorded == set()


def test_two_processes_worth_of_metrics_do_not_collide() -> None:
    assert generate_latest(Metrics().registry)
    assert generate_latest(Metrics().registry)
