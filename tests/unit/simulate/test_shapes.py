"""A shape names the rule that is broken and the field that breaks it."""

from typing import Any

import pytest

from broker.simulate.openai_words import duration
from broker.simulate.shapes import (
    FILLED,
    TEXT,
    Wrong,
    base64_text,
    boolean,
    either,
    integer,
    listed,
    number,
    one_of,
    struct,
    tagged,
    text,
    texts_by_name,
)

SHAPE = struct(
    {
        "name": text(2, 4), "count": integer(1, 3), "part": number(0, 1), "good": boolean, "kind": one_of("a", "b"),
        "all": listed(FILLED, 1, 2), "data": base64_text, "tags": texts_by_name,
        "one": either(TEXT, listed(tagged("type", {"x": struct({"type": TEXT, "n": integer()}, "n")}))),
    },
    "name",
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "rule", "place"),
    [
        ({"name": None}, "missing", ("name",)),
        ({"more": 1}, "unknown", ("more",)),
        ({"name": "a"}, "short", ("name",)),
        ({"name": "abcde"}, "long", ("name",)),
        ({"count": True}, "type", ("count",)),
        ({"count": 1.5}, "type", ("count",)),
        ({"count": 0}, "low", ("count",)),
        ({"part": 1.5}, "high", ("part",)),
        ({"good": 1}, "type", ("good",)),
        ({"kind": "c"}, "value", ("kind",)),
        ({"kind": 1}, "type", ("kind",)),
        ({"all": []}, "few", ("all",)),
        ({"all": ["a"] * 3}, "many", ("all",)),
        ({"all": ["a", ""]}, "short", ("all", 1)),
        ({"data": "a?"}, "form", ("data",)),
        ({"tags": {"a": 1}}, "type", ("tags", "a")),
        ({"one": 3}, "type", ("one",)),
        ({"one": [{"type": "y"}]}, "value", ("one", 0, "type")),
        ({"one": [{"type": "x", "n": "1"}]}, "type", ("one", 0, "n")),
        ({"one": [{}]}, "missing", ("one", 0, "type")),
    ],
)
def test_a_broken_rule_is_named_with_its_place(change: dict[str, Any], rule: str, place: tuple[Any, ...]) -> None:
    with pytest.raises(Wrong) as wrong:
        SHAPE({"name": "abc", **change}, ())
    assert (wrong.value.rule, wrong.value.place) == (rule, place)


def test_what_fits_passes_and_a_null_is_as_if_absent() -> None:
    SHAPE({"name": "abc", "count": None, "part": 1, "one": [{"type": "x", "n": 1}], "data": "YQ==", "tags": {}}, ())


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.0, "0ms"), (0.02, "20ms"), (1.0, "1s"), (59.5, "59.5s"), (360.0, "6m0s"), (7205.25, "2h0m5.25s")],
)
def test_a_time_is_written_as_the_reset_headers_do(seconds: float, told: str) -> None:
    assert duration(seconds) == told
