import math

import pytest

from broker.errors import (
    BadUpstreamResponse,
    Cancelled,
    ContextLengthExceeded,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    RequestError,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from broker.routing.health import LONGEST_COOLDOWN, Health

FAILURES = [
    UpstreamTimeout("slow"),
    UpstreamUnreachable("no route"),
    BadUpstreamResponse("HTML"),
    UpstreamError("down", status=503),
]
NO_FAILURES = [
    InvalidRequest("shape"),
    ContextLengthExceeded("long"),
    Cancelled("you did"),
    DeadlineExceeded("late"),
    InternalError("a defect of ours"),
    UpstreamError("too large", status=413),
]


def healthy(*, cooldown: float = 5.0, allowed_fails: int | None = None, alone: bool = False) -> Health:
    return Health(cooldown_time=cooldown, allowed_fails=allowed_fails, alone=alone)


def call(health: Health, now: float, error: RequestError | None = None) -> None:
    assert health.wait(now) == 0.0
    health.end(now, error, started=True, probe=health.begin())


def upstream(status: int, retry_after: float | None = None) -> UpstreamError:
    return UpstreamError("no", status=status, retry_after=retry_after)


def name(error: RequestError) -> str:
    return type(error).__name__


@pytest.mark.parametrize("status", [401, 402, 403, 404, 429])
def test_one_refusal_of_the_deployment_itself_is_enough(status: int) -> None:
    health = healthy()
    call(health, 10.0, upstream(status))
    assert (health.wait(10.0), health.wait(14.0), health.wait(15.0)) == (5.0, 1.0, 0.0)


@pytest.mark.parametrize("status", [401, 402, 403, 404, 429, 503])
def test_the_only_deployment_of_an_alias_is_not_cooled(status: int) -> None:
    health = healthy(alone=True)
    for _ in range(100):
        call(health, 10.0, upstream(status, 30.0))
    assert health.wait(10.0) == 0.0


def test_retry_after_times_the_cool_down() -> None:
    health = healthy()
    call(health, 0.0, upstream(429, 42.0))
    assert health.cooling_until(0.0) == 42.0


def test_an_absurd_retry_after_is_asked_about_again() -> None:
    health = healthy()
    call(health, 0.0, upstream(429, 1e12))
    assert health.wait(0.0) == LONGEST_COOLDOWN


def test_no_cool_down_time_means_no_cool_down_unless_the_upstream_names_one() -> None:
    health = healthy(cooldown=0.0)
    call(health, 0.0, upstream(429))
    assert (health.healthy, health.wait(0.0)) == (True, 0.0)
    call(health, 0.0, upstream(429, 3.0))
    assert health.wait(0.0) == 3.0


@pytest.mark.parametrize("error", FAILURES, ids=name)
def test_more_than_half_of_five_calls_failing_trips(error: RequestError) -> None:
    health = healthy()
    for outcome in (None, None, error, error):
        call(health, 0.0, outcome)
    assert health.healthy
    call(health, 1.0, error)
    assert not health.healthy


def test_half_of_the_calls_failing_does_not_trip() -> None:
    health = healthy()
    for _ in range(20):
        call(health, 0.0, None)
        call(health, 0.0, upstream(500))
    assert health.healthy


def test_four_failures_alone_do_not_trip() -> None:
    health = healthy()
    for _ in range(4):
        call(health, 0.0, upstream(500))
    assert health.healthy


def test_failures_older_than_a_minute_are_forgotten() -> None:
    health = healthy()
    for second in range(20):
        call(health, second * 20.0, upstream(500))
    assert health.healthy


@pytest.mark.parametrize("error", NO_FAILURES, ids=name)
def test_what_is_not_the_deployments_fault_never_trips(error: RequestError) -> None:
    health = healthy(allowed_fails=0)
    for _ in range(20):
        call(health, 0.0, error)
    assert health.healthy


@pytest.mark.parametrize("alone", [True, False])
def test_allowed_fails_replace_the_share(alone: bool) -> None:  # noqa: FBT001 - pytest passes by name
    health = healthy(allowed_fails=2, alone=alone)
    for outcome in (upstream(500), None, None, None, upstream(500), None):
        call(health, 0.0, outcome)
    assert health.healthy
    call(health, 0.0, upstream(500))
    assert not health.healthy


def tripped(until: float = 5.0) -> Health:
    health = healthy()
    call(health, 0.0, upstream(429, until))
    return health


def test_after_the_cool_down_one_call_at_a_time_probes() -> None:
    health = tripped()
    assert health.wait(5.0) == 0.0
    assert health.begin()
    assert health.wait(5.0) == math.inf


def test_a_probe_that_succeeds_heals() -> None:
    health = tripped()
    call(health, 5.0, None)
    assert health.healthy
    assert not health.begin()


def test_a_probe_that_fails_cools_again() -> None:
    health = tripped()
    call(health, 5.0, UpstreamTimeout("slow"))
    assert (health.wait(5.0), health.wait(10.0)) == (5.0, 0.0)


@pytest.mark.parametrize("error", [Cancelled("you did"), DeadlineExceeded("late"), InternalError("ours")], ids=name)
def test_a_probe_cut_off_proves_nothing(error: RequestError) -> None:
    health = tripped()
    call(health, 5.0, error)
    assert (health.healthy, health.wait(5.0)) == (False, 0.0)


def test_a_probe_that_never_started_leaves_its_place() -> None:
    health = tripped()
    health.end(5.0, None, started=False, probe=health.begin())
    assert (health.healthy, health.wait(5.0)) == (False, 0.0)


def test_calls_from_before_the_trip_neither_heal_nor_end_the_probe() -> None:
    health = tripped()
    health.end(1.0, None, started=True, probe=False)
    assert health.wait(1.0) == 4.0
    assert health.begin()
    health.end(6.0, None, started=True, probe=False)
    assert health.wait(6.0) == math.inf


def test_a_late_retry_after_lengthens_the_cool_down_and_never_shortens_it() -> None:
    health = tripped()
    health.end(1.0, upstream(429, 1.0), started=True, probe=False)
    assert health.cooling_until(1.0) == 5.0
    health.end(1.0, upstream(429, 20.0), started=True, probe=False)
    assert health.cooling_until(1.0) == 21.0
