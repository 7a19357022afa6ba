"""What follows when no deployment of an alias can serve a request, and which fallbacks are passed over."""

import pytest

from broker.config import Alias, Deployment
from broker.delivery.retry import MAX_REROUTES, Refuse, Reroute, Serves, Situation, decide, decide_uncalled
from broker.errors import ContentPolicyViolation, ContextLengthExceeded, InvalidRequest, RequestError, UpstreamError

LONG = ContextLengthExceeded("too long", param="messages")
BLIND = InvalidRequest("no eyes", param="messages[0].content[0]")
ALIAS = Alias(
    name="a",
    deployments=(Deployment(name="a/0", alias="a", provider="openai", model="m"),),
    num_retries=0,
    fallbacks=("b", "c"),
    context_window_fallbacks=("long", "longer"),
)
BARE = ALIAS.model_copy(update={"fallbacks": (), "context_window_fallbacks": ()})


def only(*names: str) -> Serves:
    return lambda name: name in names


def test_what_is_too_long_goes_to_a_fallback_for_that_and_then_to_one_for_errors() -> None:
    assert decide_uncalled(ALIAS, (), LONG, ()) == Reroute("long", "context_length_exceeded")
    assert decide_uncalled(ALIAS, (), LONG, ("long", "longer")) == Reroute("b", "context_length_exceeded")
    assert decide_uncalled(BARE, ("d",), LONG, ()) == Reroute("d", "context_length_exceeded")


def test_a_missing_ability_leads_to_a_fallback_for_errors() -> None:
    assert decide_uncalled(ALIAS, ("d",), BLIND, ()) == Reroute("b", "invalid_request")
    assert decide_uncalled(BARE, ("d",), BLIND, ()) == Reroute("d", "invalid_request")


def test_fallbacks_that_cannot_serve_it_either_are_passed_over() -> None:
    assert decide_uncalled(ALIAS, (), BLIND, (), None, only("c")) == Reroute("c", "invalid_request")
    assert decide_uncalled(ALIAS, (), LONG, (), None, only("c")) == Reroute("c", "context_length_exceeded")
    assert decide_uncalled(ALIAS, (), BLIND, (), None, only("d")) == Refuse(BLIND)


@pytest.mark.parametrize("error", [LONG, BLIND])
def test_the_requests_own_fallbacks_replace_those_of_every_kind(error: RequestError) -> None:
    assert decide_uncalled(ALIAS, ("d",), error, (), ("x",)) == Reroute("x", error.code)
    assert decide_uncalled(ALIAS, ("d",), error, (), ()) == Refuse(error)


def test_no_alias_is_visited_twice_and_no_request_rerouted_too_often() -> None:
    assert decide_uncalled(ALIAS, (), BLIND, ("b",)) == Reroute("c", "invalid_request")
    assert decide_uncalled(ALIAS, (), BLIND, ("b", "c")) == Refuse(BLIND)
    often = tuple(f"v{number}" for number in range(MAX_REROUTES))
    assert decide_uncalled(ALIAS, (), BLIND, often) == Refuse(BLIND)


@pytest.mark.parametrize("error", [UpstreamError("down", status=503), ContentPolicyViolation("no")])
def test_a_failed_call_is_not_rerouted_to_what_cannot_serve_it(error: RequestError) -> None:
    alias = ALIAS.model_copy(update={"content_policy_fallbacks": ("b", "c")})
    situation = Situation(error, 1, 0, None, "a", (), other_deployment=False, wait_for_deployment=0.0)
    assert decide(alias, (), situation, 0.0, None, only("c")) == Reroute("c", error.code)
    assert decide(alias, (), situation, 0.0, None, only()) == Refuse(error)
