"""What a batch job shows while it runs."""

import io

from rich.console import Console

from broker.cli.progress import Pace, note, shown
from broker.client.batch import Progress


def progress(seconds: float, done: int, *, failed: int = 0, total: int = 100, skipped: int = 0) -> Progress:
    return Progress(
        total=total,
        done=done,
        failed=failed,
        skipped=skipped,
        rerouted=2,
        waiting=7,
        input_tokens=0,
        output_tokens=done * 10,
        seconds=seconds,
    )


def paced(*sightings: Progress) -> Pace:
    pace = Pace()
    for sighting in sightings:
        pace.add(sighting)
    return pace


def test_the_pace_is_that_of_the_last_ten_seconds() -> None:
    pace = paced(*(progress(second, 0) for second in range(20)), progress(25, 50))
    assert pace.tokens == 500 / 10
    assert pace.left == 50 / (50 / 10)


def test_nothing_is_promised_while_nothing_moves() -> None:
    assert (paced().left, paced(progress(1, 5)).left, paced(progress(1, 5), progress(2, 5)).left) == (None, None, None)


def test_a_line_tells_every_count_and_the_time_left() -> None:
    first, last = progress(0, 0), progress(10, 40, failed=10, skipped=25)
    assert note(last, paced(first, last)) == (
        "25 from before · 40 done · 10 failed · 2 rerouted · 7 waiting · 40 tokens/s · ETA 5 s"
    )


def test_a_finished_job_tells_how_long_it_took() -> None:
    last = progress(75, 100)
    assert note(last, paced(progress(0, 0), last)).endswith("took 1 min 15 s")


def test_elsewhere_than_on_a_terminal_a_line_comes_every_five_seconds() -> None:
    out = io.StringIO()
    with shown(Console(file=out, force_terminal=False, width=40)) as show:
        for second in range(12):
            show(progress(second, second))
    assert [line.partition("  ")[0] for line in out.getvalue().splitlines()] == ["5/100", "10/100"]


def test_a_terminal_sees_a_bar_that_ends_full() -> None:
    out = io.StringIO()
    with shown(Console(file=out, force_terminal=True, width=120, legacy_windows=False)) as show:
        show(progress(1, 100))
    assert "100 %" in out.getvalue()
    assert "done" in out.getvalue()


def test_on_a_narrow_terminal_nothing_is_cut_off() -> None:
    told = io.StringIO()
    with shown(Console(file=told, force_terminal=True, width=80, color_system=None)) as show:
        show(progress(0, 0))
        show(progress(5, 12))

    assert "tokens/s" in told.getvalue()
    assert "ETA" in told.getvalue()
