import math
from dataclasses import replace

import pytest

from broker.config import Alias, Deployment
from broker.delivery.retry import MAX_RETRY_AFTER, Park, Refuse, Reroute, Retry, Situation, decide
from broker.errors import (
    BadUpstreamResponse,
    BudgetExceeded,
    Cancelled,
    ContentPolicyViolation,
    ContextLengthExceeded,
    DeadlineExceeded,
    InternalError,
    InvalidApiKey,
    InvalidRequest,
    ModelNotAllowed,
    ModelNotFound,
    RateLimitExceeded,
    RequestError,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)

NOW = 1_700_000_000_000


def deployment(number: int) -> Deployment:
    return Deployment(name=f"a/{number}", alias="a", provider="openai", model="m")


ONE = Alias(name="a", deployments=(deployment(0),), num_retries=2)
TWO = Alias(name="a", deployments=(deployment(0), deployment(1)), num_retries=2)
WITH_FALLBACK = ONE.model_copy(update={"fallbacks": ("b", "c")})

BASE = Situation(
    error=RequestError("nothing yet"),
    tries=1,
    now_ms=NOW,
    deadline_ms=NOW + 3_600_000,
    alias="a",
    visited=(),
    other_deployment=False,
    wait_for_deployment=0.0,
)


def after(error: RequestError, tries: int = 1, left: float | None = 3600.0, wait: float = 0.0) -> Situation:
    deadline_ms = None if left is None else NOW + round(left * 1000)
    return replace(BASE, error=error, tries=tries, deadline_ms=deadline_ms, wait_for_deployment=wait)


def upstream(status: int, retry_after: float | None = None) -> UpstreamError:
    return UpstreamError(f"upstream said {status}", status=status, retry_after=retry_after)


RETRIABLE = [
    *(upstream(status) for status in (408, 409, 429, 500, 502, 503, 504, 529)),
    UpstreamTimeout("slow"),
    UpstreamUnreachable("no route"),
    BadUpstreamResponse("HTML"),
]
FINAL = [
    *(upstream(status) for status in (400, 405, 413, 415, 422, 451)),
    InvalidRequest("shape"),
    InvalidApiKey("key"),
    ModelNotAllowed("alias"),
    ModelNotFound("alias"),
    BudgetExceeded("spent"),
    RateLimitExceeded("your key", retry_after=3.0),
    Cancelled("you did"),
    DeadlineExceeded("late"),
    InternalError("a defect"),
]


def name(error: RequestError) -> str:
    return f"{type(error).__name__}-{error.status}"


@pytest.mark.parametrize("error", RETRIABLE, ids=name)
def test_a_retriable_error_goes_at_once_to_another_deployment(error: RequestError) -> None:
    assert decide(TWO, (), replace(after(error), other_deployment=True), 0.5) == Retry(0.0)


@pytest.mark.parametrize("error", RETRIABLE, ids=name)
def test_a_retriable_error_backs_off_where_there_is_no_other_deployment(error: RequestError) -> None:
    assert decide(ONE, (), after(error), 0.0) == Retry(0.5)


@pytest.mark.parametrize(
    "error",
    [*RETRIABLE, *FINAL, upstream(401), ContextLengthExceeded("long"), ContentPolicyViolation("rude")],
    ids=name,
)
def test_nothing_is_called_again_once_a_part_of_the_answer_was_delivered(error: RequestError) -> None:
    situation = replace(after(error), other_deployment=True, delivered=True)
    assert decide(WITH_FALLBACK, ("d",), situation, 0.0, ("e",)) == Refuse(error)


@pytest.mark.parametrize("error", RETRIABLE, ids=name)
def test_spent_retries_reroute_without_a_wait(error: RequestError) -> None:
    assert decide(WITH_FALLBACK, (), after(error, tries=3), 0.0) == Reroute("b", error.code)


@pytest.mark.parametrize("error", [error for error in RETRIABLE if error.status != 429], ids=name)
def test_spent_retries_without_a_fallback_reply_the_upstreams_last_error(error: RequestError) -> None:
    assert decide(ONE, (), after(error, tries=3), 0.0) == Refuse(error)


@pytest.mark.parametrize("error", FINAL, ids=name)
def test_an_error_of_the_request_or_its_caller_is_replied_at_once(error: RequestError) -> None:
    situation = replace(after(error), other_deployment=True)
    assert decide(WITH_FALLBACK, ("d",), situation, 0.0) == Refuse(error)


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_faulty_deployment_is_left_for_another_one_even_without_retries(status: int) -> None:
    alias = TWO.model_copy(update={"num_retries": 0})
    assert decide(alias, (), replace(after(upstream(status)), other_deployment=True), 0.0) == Retry(0.0)


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_faulty_deployment_without_another_one_is_left_for_the_fallback(status: int) -> None:
    assert decide(WITH_FALLBACK, (), after(upstream(status)), 0.0) == Reroute("b", f"upstream_{status}")


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_faulty_deployment_with_nothing_else_is_the_reply(status: int) -> None:
    error = upstream(status)
    assert decide(ONE, (), after(error), 0.0) == Refuse(error)


def test_faulty_deployments_are_each_tried_once_at_most() -> None:
    error = upstream(401)
    alias = TWO.model_copy(update={"num_retries": 0})
    assert decide(alias, (), replace(after(error, tries=2), other_deployment=True), 0.0) == Refuse(error)


@pytest.mark.parametrize(
    ("error", "field"),
    [
        (ContextLengthExceeded("long"), "context_window_fallbacks"),
        (ContentPolicyViolation("rude"), "content_policy_fallbacks"),
    ],
    ids=["context", "policy"],
)
def test_length_and_policy_have_fallbacks_of_their_own_and_no_retry(error: RequestError, field: str) -> None:
    situation = replace(after(error), other_deployment=True)
    assert decide(WITH_FALLBACK, ("d",), situation, 0.0) == Refuse(error)
    alias = WITH_FALLBACK.model_copy(update={field: ("big",)})
    assert decide(alias, ("d",), situation, 0.0) == Reroute("big", error.code)


@pytest.mark.parametrize(("tries", "wait"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 8.0), (5000, 8.0)])
def test_the_back_off_doubles_up_to_eight_seconds(tries: int, wait: float) -> None:
    alias = ONE.model_copy(update={"num_retries": 10_000})
    assert decide(alias, (), after(upstream(503), tries=tries), 0.0) == Retry(wait)


def test_jitter_adds_up_to_a_quarter() -> None:
    assert decide(ONE, (), after(upstream(503)), 0.8) == Retry(0.5 + 0.8 * 0.125)


def test_retry_after_replaces_the_back_off() -> None:
    assert decide(ONE, (), after(upstream(503, 3.0)), 0.0) == Retry(3.0)


def test_a_cooling_deployment_is_waited_for() -> None:
    assert decide(ONE, (), after(upstream(503), wait=5.0), 0.0) == Retry(5.0)


def test_an_unknown_moment_of_release_does_not_lengthen_the_wait() -> None:
    assert decide(ONE, (), after(upstream(503), wait=math.inf), 0.0) == Retry(0.5)


def test_more_than_thirty_seconds_are_parked() -> None:
    assert decide(ONE, (), after(upstream(503, 30.0)), 0.0) == Retry(30.0)
    assert decide(ONE, (), after(upstream(503, 30.5)), 0.0) == Park(NOW + 30_500)


def test_retry_after_is_clamped_to_half_of_what_is_left() -> None:
    assert decide(ONE, (), after(upstream(503, 600.0), left=40.0), 0.0) == Retry(20.0)


@pytest.mark.parametrize("told", [0.0, -1.0])
def test_a_retry_after_that_is_no_time_is_no_answer(told: float) -> None:
    assert decide(ONE, (), after(upstream(503, told)), 0.0) == Retry(0.5)


def test_an_endless_retry_after_without_a_deadline_is_a_day() -> None:
    decision = decide(ONE, (), after(upstream(503, math.inf), left=None), 0.0)
    assert decision == Park(NOW + round(MAX_RETRY_AFTER * 1000))


def test_a_back_off_that_would_pass_the_deadline_takes_the_fallback() -> None:
    assert decide(WITH_FALLBACK, (), after(upstream(503), left=0.4), 0.0) == Reroute("b", "upstream_503")


def test_a_cool_down_that_lasts_past_the_deadline_takes_the_fallback() -> None:
    assert decide(WITH_FALLBACK, (), after(upstream(503), left=10, wait=60.0), 0.0) == Reroute("b", "upstream_503")


@pytest.mark.parametrize("status", [429, 503])
def test_a_back_off_that_would_pass_the_deadline_ends_in_504_without_a_fallback(status: int) -> None:
    decision = decide(ONE, (), after(upstream(status), left=0.4), 0.0)
    assert isinstance(decision, Refuse)
    assert isinstance(decision.error, DeadlineExceeded)
    assert f"upstream said {status}" in decision.error.message


def test_nothing_starts_after_the_deadline() -> None:
    situation = replace(after(upstream(503), left=-1), other_deployment=True)
    decision = decide(WITH_FALLBACK, (), situation, 0.0)
    assert isinstance(decision, Refuse)
    assert decision.error.status == 504


def test_a_busy_provider_is_waited_for_beyond_the_retries() -> None:
    assert decide(ONE, (), after(upstream(429), tries=50), 0.0) == Retry(8.0)
    assert decide(ONE, (), after(upstream(429, 12.0), tries=50), 0.0) == Retry(12.0)
    assert decide(ONE, (), after(upstream(429, 90.0), tries=50), 0.0) == Park(NOW + 90_000)


def test_a_busy_provider_is_not_hammered_because_it_says_soon() -> None:
    assert decide(ONE, (), after(upstream(429, 0.001), tries=50), 0.0) == Retry(0.5)


def test_a_busy_provider_without_retries_sends_to_another_deployment_at_once() -> None:
    alias = TWO.model_copy(update={"num_retries": 0})
    assert decide(alias, (), replace(after(upstream(429)), other_deployment=True), 0.0) == Retry(0.0)


def test_a_busy_provider_goes_to_the_fallback_when_the_retries_are_spent() -> None:
    assert decide(WITH_FALLBACK, (), after(upstream(429), tries=3), 0.0) == Reroute("b", "upstream_429")


def test_default_fallbacks_serve_an_alias_without_its_own() -> None:
    assert decide(ONE, ("d",), after(upstream(503), tries=3), 0.0) == Reroute("d", "upstream_503")
    assert decide(WITH_FALLBACK, ("d",), after(upstream(503), tries=3), 0.0) == Reroute("b", "upstream_503")


def test_a_request_may_name_its_own_fallbacks_or_none() -> None:
    error = upstream(503)
    assert decide(WITH_FALLBACK, ("d",), after(error, tries=3), 0.0, ("own",)) == Reroute("own", "upstream_503")
    assert decide(WITH_FALLBACK, ("d",), after(error, tries=3), 0.0, ()) == Refuse(error)


def test_a_visited_fallback_is_passed_over() -> None:
    situation = replace(after(upstream(503), tries=3), visited=("b",))
    assert decide(WITH_FALLBACK, (), situation, 0.0) == Reroute("c", "upstream_503")


def test_an_alias_never_falls_back_to_itself() -> None:
    error = upstream(503)
    alias = ONE.model_copy(update={"fallbacks": ("a",)})
    assert decide(alias, (), after(error, tries=3), 0.0) == Refuse(error)


def test_the_fifth_reroute_is_the_last() -> None:
    error = upstream(503)
    fourth = replace(after(error, tries=3), visited=("w", "x", "y", "z"))
    fifth = replace(fourth, visited=("v", "w", "x", "y", "z"))
    assert decide(WITH_FALLBACK, (), fourth, 0.0) == Reroute("b", "upstream_503")
    assert decide(WITH_FALLBACK, (), fifth, 0.0) == Refuse(error)
