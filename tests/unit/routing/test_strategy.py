from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal

import pytest

from broker.config import Deployment, Strategy
from broker.routing.strategy import LATENCY_LIFETIME, Latency, choose


@dataclass(frozen=True)
class Seen:
    """A candidate as a strategy sees it."""

    deployment: Deployment
    in_flight: int = 0
    cost: Decimal | None = None
    share: float = 0.0
    latency: float | None = None

    def share_used(self, now: float) -> float:  # noqa: ARG002 - the candidate's contract
        return self.share

    def recent_latency(self, now: float) -> float | None:  # noqa: ARG002 - the candidate's contract
        return self.latency


def seen(name: str, *, weight: float | None = None, rpm: int | None = None, tpm: int | None = None) -> Seen:
    return Seen(Deployment(name=name, alias="a", provider="openai", model="m", weight=weight, rpm=rpm, tpm=tpm))


A, B, C = seen("A"), seen("B"), seen("C")


def shares(strategy: Strategy, *candidates: Seen) -> dict[str, int]:
    """How often each is chosen over a thousand evenly spread draws."""
    draws = iter(range(1000))

    def draw() -> Callable[[], float]:
        return lambda: next(draws) / 1000

    random = draw()
    return dict(Counter(choose(strategy, candidates, 0.0, random).deployment.name for _ in range(1000)))


@pytest.mark.parametrize("strategy", list(Strategy))
def test_equal_candidates_are_drawn_evenly(strategy: Strategy) -> None:
    assert shares(strategy, A, B) == {"A": 500, "B": 500}


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_single_candidate_is_taken(strategy: Strategy) -> None:
    assert choose(strategy, [A], 0.0, lambda: 0.999) is A


def test_the_shuffle_follows_weights() -> None:
    chosen = shares(Strategy.SIMPLE_SHUFFLE, seen("A", weight=3, rpm=1), seen("B", weight=1, rpm=1000))
    assert chosen == {"A": 750, "B": 250}


def test_without_weights_the_shuffle_follows_rpm_and_then_tpm() -> None:
    by_rpm = shares(Strategy.SIMPLE_SHUFFLE, seen("A", rpm=90, tpm=1), seen("B", rpm=10, tpm=1000))
    by_tpm = shares(Strategy.SIMPLE_SHUFFLE, seen("A", tpm=200), seen("B", tpm=800))
    assert (by_rpm, by_tpm) == ({"A": 900, "B": 100}, {"A": 200, "B": 800})


def test_a_deployment_without_a_weight_among_weighted_ones_gets_nothing() -> None:
    assert shares(Strategy.SIMPLE_SHUFFLE, A, seen("B", weight=1)) == {"B": 1000}


def test_a_deployment_without_a_limit_gets_as_much_as_the_largest() -> None:
    assert shares(Strategy.SIMPLE_SHUFFLE, A, seen("B", rpm=10)) == {"A": 500, "B": 500}


def test_weights_of_zero_are_used_when_nothing_else_is_left() -> None:
    assert shares(Strategy.SIMPLE_SHUFFLE, seen("A", weight=0), seen("B", weight=0)) == {"A": 500, "B": 500}


def test_a_draw_at_the_edge_never_falls_on_a_weight_of_zero() -> None:
    candidates = [seen("A", weight=0.1), seen("B", weight=0.2), seen("C", weight=0)]
    assert choose(Strategy.SIMPLE_SHUFFLE, candidates, 0.0, lambda: 1.0).deployment.name == "A"


def test_the_least_busy_one_is_taken() -> None:
    assert shares(Strategy.LEAST_BUSY, replace(A, in_flight=3), replace(B, in_flight=2)) == {"B": 1000}


def test_the_one_with_the_lowest_share_used_is_taken_and_the_less_busy_of_equals() -> None:
    chosen = shares(
        Strategy.USAGE_BASED,
        replace(A, share=0.5),
        replace(B, share=0.2, in_flight=2),
        replace(C, share=0.2, in_flight=1),
    )
    assert chosen == {"C": 1000}


def test_those_near_the_lowest_latency_share() -> None:
    chosen = shares(Strategy.LATENCY_BASED, replace(A, latency=1.0), replace(B, latency=1.09), replace(C, latency=1.2))
    assert chosen == {"A": 500, "B": 500}


def test_an_unknown_latency_shares_with_the_best() -> None:
    chosen = shares(Strategy.LATENCY_BASED, replace(A, latency=1.0), B, replace(C, latency=9.0))
    assert chosen == {"A": 500, "B": 500}


def test_the_cheapest_is_taken_and_an_unknown_price_is_the_last() -> None:
    cheap, dear = replace(A, cost=Decimal("0.1")), replace(B, cost=Decimal("0.2"))
    assert shares(Strategy.COST_BASED, dear, C, cheap) == {"A": 1000}
    assert shares(Strategy.COST_BASED, dear, C) == {"B": 1000}
    assert shares(Strategy.COST_BASED, replace(A, cost=Decimal(0)), dear) == {"A": 1000}


def test_latency_follows_recent_calls_and_is_forgotten() -> None:
    latency = Latency()
    assert latency.recent(0.0) is None
    latency.add(1.0, 0.0)
    latency.add(2.0, 1.0)
    assert latency.recent(1.0) == pytest.approx(1.2)
    for second in range(50):
        latency.add(4.0, float(second))
    assert latency.recent(50.0) == pytest.approx(4.0, abs=0.01)
    assert latency.recent(49.0 + LATENCY_LIFETIME + 1) is None
