"""The bench's arithmetic: a ratio is of one round, a bar is told as it is."""

import io

import pytest
from rich.console import Console

from tests.bench.contest import Figures, Scenario
from tests.bench.report import Runs, as_json, bars, ratio, show

INSTANT = Scenario("instant", "instant upstream", 0.0, 256, 1_000)
SLOW = Scenario("slow", "slow upstream", 1.0, 2_000, 1_000)


def runs(bare: list[float], product: list[float], rss: float | None = 100.0) -> Runs:
    return {
        "bare": [Figures(rate, 80.0, 60.0) for rate in bare],
        "product": [Figures(rate, 160.0, rss) for rate in product],
    }


def test_the_ratio_is_the_median_of_the_rounds_ratios_so_that_a_slow_spell_hits_both() -> None:
    assert ratio(runs(bare=[1000, 100, 1000], product=[600, 60, 500])) == pytest.approx(0.6)


def test_bars_are_met_from_their_value_on() -> None:
    results = {"instant": runs([1000], [500]), "slow": runs([1000], [849], rss=251.0)}
    assert [(bar.name, bar.met) for bar in bars(results)] == [
        ("instant_rate", True),
        ("slow_rate", False),
        ("slow_memory_mb", False),
    ]


def test_a_bar_without_a_value_is_not_met() -> None:
    assert not bars({"slow": runs([1], [1], rss=None)})[1].met


def test_the_file_holds_every_run_the_medians_and_the_bars() -> None:
    written = as_json([INSTANT], {"instant": runs([1000, 1200, 1100], [600, 700, 800])}, rounds=3)
    assert written["scenarios"]["instant"]["product"] == {
        "rate": 700,
        "cpu_us": 160,
        "rss_mb": 100,
        "rates": [600, 700, 800],
    }
    assert written["bars"] == {"instant_rate": {"value": 0.6, "bar": 0.5, "met": True}}


def test_the_table_shows_both_contenders_and_the_bars() -> None:
    output = io.StringIO()
    show(Console(file=output, width=120), [SLOW], {"slow": runs([1000], [900])})
    text = output.getvalue()
    assert "bare" in text
    assert "0.90" in text
    assert "met" in text
