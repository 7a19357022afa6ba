"""Who calls, and the limits of that caller's own key."""

import hashlib
from collections import deque
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import Settings, VirtualKey
from broker.errors import BudgetExceeded, InvalidApiKey, ModelNotAllowed, RateLimitExceeded
from broker.keys import Caller, KeyLimits, KeyRing

NOW_MS = 1_700_000_000_000
TOKEN = "sk-secret-token"
PICO = 10**12


def key(**fields: Any) -> VirtualKey:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    return VirtualKey(**{"hash": digest, "key_id": "k1", "tenant": "acme", "team": "red", **fields})


def ring(*keys: VirtualKey, anonymous: str | None = "anonymous") -> KeyRing:
    return KeyRing(Settings(keys={each.hash: each for each in keys}, anonymous_tenant=anonymous))


def limited(**fields: Any) -> KeyRing:
    return ring(key(**fields))


def calls(keys: KeyRing) -> Caller:
    return keys.tenant_of(f"Bearer {TOKEN}", NOW_MS, "chat")


def told_to_wait(limits: KeyLimits, caller: Caller, tokens: int, now: float) -> float | None:
    """Take, and return the seconds a refusal names; None where it was let in."""
    try:
        limits.take(caller, tokens, now)
    except RateLimitExceeded as error:
        return error.retry_after
    return None


def test_a_known_key_tells_its_tenant_team_and_id() -> None:
    caller = calls(ring(key()))
    assert (caller.tenant, caller.key_id, caller.team) == ("acme", "k1", "red")


def test_without_a_key_the_anonymous_tenant_calls() -> None:
    assert ring(anonymous="guests").tenant_of(None, NOW_MS, "chat") == Caller("guests", "", "", None)


def test_without_a_key_nobody_calls_where_the_anonymous_tenant_is_refused() -> None:
    with pytest.raises(InvalidApiKey, match="a key is needed"):
        ring(anonymous=None).tenant_of(None, NOW_MS, "chat")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer{TOKEN}", "Bearer \ud800"]
)
def test_a_malformed_or_unknown_header_is_refused_even_where_anonymous_is_allowed(header: str) -> None:
    with pytest.raises(InvalidApiKey):
        ring(key()).tenant_of(header, NOW_MS, "chat")


@pytest.mark.parametrize("header", [f"bearer {TOKEN}", f"BEARER {TOKEN}", f"Bearer  {TOKEN} "])
def test_the_scheme_is_read_in_any_case(header: str) -> None:
    assert ring(key()).tenant_of(header, NOW_MS, "chat").tenant == "acme"


def test_a_blocked_key_is_refused() -> None:
    with pytest.raises(InvalidApiKey, match="k1 is blocked"):
        calls(ring(key(blocked=True)))


def test_a_key_is_good_until_the_millisecond_it_expires() -> None:
    keys = ring(key(expires_ms=NOW_MS))
    assert keys.tenant_of(f"Bearer {TOKEN}", NOW_MS - 1, "chat").key_id == "k1"
    with pytest.raises(InvalidApiKey, match="has expired"):
        keys.tenant_of(f"Bearer {TOKEN}", NOW_MS, "chat")


def test_a_key_may_use_only_its_aliases() -> None:
    keys = ring(key(aliases=("chat",)))
    assert keys.tenant_of(f"Bearer {TOKEN}", NOW_MS, "chat").key_id == "k1"
    with pytest.raises(ModelNotAllowed, match="may not use other"):
        keys.tenant_of(f"Bearer {TOKEN}", NOW_MS, "other")


def test_no_message_and_no_repr_holds_the_key() -> None:
    keys = ring(key(blocked=True))
    with pytest.raises(InvalidApiKey) as blocked:
        calls(keys)
    with pytest.raises(InvalidApiKey) as unknown:
        keys.tenant_of("Bearer sk-other-token", NOW_MS, "chat")
    assert [text for text in (str(blocked.value), str(unknown.value), repr(keys)) if "token" in text] == []


def test_unknown_keys_are_not_remembered() -> None:
    keys = ring(key())
    calls(keys)
    for number in range(50):
        with pytest.raises(InvalidApiKey):
            keys.tenant_of(f"Bearer guess-{number}", NOW_MS, "chat")
    assert repr(keys) == "KeyRing(1 keys)"
    assert len(keys._known) == 1  # noqa: SLF001 - its size is what keeps memory bounded


def test_requests_of_a_limited_key_are_told_apart_and_others_share_a_caller() -> None:
    assert calls(keys := limited(rpm_limit=1)) is not calls(keys)
    assert calls(keys := limited()) is calls(keys)


def test_an_anonymous_or_unlimited_caller_has_no_limits() -> None:
    limits = KeyLimits()
    for caller in (ring().tenant_of(None, NOW_MS, "chat"), calls(limited())):
        for _ in range(1000):
            limits.take(caller, 10**9, 0.0)
    assert limits.running() == {}


def test_a_request_over_the_rate_is_refused_with_the_true_remaining_time() -> None:
    keys, limits = limited(rpm_limit=2), KeyLimits()
    limits.take(calls(keys), 1, 0.0)
    limits.take(calls(keys), 1, 20.0)
    with pytest.raises(RateLimitExceeded, match="rpm_limit of 2") as caught:
        limits.take(calls(keys), 1, 45.0)
    assert caught.value.retry_after == 15.0
    limits.take(calls(keys), 1, 60.0)


def test_tokens_over_the_rate_are_refused_until_enough_of_them_are_old() -> None:
    keys, limits = limited(tpm_limit=100), KeyLimits()
    limits.take(calls(keys), 30, 0.0)
    limits.take(calls(keys), 60, 10.0)
    with pytest.raises(RateLimitExceeded, match="tpm_limit of 100") as caught:
        limits.take(calls(keys), 50, 30.0)
    assert caught.value.retry_after == 40.0


def test_a_request_larger_than_the_limit_runs_in_an_empty_window() -> None:
    keys, limits = limited(tpm_limit=100), KeyLimits()
    limits.take(calls(keys), 5000, 0.0)
    with pytest.raises(RateLimitExceeded):
        limits.take(calls(keys), 1, 59.9)
    limits.take(calls(keys), 5000, 60.0)


def test_a_refusal_burns_nothing() -> None:
    keys, limits = limited(rpm_limit=10, tpm_limit=100, max_parallel_requests=1), KeyLimits()
    first = calls(keys)
    limits.take(first, 90, 0.0)
    for _ in range(20):
        with pytest.raises(RateLimitExceeded):
            limits.take(refused := calls(keys), 5, 1.0)
        limits.release(refused)
    limits.release(first)
    limits.take(calls(keys), 10, 1.0)


def test_only_so_many_requests_of_a_key_run_at_once() -> None:
    keys, limits = limited(max_parallel_requests=2), KeyLimits()
    first, second = calls(keys), calls(keys)
    limits.take(first, 1, 0.0)
    limits.take(second, 1, 0.0)
    with pytest.raises(RateLimitExceeded, match="max_parallel_requests") as caught:
        limits.take(calls(keys), 1, 0.0)
    assert caught.value.retry_after is None
    limits.release(first)
    limits.take(calls(keys), 1, 0.0)


def test_an_end_that_is_told_twice_frees_one_place() -> None:
    keys, limits = limited(max_parallel_requests=1), KeyLimits()
    limits.take(first := calls(keys), 1, 0.0)
    limits.settle(first, tokens=1)
    limits.take(second := calls(keys), 1, 0.0)
    limits.release(first)
    with pytest.raises(RateLimitExceeded):
        limits.take(calls(keys), 1, 0.0)
    limits.release(second)
    assert set(limits.running().values()) == {0}


def test_settling_replaces_the_estimate_by_the_truth() -> None:
    keys, limits = limited(tpm_limit=100), KeyLimits()
    limits.take(caller := calls(keys), 90, 0.0)
    limits.settle(caller, tokens=20)
    limits.take(calls(keys), 80, 1.0)


def test_a_refunded_request_counts_nowhere() -> None:
    keys, limits = limited(rpm_limit=1, tpm_limit=100), KeyLimits()
    limits.take(caller := calls(keys), 100, 0.0)
    limits.refund(caller)
    limits.take(calls(keys), 100, 0.0)


def test_a_released_request_counts_for_its_minute() -> None:
    keys, limits = limited(rpm_limit=1), KeyLimits()
    limits.take(caller := calls(keys), 1, 0.0)
    limits.release(caller)
    with pytest.raises(RateLimitExceeded):
        limits.take(calls(keys), 1, 59.0)


def test_a_settlement_after_the_minute_leaves_the_window_alone() -> None:
    keys, limits = limited(tpm_limit=100), KeyLimits()
    limits.take(caller := calls(keys), 50, 0.0)
    limits.take(calls(keys), 100, 60.0)
    limits.settle(caller, tokens=500)
    limits.take(calls(keys), 100, 120.0)


def test_a_spent_budget_refuses_the_next_request() -> None:
    keys, limits = limited(max_budget=Decimal("0.5")), KeyLimits()
    limits.take(first := calls(keys), 1, 0.0)
    limits.settle(first, tokens=1, cost_pico=PICO // 2 - 1)
    limits.take(second := calls(keys), 1, 0.0)
    limits.settle(second, tokens=1, cost_pico=1)
    with pytest.raises(BudgetExceeded, match=r"k1 has spent 0\.5 USD of its budget of 0\.5 USD"):
        limits.take(calls(keys), 1, 0.0)


def test_a_budget_of_nothing_refuses_everything() -> None:
    with pytest.raises(BudgetExceeded):
        KeyLimits().take(calls(limited(max_budget=Decimal(0))), 1, 0.0)


def test_an_unpriced_answer_spends_nothing() -> None:
    keys, limits = limited(max_budget=Decimal(1)), KeyLimits()
    limits.take(caller := calls(keys), 1, 0.0)
    limits.settle(caller, tokens=10**9, cost_pico=None)
    limits.take(calls(keys), 1, 0.0)


def test_keys_do_not_share_their_limits() -> None:
    limits = KeyLimits()
    other = VirtualKey(hash="0" * 64, key_id="k2", tenant="beta", rpm_limit=1)
    limits.take(calls(limited(rpm_limit=1)), 1, 0.0)
    limits.take(Caller("beta", "k2", "", other), 1, 0.0)


@given(
    st.lists(st.tuples(st.floats(0, 40), st.integers(1, 60), st.sampled_from(["settle", "release", "refund", "run"]))),
    st.integers(1, 5),
    st.integers(1, 100),
)
def test_no_sixty_seconds_ever_hold_more_than_the_limit(
    steps: list[tuple[float, int, str]], rpm: int, tpm: int
) -> None:
    keys, limits = limited(rpm_limit=rpm, tpm_limit=tpm), KeyLimits()
    now = 0.0
    taken: deque[tuple[float, int]] = deque()
    for pause, tokens, end in steps:
        now += pause
        caller = calls(keys)
        wait = told_to_wait(limits, caller, tokens, now)
        if wait is not None:
            assert 0 < wait < 60.001
            continue
        used = min(tokens, tpm)
        if end == "refund":
            limits.refund(caller)
            continue
        if end == "settle":
            limits.settle(caller, tokens=used // 2)
            used //= 2
        elif end == "release":
            limits.release(caller)
        taken.append((now, used))
        while taken and taken[0][0] <= now - 60:
            taken.popleft()
        assert len(taken) <= rpm
        assert sum(amount for _, amount in taken) <= tpm


@given(st.lists(st.tuples(st.floats(0, 40), st.integers(1, 60)), min_size=1), st.integers(1, 5), st.integers(1, 100))
def test_a_refused_request_is_let_in_after_the_time_it_was_told(
    steps: list[tuple[float, int]], rpm: int, tpm: int
) -> None:
    keys, limits = limited(rpm_limit=rpm, tpm_limit=tpm), KeyLimits()
    now = 0.0
    for pause, tokens in steps:
        now += pause
        wait = told_to_wait(limits, calls(keys), tokens, now)
        if wait is not None:
            now += wait + 1e-6
            limits.take(calls(keys), tokens, now)
