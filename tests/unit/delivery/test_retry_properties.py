"""Whole requests played through `decide`: they end, in time, and go nowhere twice."""

import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.config import Alias, Deployment
from broker.delivery.retry import MAX_REROUTES, Park, Refuse, Reroute, Retry, Situation, decide
from broker.errors import (
    BadUpstreamResponse,
    ContentPolicyViolation,
    ContextLengthExceeded,
    RateLimitExceeded,
    RequestError,
    UpstreamError,
    UpstreamTimeout,
)

NOW = 1_700_000_000_000
NAMES = ("a", "b", "c", "d", "e", "f", "g")
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""No bar on time: two cores may be shared with anything."""

names = st.lists(st.sampled_from(NAMES), max_size=4, unique=True).map(tuple)
waits = st.none() | st.floats(-1, 1e9) | st.just(math.inf)


@st.composite
def aliases(draw: st.DrawFn, name: str) -> Alias:
    count = draw(st.integers(1, 3))
    return Alias(
        name=name,
        deployments=tuple(
            Deployment(name=f"{name}/{number}", alias=name, provider="openai", model="m") for number in range(count)
        ),
        num_retries=draw(st.integers(0, 4)),
        fallbacks=draw(names),
        context_window_fallbacks=draw(names),
        content_policy_fallbacks=draw(names),
    )


def errors(statuses: st.SearchStrategy[int]) -> st.SearchStrategy[RequestError]:
    upstream = st.builds(UpstreamError, st.just("upstream"), status=statuses, retry_after=waits)
    own: st.SearchStrategy[RequestError] = st.sampled_from(
        [
            ContextLengthExceeded("long"),
            ContentPolicyViolation("rude"),
            RateLimitExceeded("key", retry_after=1.0),
            UpstreamTimeout("slow"),
            BadUpstreamResponse("HTML"),
        ]
    )
    return upstream | own


everything = errors(st.integers(400, 599))
not_busy = errors(st.integers(400, 599).filter(lambda status: status != 429))
catalogue = st.fixed_dictionaries({name: aliases(name) for name in NAMES})


def play(
    data: st.DataObject, kinds: st.SearchStrategy[RequestError], deadline_s: float | None
) -> tuple[list[str], int, Refuse | None]:
    """Fail every call until the request ends; return the aliases it saw, the tries, and its end if there was one."""
    config, defaults = data.draw(catalogue), data.draw(names)
    own = data.draw(st.none() | names)
    deadline_ms = None if deadline_s is None else NOW + round(deadline_s * 1000)
    now_ms, path, tries, calls = NOW, ["a"], 0, 0
    while calls < 60:
        calls, tries = calls + 1, tries + 1
        situation = Situation(
            error=data.draw(kinds),
            tries=tries,
            now_ms=now_ms,
            deadline_ms=deadline_ms,
            alias=path[-1],
            visited=tuple(path[:-1]),
            other_deployment=data.draw(st.booleans()),
            wait_for_deployment=data.draw(st.sampled_from([0.0, 0.2, 7.0, 100.0, math.inf])),
        )
        decision = decide(config[path[-1]], defaults, situation, data.draw(st.floats(0, 0.999)), own)
        match decision:
            case Refuse():
                return path, calls, decision
            case Reroute(alias, _):
                path.append(alias)
                tries = 0
            case Retry(after):
                assert 0 <= after <= 30
                now_ms += math.ceil(after * 1000)
            case Park(until_ms):
                assert until_ms - now_ms > 30_000
                now_ms = until_ms
        assert deadline_ms is None or now_ms <= deadline_ms
    return path, calls, None


@UNHURRIED
@given(data=st.data(), deadline_s=st.none() | st.floats(0, 100_000))
def test_no_request_waits_past_its_deadline_or_visits_an_alias_twice(
    data: st.DataObject, deadline_s: float | None
) -> None:
    path, _, _ = play(data, everything, deadline_s)
    assert len(path) == len(set(path))
    assert len(path) <= MAX_REROUTES + 1


@UNHURRIED
@given(data=st.data(), deadline_s=st.none() | st.floats(0, 100_000))
def test_every_request_that_meets_no_busy_provider_ends(data: st.DataObject, deadline_s: float | None) -> None:
    path, calls, end = play(data, not_busy, deadline_s)
    assert end is not None
    assert calls <= len(path) * 5


@UNHURRIED
@given(data=st.data())
def test_even_a_provider_that_stays_busy_ends_with_the_deadline(data: st.DataObject) -> None:
    busy = st.builds(UpstreamError, st.just("busy"), status=st.just(429), retry_after=waits)
    _, _, end = play(data, busy, 10.0)
    assert end is not None
    assert end.error.status == 504
