"""Lanes and tenants, as limits.md has them: who goes next, what a busy lane gives to whom, what is put away."""

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.limits.fairness import KNOWN_SECONDS, PARKED_FROM, PARKED_MOST, PROBED_AT_ONCE, FairQueue, Lanes

FAR = 10**15


@dataclass(frozen=True)
class Item:
    name: str
    tenant: str = "a"
    tokens: int = 100


class Fill:
    """Adds items to a queue, each later than the one before."""

    def __init__(self, queue: FairQueue[Item]) -> None:
        self.queue = queue
        self.arrival = 0

    def add(self, name: str, tenant: str = "a", *, tokens: int = 100, priority: int = 0, deadline: int = FAR) -> Item:
        self.arrival += 1
        item = Item(name, tenant, tokens)
        self.queue.add(item, tenant, tokens, tokens // 2, priority, deadline, self.arrival)
        return item


def names(queue: FairQueue[Item]) -> list[str]:
    return [queue.take().name for _ in range(queue.count)]


def test_inside_a_tenant_priority_goes_first_then_the_earliest_deadline_then_arrival() -> None:
    fill = Fill(FairQueue())
    fill.add("late", deadline=300)
    fill.add("early", deadline=200)
    fill.add("early too", deadline=200)
    fill.add("urgent", priority=-1, deadline=900)
    fill.add("lowly", priority=1, deadline=100)
    assert names(fill.queue) == ["urgent", "early", "early too", "late", "lowly"]


def test_a_request_of_another_tenant_goes_next_however_many_stand_before_it() -> None:
    fill = Fill(FairQueue())
    for number in range(1_000):
        fill.add(f"a{number}")
    for _ in range(10):
        fill.queue.take()
    fill.add("b", "b")
    assert "b" in [fill.queue.take().tenant for _ in range(2)]


def test_a_tenant_that_was_away_has_saved_nothing_up() -> None:
    fill = Fill(FairQueue())
    for number in range(300):
        fill.add(f"a{number}")
    for _ in range(100):
        fill.queue.take()
    for number in range(100):
        fill.add(f"b{number}", "b")
    first = Counter(fill.queue.take().tenant for _ in range(20))
    assert abs(first["a"] - first["b"]) <= 1


def test_a_tenant_pays_for_what_it_took_also_where_it_had_nothing_waiting_for_a_moment() -> None:
    fill = Fill(FairQueue())
    fill.add("a0", tokens=10_000)
    fill.queue.take()
    for number in range(100):
        fill.add(f"b{number}", "b")
    fill.queue.take()
    fill.add("a1", tokens=10_000)
    assert [fill.queue.take().tenant for _ in range(98)].count("a") == 1


@pytest.mark.parametrize(("weights", "share"), [({"a": 3.0}, 0.75), ({"a": 1.0, "b": 1.0}, 0.5), ({"b": 9.0}, 0.1)])
def test_busy_tenants_get_tokens_by_weight_whatever_the_size_of_their_requests(
    weights: dict[str, float], share: float
) -> None:
    rng = random.Random(1)  # noqa: S311 - sizes, no secret
    fill = Fill(FairQueue(weights))
    got: Counter[str] = Counter()
    for tenant, size in (("a", 3_000), ("b", 300)):
        for number in range(30):
            fill.add(f"{tenant}{number}", tenant, tokens=rng.randint(1, size))
    while got.total() < 2_000_000:
        item = fill.queue.take()
        got[item.tenant] += item.tokens
        fill.add("next", item.tenant, tokens=rng.randint(1, 3_000 if item.tenant == "a" else 300))
    assert got["a"] / got.total() == pytest.approx(share, abs=0.01)


def test_requests_without_tokens_do_not_go_before_all_others_for_ever() -> None:
    fill = Fill(FairQueue())
    for number in range(50):
        fill.add(f"a{number}", tokens=0)
        fill.add(f"b{number}", "b", tokens=1)
    first = Counter(fill.queue.take().tenant for _ in range(20))
    assert first == {"a": 10, "b": 10}


def test_what_leaves_otherwise_is_not_handed_out_and_may_come_again() -> None:
    fill = Fill(FairQueue())
    first, second = fill.add("a1"), fill.add("a2")
    assert fill.queue.discard(first)
    assert not fill.queue.discard(first)
    fill.queue.add(first, "a", 100, 50, 0, FAR, 99)
    assert [fill.queue.take(), fill.queue.take()] == [second, first]
    assert (fill.queue.count, fill.queue.tokens, fill.queue.output, fill.queue.head()) == (0, 0, 0, None)
    with pytest.raises(IndexError):
        fill.queue.take()


def test_what_is_late_is_told_and_stays_until_it_is_let_go() -> None:
    fill = Fill(FairQueue())
    late = fill.add("late", deadline=1_000)
    fill.add("not late", deadline=1_001)
    assert fill.queue.late(1_000) == [late]
    assert fill.queue.count == 2


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[str, str, int, int]]:
    step = st.tuples(
        st.sampled_from(["add", "add", "take", "discard"]),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 5_000),
        st.integers(0, 3),
    )
    return draw(st.lists(step, max_size=200))


@given(steps())
@settings(max_examples=300, deadline=None)
def test_everything_added_leaves_once_and_counts_hold_whatever_the_order(
    script: list[tuple[str, str, int, int]],
) -> None:
    fill = Fill(FairQueue({"a": 3.0}))
    waiting: dict[Item, int] = {}
    for number, (action, tenant, tokens, choice) in enumerate(script):
        if action == "add":
            waiting[fill.add(f"{number}", tenant, tokens=tokens, priority=choice)] = choice
        elif action == "take" and waiting:
            expected = fill.queue.head()
            item = fill.queue.take()
            assert item is expected
            # Nothing of the same tenant that has a lower priority number was passed over.
            assert waiting.pop(item) <= min(
                (each for other, each in waiting.items() if other.tenant == item.tenant), default=9
            )
        elif action == "discard" and waiting:
            item = list(waiting)[choice % len(waiting)]
            assert fill.queue.discard(item)
            del waiting[item]
        assert fill.queue.count == len(waiting)
        assert fill.queue.tokens == sum(item.tokens for item in waiting)
        assert fill.queue.by_tenant() == Counter(item.tenant for item in waiting)
    assert {fill.queue.take() for _ in range(fill.queue.count)} == set(waiting)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 2_000)), min_size=400, max_size=400),
    st.tuples(*[st.sampled_from([1.0, 2.0, 3.0, 7.0])] * 3),
)
@settings(max_examples=50, deadline=None)
def test_no_busy_tenant_is_ever_more_than_one_request_behind_its_share(
    requests: list[tuple[str, int]], weight: tuple[float, float, float]
) -> None:
    weights = dict(zip("abc", weight, strict=True))
    fill = Fill(FairQueue(weights))
    for number, (tenant, tokens) in enumerate(requests):
        fill.add(f"{number}", tenant, tokens=tokens)
    waiting = fill.queue.by_tenant()
    got: Counter[str] = Counter()
    while all(fill.queue.by_tenant().get(tenant) for tenant in waiting):
        item = fill.queue.take()
        got[item.tenant] += item.tokens
        levels = [got[tenant] / weights[tenant] for tenant in waiting]
        assert max(levels) - min(levels) <= 2_000 / min(weights[tenant] for tenant in waiting)


def test_interactive_goes_first_and_batch_has_its_floor() -> None:
    lanes: Lanes[Item] = Lanes(0.05)
    interactive, batch = Fill(lanes.interactive), Fill(lanes.batch)
    for number in range(1_000):
        interactive.add(f"i{number}")
        batch.add(f"b{number}")
    taken = []
    for _ in range(400):
        lane = lanes.next()
        assert lane is not None
        lanes.take(lane)
        taken.append(lane is lanes.batch)
    assert sum(taken) == 20
    assert max(len(run) for run in "".join("ib"[each] for each in taken).split("i")) == 1


def test_without_a_floor_batch_waits_and_alone_it_gets_everything() -> None:
    lanes: Lanes[Item] = Lanes(0.0)
    Fill(lanes.batch).add("b")
    assert lanes.next() is lanes.batch
    Fill(lanes.interactive).add("i")
    assert lanes.next() is lanes.interactive


def test_what_batch_started_while_nothing_interactive_waited_keeps_the_next_permit_for_interactive() -> None:
    lanes: Lanes[Item] = Lanes(0.05)
    batch, interactive = Fill(lanes.batch), Fill(lanes.interactive)
    for number in range(100):
        batch.add(f"b{number}")
    for _ in range(50):
        lanes.take(lanes.batch)
    interactive.add("i")
    assert lanes.next() is lanes.interactive


def full(weights: dict[str, float] | None = None, **tenants: int) -> Fill:
    """Fill a queue, with starts seen of late: 10 a second of every tenant."""
    fill = Fill(FairQueue(weights, now=0.0))
    for tenant in tenants:
        for number in range(100):
            fill.add(f"old{number}", tenant)
    while fill.queue.count:
        fill.queue.take()
    fill.queue.roll(10.0)
    for tenant, count in tenants.items():
        for number in range(count):
            fill.add(f"{tenant}{number}", tenant)
    return fill


def test_the_surplus_of_a_noisy_tenant_is_put_away_last_first_and_others_keep_theirs() -> None:
    fill = full(a=1_000, b=20)
    surplus = fill.queue.surplus(1_024, 300, now_ms=0)
    assert {item.tenant for item, _ in surplus} == {"a"}
    assert [item.name for item, _ in surplus][:2] == ["a999", "a998"]
    assert (len(surplus), fill.queue.by_tenant()) == (300, {"a": 700, "b": 20})
    assert {seconds for _, seconds in surplus} == {50.0}


def test_a_lone_tenant_is_put_away_slowly_only_to_look_behind_it() -> None:
    fill = full(a=1_024)
    assert len(fill.queue.surplus(1_024, 512, now_ms=0)) == PROBED_AT_ONCE


def test_a_tenant_that_sent_nothing_for_long_is_no_reason_any_more() -> None:
    fill = full(a=1_024, b=0)
    fill.queue.roll(10.0 + KNOWN_SECONDS + 1)
    fill.queue.take()
    fill.queue.roll(10.0 + KNOWN_SECONDS + 2)
    assert len(fill.queue.surplus(1_024, 512, now_ms=0)) == PROBED_AT_ONCE


def test_nothing_is_put_away_where_nothing_starts_or_where_it_would_come_back_too_late() -> None:
    still = full(a=1_024, b=10)
    still.queue.roll(1_000.0)
    assert still.queue.surplus(1_024, 300, now_ms=0) == []
    hurried = full(a=0, b=1)
    for number in range(1_000):
        hurried.add(f"soon{number}", deadline=round(PARKED_FROM * 1_000))
    assert hurried.queue.surplus(1_024, 300, now_ms=0) == []


@pytest.mark.parametrize(("waiting", "seconds"), [(590, 0.0), (610, 30.5), (2_000, 100.0), (20_000, PARKED_MOST)])
def test_what_is_put_away_comes_back_well_before_its_turn_and_what_is_near_to_it_at_once(
    waiting: int, seconds: float
) -> None:
    """Ten start a second: the last of 2,000 has its turn in 200 s."""
    fill = full(a=waiting, b=1)
    (_, away), *_ = fill.queue.surplus(1_024, 1, now_ms=0)
    assert away == pytest.approx(seconds, rel=0.01)


def test_tenants_that_all_have_enough_to_start_are_left_alone_but_for_a_look_behind_them() -> None:
    fill = full(a=600, b=424)
    assert len(fill.queue.surplus(1_024, 512, now_ms=0)) == PROBED_AT_ONCE
