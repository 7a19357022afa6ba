"""Sets in flat arrays behave like sets."""

from hypothesis import given
from hypothesis import strategies as st

from broker.client.compact import MASK, HashSet, LineSet


def firsts(numbers: list[int]) -> list[bool]:
    """Whether each number stands where it stands for the first time."""
    first = {number: place for place, number in reversed(list(enumerate(numbers)))}
    return [first[number] == place for place, number in enumerate(numbers)]


@given(st.lists(st.integers(min_value=0, max_value=5000)))
def test_a_line_set_is_a_set(numbers: list[int]) -> None:
    lines = LineSet()
    assert [lines.add(number) for number in numbers] == firsts(numbers)
    assert len(lines) == len(set(numbers))
    assert [number for number in range(5001) if number in lines] == sorted(set(numbers))


@given(st.lists(st.integers(min_value=1, max_value=MASK) | st.integers(min_value=1, max_value=20), max_size=3000))
def test_a_hash_set_is_a_set(hashes: list[int]) -> None:
    compact = HashSet()
    assert [compact.add(each) for each in hashes] == firsts(hashes)
    assert len(compact) == len(set(hashes))


def test_a_hash_set_grows_and_forgets_nothing() -> None:
    compact = HashSet()
    assert all(compact.add(number * 0x9E3779B97F4A7C15) for number in range(1, 5000))
    assert not any(compact.add(number * 0x9E3779B97F4A7C15) for number in range(1, 5000))


def test_zero_is_a_hash_like_any_other() -> None:
    compact = HashSet()
    assert [compact.add(0), compact.add(0)] == [True, False]
