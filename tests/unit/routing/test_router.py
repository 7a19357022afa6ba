import heapq
import math
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.config import Alias, Deployment, Prices, Settings, Strategy
from broker.errors import RequestError, UpstreamError
from broker.routing.router import DeploymentStatus, Grant, Router, configured_cost


def deployment(number: int, **changes: Any) -> Deployment:
    return Deployment(name=f"a/{number}", alias="a", provider="openai", model="m", **changes)


def router(*deployments: Deployment, strategy: Strategy = Strategy.SIMPLE_SHUFFLE, draw: float = 0.0) -> Router:
    alias = Alias(name="a", deployments=deployments, strategy=strategy)
    return Router(Settings(aliases={"a": alias}), lambda: draw)


def granted(router: Router, now: float = 0.0, tried: frozenset[str] = frozenset(), tokens: int = 0) -> Grant:
    grant = router.acquire("a", tokens, now, tried)
    assert isinstance(grant, Grant)
    return grant


def end(  # noqa: PLR0913 - what a release takes
    router: Router,
    grant: Grant,
    now: float = 0.0,
    *,
    error: RequestError | None = None,
    used: int | None = None,
    latency: float | None = None,
    started: bool = True,
) -> None:
    router.release(grant, now, used_tokens=used, latency=latency, error=error, started=started)


def busy(retry_after: float | None = None) -> UpstreamError:
    return UpstreamError("busy", status=429, retry_after=retry_after)


def status(router: Router, name: str, now: float = 0.0) -> DeploymentStatus:
    return next(status for status in router.snapshot(now) if status.deployment.name == name)


def test_a_free_deployment_starts_at_once_and_is_counted() -> None:
    one = router(deployment(0))
    grants = [granted(one) for _ in range(3)]
    assert status(one, "a/0").in_flight == 3
    end(one, grants[0])
    assert status(one, "a/0").in_flight == 2


def test_an_unknown_alias_is_an_error() -> None:
    with pytest.raises(KeyError):
        router(deployment(0)).acquire("b", 0, 0.0)


def test_full_slots_answer_upon_a_release() -> None:
    one = router(deployment(0, max_parallel_requests=1))
    grant = granted(one)
    assert (one.acquire("a", 0, 0.0), one.wait("a", 0.0)) == (math.inf, math.inf)
    end(one, grant)
    assert one.wait("a", 0.0) == 0.0


def test_the_earliest_moment_over_all_deployments_is_the_wait() -> None:
    both = router(deployment(0, rpm=1), deployment(1, rpm=1))
    granted(both, 0.0)
    granted(both, 20.0)
    assert (both.acquire("a", 0, 30.0), both.wait("a", 30.0)) == (30.0, 30.0)


def test_deployments_not_tried_yet_are_preferred() -> None:
    both = router(deployment(0, weight=1), deployment(1, weight=0))
    assert granted(both, tried=frozenset({"a/0"})).deployment.name == "a/1"


def test_a_tried_deployment_is_better_than_none() -> None:
    both = router(deployment(0), deployment(1, max_parallel_requests=1))
    granted(both, tried=frozenset({"a/0"}))
    assert granted(both, tried=frozenset({"a/0"})).deployment.name == "a/0"


def test_a_higher_order_serves_only_when_no_lower_one_can() -> None:
    ordered = router(deployment(0, order=2), deployment(1, order=1, max_parallel_requests=2))
    assert [granted(ordered).deployment.name for _ in range(4)] == ["a/1", "a/1", "a/0", "a/0"]


def test_an_untried_deployment_of_a_higher_order_comes_before_a_tried_one() -> None:
    ordered = router(deployment(0, order=1), deployment(1, order=2))
    assert granted(ordered, tried=frozenset({"a/0"})).deployment.name == "a/1"


def test_a_busy_deployment_is_left_for_the_other_one() -> None:
    both = router(deployment(0), deployment(1))
    end(both, granted(both), error=busy())
    assert {granted(both).deployment.name for _ in range(5)} == {"a/1"}
    assert status(both, "a/0").cooling_until == 5.0


def test_when_all_cool_down_the_first_to_return_is_waited_for() -> None:
    both = router(deployment(0), deployment(1))
    end(both, granted(both), error=busy(30.0))
    end(both, granted(both), error=busy(20.0))
    assert both.acquire("a", 0, 5.0) == 15.0


def test_a_deployment_coming_back_gets_one_probe_at_a_time() -> None:
    both = router(deployment(0), deployment(1, order=2))
    end(both, granted(both), error=busy())
    probe = granted(both, 5.0)
    assert (probe.deployment.name, probe.probe) == ("a/0", True)
    assert granted(both, 5.0).deployment.name == "a/1"
    end(both, probe, 6.0, used=1)
    assert granted(both, 6.0).deployment.name == "a/0"


def test_the_only_deployment_waits_out_its_retry_after() -> None:
    one = router(deployment(0))
    end(one, granted(one), error=busy(7.0))
    assert (one.acquire("a", 0, 1.0), status(one, "a/0", 1.0).blocked_until) == (6.0, 7.0)
    assert granted(one, 7.0).deployment.name == "a/0"


def test_the_only_deployment_is_not_held_up_by_a_busy_answer_without_a_time() -> None:
    one = router(deployment(0))
    end(one, granted(one), error=busy())
    assert isinstance(one.acquire("a", 0, 0.0), Grant)


def test_other_deployments_are_available_when_they_could_start_now() -> None:
    both = router(deployment(0), deployment(1, max_parallel_requests=1))
    tried = frozenset({"a/0"})
    assert both.other_available("a", tried, 0.0)
    grant = granted(both, tried=tried)
    assert not both.other_available("a", tried, 0.0)
    end(both, grant, error=UpstreamError("key", status=401))
    assert not both.other_available("a", tried, 0.0)
    assert both.other_available("a", frozenset(), 0.0)


def test_a_second_release_changes_nothing() -> None:
    both = router(deployment(0), deployment(1, order=2))
    grant = granted(both)
    end(both, grant, latency=1.0)
    end(both, grant, error=busy(60.0))
    assert (status(both, "a/0").in_flight, status(both, "a/0").healthy) == (0, True)


def test_what_never_started_costs_and_proves_nothing() -> None:
    one = router(deployment(0, rpm=1, tpm=100))
    end(one, granted(one, tokens=80), error=busy(None), started=False)
    assert (status(one, "a/0").rpm_used, status(one, "a/0").tpm_used) == (0, 0)


def test_limits_are_settled_and_shown() -> None:
    one = router(deployment(0, rpm=10, tpm=1000))
    end(one, granted(one, tokens=400), 2.0, used=150, latency=2.0)
    shown = status(one, "a/0", 2.0)
    assert (shown.rpm_used, shown.tpm_used, shown.latency, shown.cooling_until) == (1, 150, 2.0, None)


def test_the_faster_deployment_is_taken_once_known() -> None:
    both = router(deployment(0), deployment(1), strategy=Strategy.LATENCY_BASED)
    first = granted(both)
    second = granted(both, tried=frozenset({first.deployment.name}))
    end(both, first, latency=5.0)
    end(both, second, latency=0.1)
    assert granted(both).deployment == second.deployment


def test_prices_of_the_configuration_decide_by_cost_unless_others_are_given() -> None:
    cheap = deployment(0, prices=Prices(input_cost_per_token=Decimal(1), output_cost_per_token=Decimal(2)))
    dear = deployment(1, prices=Prices(output_cost_per_token=Decimal(4)))
    assert [configured_cost(each) for each in (cheap, dear, deployment(2))] == [Decimal(3), Decimal(4), None]
    assert granted(router(dear, cheap, strategy=Strategy.COST_BASED)).deployment == cheap
    alias = Alias(name="a", deployments=(cheap, dear), strategy=Strategy.COST_BASED)
    turned = Router(Settings(aliases={"a": alias}), lambda: 0.0, lambda each: Decimal(-int(each.name[-1])))
    assert granted(turned).deployment == dear


@dataclass
class Run:
    """Starts and most calls at once per deployment, of jobs played on a clock of events."""

    starts: dict[str, list[float]]
    most: Counter[str]


def play(router: Router, jobs: list[tuple[float, int, bool]]) -> Run:
    """Play jobs of (seconds, tokens, fails at first), all there at 0, in order; every one ends with an answer."""
    run, now, serial = Run({}, Counter()), 0.0, 0
    waiting = list(reversed(jobs))
    running: list[tuple[float, int, Grant, tuple[float, int, bool]]] = []
    while waiting or running:
        wait = math.inf
        while waiting:
            got = router.acquire("a", waiting[-1][1], now)
            if not isinstance(got, Grant):
                wait = got
                break
            seconds, tokens, fails = waiting.pop()
            name = got.deployment.name
            run.starts.setdefault(name, []).append(now)
            run.most[name] = max(run.most[name], status(router, name, now).in_flight)
            heapq.heappush(running, (now + seconds, serial, got, (seconds, tokens, fails)))
            serial += 1
        if running and running[0][0] <= now + wait:
            now, _, grant, (seconds, tokens, fails) = heapq.heappop(running)
            end(router, grant, now, error=busy(3.0) if fails else None, used=None if fails else tokens // 2)
            if fails:
                waiting.append((seconds, tokens, False))
        else:
            assert wait < math.inf, "nothing runs and nothing will ever start"
            now += wait
    return run


def test_fifty_jobs_on_five_slots_are_all_served_five_at_a_time() -> None:
    run = play(router(deployment(0, max_parallel_requests=5)), [(1.0 + n % 7 / 10, 9, False) for n in range(50)])
    assert (len(run.starts["a/0"]), run.most["a/0"]) == (50, 5)


limits = st.none() | st.integers(1, 20)


@settings(deadline=None, max_examples=60)
@given(
    jobs=st.lists(st.tuples(st.floats(0.01, 90), st.integers(0, 500), st.booleans()), min_size=1, max_size=60),
    shapes=st.lists(st.tuples(limits, limits, limits, st.integers(1, 2)), min_size=1, max_size=3),
    strategy=st.sampled_from(Strategy),
)
def test_every_job_is_served_within_every_limit_whatever_the_strategy(
    jobs: list[tuple[float, int, bool]],
    shapes: list[tuple[int | None, int | None, int | None, int]],
    strategy: Strategy,
) -> None:
    deployments = [
        deployment(number, rpm=rpm, tpm=tpm and tpm * 50, max_parallel_requests=parallel, order=order)
        for number, (rpm, tpm, parallel, order) in enumerate(shapes)
    ]
    run = play(router(*deployments, strategy=strategy, draw=0.7), jobs)
    assert sum(map(len, run.starts.values())) == len(jobs) + sum(fails for _, _, fails in jobs)
    for each in deployments:
        starts = run.starts.get(each.name, [])
        assert run.most[each.name] <= (each.max_parallel_requests or len(jobs))
        if each.rpm is not None:
            assert all(sum(begin <= start < begin + 60.0 for start in starts) <= each.rpm for begin in starts)
