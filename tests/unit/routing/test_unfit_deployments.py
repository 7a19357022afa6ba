"""The router passes over deployments that cannot serve a request, for whatever it is asked."""

import math
from typing import Any

from broker.config import Alias, Deployment, Settings
from broker.routing.router import Grant, Router

BLIND = frozenset({"a/0"})


def router(*deployments: Deployment) -> Router:
    return Router(Settings(aliases={"a": Alias(name="a", deployments=deployments)}), lambda: 0.0)


def deployment(number: int, **fields: Any) -> Deployment:
    return Deployment(name=f"a/{number}", alias="a", provider="openai", model="m", **fields)


def chosen(router: Router, tried: frozenset[str] = frozenset()) -> str | float:
    grant = router.acquire("a", 0, 0.0, tried, 0, BLIND)
    return grant.deployment.name if isinstance(grant, Grant) else grant


def test_an_unfit_deployment_is_not_chosen_though_its_order_and_its_weight_are_for_it() -> None:
    three = router(deployment(0, order=1, weight=9), deployment(1, order=2), deployment(2, order=2, weight=1))
    assert {chosen(three) for _ in range(5)} == {"a/2"}


def test_a_fit_deployment_that_is_busy_is_waited_for_while_the_unfit_one_is_free() -> None:
    both = router(deployment(0), deployment(1, rpm=1))
    assert chosen(both) == "a/1"
    assert chosen(both) == 60.0
    assert (both.wait("a", 0.0), both.wait("a", 0.0, BLIND)) == (0.0, 60.0)


def test_with_its_only_slot_taken_the_wait_is_upon_a_release() -> None:
    both = router(deployment(0), deployment(1, max_parallel_requests=1))
    assert chosen(both) == "a/1"
    assert (chosen(both), both.wait("a", 0.0, BLIND)) == (math.inf, math.inf)


def test_a_fit_deployment_that_was_tried_comes_before_an_unfit_one_that_was_not() -> None:
    assert chosen(router(deployment(0), deployment(1)), tried=frozenset({"a/1"})) == "a/1"


def test_an_unfit_deployment_is_no_other_one_to_try() -> None:
    both = router(deployment(0), deployment(1))
    assert both.other_available("a", frozenset({"a/1"}), 0.0)
    assert not both.other_available("a", frozenset({"a/1"}) | BLIND, 0.0)
