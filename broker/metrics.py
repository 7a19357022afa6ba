"""Every metric this project exports, by name, label and bucket. Imports prometheus_client, series and the wire's words.

Names start with `broker_`. Labels are bounded: alias, deployment and provider come from the configuration, outcome and
lane are enumerations, and tenant and reason fall back to `other` once too many were seen. Nothing here is safe for
several threads at once: record from the event loop's thread.
"""

from decimal import Decimal
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from broker.series import CounterFamily, HistogramFamily, LevelFamily
from broker.topics import Lane
from schemas.usage import Outcome

PREFIX: Final = "broker_"
MAX_TENANTS: Final = 200
"""Tenants that get a label of their own; a scrape stays below about 10,000 lines with 10 aliases."""
MAX_REASONS: Final = 100
OTHER: Final = "other"
ANSWERED: Final = Outcome.ANSWERED

TTFT_BUCKETS: Final = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 20, 60)
"""Seconds to the first token: hosted models answer within 0.2–2 s, reasoning models and cold starts take up to 60 s."""
UPSTREAM_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
"""Seconds of one upstream call: embeddings take 0.05 s, long completions minutes; 600 s is the default time-out."""
QUEUE_BUCKETS: Final = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400)
"""Seconds between a record's timestamp and its first attempt: interactive work waits ms, batch work up to a day."""
BATCH_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds of one INSERT."""
LATE_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 2, 5, 15, 60)
"""Seconds a parked record is republished after it was due; the promise is at most 1 s."""

TOKEN_KINDS: Final = ("input", "cached", "cache_write", "output", "reasoning", "audio")
"""Values of the label `kind`; cached and cache_write are part of input, reasoning is part of output."""


class Bounded:
    """Lets the first `limit` distinct values of a label through and turns later ones into `other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        """Return `value`, or `other` when the label is full."""
        if value in self._seen:
            return value
        if len(self._seen) >= self._limit:
            return OTHER
        self._seen.add(value)
        return value


class RequestChildren:
    """The bound series of one alias, lane and tenant."""

    __slots__ = ("_answered", "_final", "_waited")

    def __init__(self, metrics: "Metrics", alias: str, lane: Lane, tenant: str) -> None:
        self._final = {out: metrics.requests_total.labels(alias, lane, tenant, out) for out in Outcome}
        self._answered = self._final[ANSWERED]
        self._waited = metrics.queue_wait_seconds.labels(alias, lane)

    def waited(self, seconds: float) -> None:
        """Note how long the request waited before its first attempt in this worker."""
        self._waited.observe(seconds)

    def final(self, outcome: Outcome) -> None:
        """Note the request's final reply."""
        if outcome is ANSWERED:  # hashing an enumeration's member costs more than counting
            self._answered.inc()
        else:
            self._final[outcome].inc()


class AttemptChildren:
    """The bound series of one deployment and tenant; `request` holds those of the request it belongs to."""

    __slots__ = (
        "_answered",
        "_attempts",
        "_cost",
        "_in_flight",
        "_tokens",
        "_ttft",
        "_unpriced",
        "_upstream",
        "request",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - one argument per label
        self, metrics: "Metrics", alias: str, deployment: str, provider: str, tenant: str, request: RequestChildren
    ) -> None:
        self.request = request
        self._attempts = {out: metrics.attempts_total.labels(alias, deployment, provider, out) for out in Outcome}
        self._answered = self._attempts[ANSWERED]
        self._in_flight = metrics.in_flight.labels(alias, deployment)
        self._upstream = metrics.upstream_seconds.labels(alias, deployment)
        self._ttft = metrics.time_to_first_token_seconds.labels(alias, deployment)
        self._tokens = {kind: metrics.tokens_total.labels(alias, deployment, tenant, kind) for kind in TOKEN_KINDS}
        self._cost = metrics.cost_dollars_total.labels(alias, deployment, tenant)
        self._unpriced = metrics.unpriced_total.labels(alias, deployment)

    def started(self) -> None:
        """Note that an upstream call begins; `finished` must follow."""
        self._in_flight.inc()

    def finished(self, outcome: Outcome, upstream_seconds: float, ttft_seconds: float | None = None) -> None:
        """Note that the call begun with `started` has ended."""
        self._in_flight.dec()
        if outcome is ANSWERED:
            self._answered.inc()
        else:
            self._attempts[outcome].inc()
        self._upstream.observe(upstream_seconds)
        if ttft_seconds is not None:
            self._ttft.observe(ttft_seconds)

    def skipped(self, outcome: Outcome) -> None:
        """Note an attempt that made no call: refused, expired, cached."""
        self._attempts[outcome].inc()

    def used(self, cost: Decimal | None, **tokens: int) -> None:
        """Add tokens by kind (`TOKEN_KINDS`) and the cost in USD; None counts the attempt as unpriced."""
        for kind, count in tokens.items():
            if count:
                self._tokens[kind].inc(count)
        if cost is None:
            self._unpriced.inc()
        elif cost:
            self._cost.inc(float(cost))


class Metrics:
    """All series of one process, in `registry`. With none given it makes one, with the process's own series in it."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        if registry is None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
        self.registry = registry
        self._tenant = Bounded(MAX_TENANTS)
        self._reason = Bounded(MAX_REASONS)
        self._requests: dict[tuple[str, Lane, str], RequestChildren] = {}
        self._interactive: dict[tuple[str, str, str, str], AttemptChildren] = {}
        self._batch: dict[tuple[str, str, str, str], AttemptChildren] = {}
        self._make_serving()
        self._make_policy()
        self._make_log()
        self._make_backlog()
        self._make_parts()

    def _counter(self, name: str, text: str, *labels: str) -> CounterFamily:
        return CounterFamily(PREFIX + name, text, labels, self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> HistogramFamily:
        return HistogramFamily(PREFIX + name, text, labels, buckets, self.registry)

    def _make_serving(self) -> None:
        where = ("alias", "deployment")
        self.requests_total = self._counter(
            "requests_total", "Requests that got their final reply", "alias", "lane", "tenant", "outcome"
        )
        self.attempts_total = self._counter("attempts_total", "Attempts that ended", *where, "provider", "outcome")
        self.in_flight = LevelFamily(PREFIX + "in_flight", "Upstream calls running", where, self.registry)
        self.waiting = self._gauge("waiting", "Requests read and not started", "alias", "lane")
        self.queue_wait_seconds = self._histogram(
            "queue_wait_seconds", "From the record's timestamp to its first attempt", QUEUE_BUCKETS, "alias", "lane"
        )
        self.upstream_seconds = self._histogram(
            "upstream_seconds", "One upstream call, connection to last byte", UPSTREAM_BUCKETS, *where
        )
        self.time_to_first_token_seconds = self._histogram(
            "time_to_first_token_seconds", "Start of a streamed call to its first chunk", TTFT_BUCKETS, *where
        )
        self.tokens_total = self._counter("tokens_total", "Tokens the provider counted", *where, "tenant", "kind")
        self.cost_dollars_total = self._counter("cost_dollars_total", "Cost of priced attempts, USD", *where, "tenant")
        self.unpriced_total = self._counter("unpriced_total", "Attempts with usage and no known price", *where)

    def _make_policy(self) -> None:
        self.retries_total = self._counter("retries_total", "Attempts tried again here", "alias", "reason")
        self.reroutes_total = self._counter("reroutes_total", "Requests sent to a fallback", "alias", "to", "reason")
        self.parked_total = self._counter("parked_total", "Requests put on a delay topic", "alias")
        self.requeued_total = self._counter("requeued_total", "Surplus put at the end of its own topic", "alias")
        self.dead_letters_total = self._counter("dead_letters_total", "Records dead-lettered", "reason")

    def _make_log(self) -> None:
        topic = ("alias", "lane")
        self.records_total = self._counter("records_total", "Request records read", *topic)
        self.consumer_lag = self._gauge("consumer_lag", "Records behind the end of the assigned partitions", *topic)
        self.oldest_unfinished_seconds = self._gauge(
            "oldest_unfinished_seconds", "Age of the oldest record read and not finished", *topic
        )
        self.commit_age_seconds = self._gauge("commit_age_seconds", "Since the last commit that succeeded or was idle")
        self.loop_age_seconds = self._gauge("loop_age_seconds", "Since the request loop last turned")
        self.commits_total = self._counter("commits_total", "Offset commits that succeeded")
        self.commit_failures_total = self._counter("commit_failures_total", "Offset commits that failed")
        self.rebalances_total = self._counter("rebalances_total", "Assignments received")
        self.producer_failures_total = self._counter(
            "producer_failures_total", "Records the log did not take", "permanent"
        )

    def _make_backlog(self) -> None:
        # Of the worker's own partitions and permits: sum them over workers, but take the maximum of ages and times.
        place = ("alias", "lane")
        self.backlog_requests = self._gauge("backlog_requests", "Requests not finished, read or not; sum", *place)
        self.backlog_tokens = self._gauge(
            "backlog_tokens", "Estimated tokens of the backlog, absent while unknown; sum", *place
        )
        self.backlog_dollars = self._gauge(
            "backlog_dollars", "Estimated USD of the backlog, absent while unknown; sum", *place
        )
        self.drain_seconds = self._gauge(
            "drain_seconds", "Backlog at the rate of the last 30 s, 604800 where nothing finishes; max", *place
        )
        self.oldest_request_seconds = self._gauge(
            "oldest_request_seconds", "Age of the oldest request that is not finished; max", *place
        )
        self.permits = self._gauge("permits", "Calls running and slots held by this worker; sum", "deployment", "state")
        self.cooling = self._gauge("cooling", "Seconds for which a deployment is left alone; max", "deployment")
        self.limit = self._gauge("limit", "Limits in force over all workers; max", "deployment", "limit")

    def _make_parts(self) -> None:
        self.journal_failures_total = self._counter("journal_failures_total", "Journal round trips that failed")
        self.leases_lost_total = self._counter("leases_lost_total", "Leases another worker took while we had them")
        self.orphans_total = self._counter("orphans_total", "Outcomes that came second and were not the reply")
        self.unknown_total = self._counter("unknown_total", "Calls of workers that died, outcome unknown", "alias")
        self.repeated_total = self._counter("repeated_total", "Requests answered by the outcome they had", "alias")
        self.sink_rows_total = self._counter("sink_rows_total", "Usage events written to ClickHouse")
        self.sink_refused_total = self._counter("sink_refused_total", "Usage events ClickHouse refused")
        self.sink_failures_total = self._counter("sink_failures_total", "INSERTs that failed and were tried again")
        self.sink_batch_seconds = self._histogram("sink_batch_seconds", "One INSERT", BATCH_BUCKETS)
        self.sink_lag = self._gauge("sink_lag", "Usage events behind the end of the topic")
        self.relay_republished_total = self._counter("relay_republished_total", "Parked requests sent on", "delay")
        self.relay_late_seconds = self._histogram(
            "relay_late_seconds", "Sent on after it was due", LATE_BUCKETS, "delay"
        )
        self.relay_failures_total = self._counter("relay_failures_total", "Parked requests not taken by the log")

    def tenant(self, tenant: str) -> str:
        """Return the tenant's label value: itself, or `other` after `MAX_TENANTS` tenants."""
        return self._tenant(tenant)

    def reason(self, reason: str) -> str:
        """Return a reason's label value: itself, or `other` after `MAX_REASONS` reasons."""
        return self._reason(reason)

    def request_children(self, alias: str, lane: Lane, tenant: str) -> RequestChildren:
        """Return the bound series of a request, the same object each time."""
        key = (alias, lane, self._tenant(tenant))
        found = self._requests.get(key)
        if found is None:
            found = self._requests[key] = RequestChildren(self, alias, lane, key[2])
        return found

    def attempt_children(self, alias: str, deployment: str, provider: str, tenant: str, lane: Lane) -> AttemptChildren:
        """Return the bound series of an attempt, the same object each time."""
        key = (alias, deployment, provider, self._tenant(tenant))
        known = self._batch if lane is Lane.BATCH else self._interactive
        found = known.get(key)
        if found is None:
            request = self.request_children(alias, lane, tenant)
            found = AttemptChildren(self, alias, deployment, provider, key[3], request)
            known[key] = found
        return found
