"""Shows how a batch job goes: a live bar on a terminal, a line now and then elsewhere. Always on stderr."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

from broker.cli.duration import spelled
from broker.client.batch import Progress

LINE_EVERY_S: Final = 5.0
WINDOW_S: Final = 10.0


class Pace:
    """Tokens and lines per second over the last `WINDOW_S`, from the progress that was told."""

    def __init__(self) -> None:
        self._seen: deque[Progress] = deque()

    def add(self, now: Progress) -> None:
        """Take the next sighting."""
        self._seen.append(now)
        while len(self._seen) > 2 and now.seconds - self._seen[1].seconds >= WINDOW_S:  # noqa: PLR2004 - both ends
            self._seen.popleft()

    @property
    def tokens(self) -> float:
        """Output tokens per second."""
        return self._rate(lambda progress: progress.output_tokens)

    @property
    def left(self) -> float | None:
        """Seconds until the last line at this pace; None while nothing moves."""
        if not self._seen:
            return None
        last = self._seen[-1]
        rate = self._rate(lambda progress: progress.done + progress.failed)
        return (last.total - _ended(last)) / rate if rate > 0 else None

    def _rate(self, count: Callable[[Progress], int]) -> float:
        if len(self._seen) < 2:  # noqa: PLR2004 - both ends
            return 0.0
        first, last = self._seen[0], self._seen[-1]
        elapsed = last.seconds - first.seconds
        return (count(last) - count(first)) / elapsed if elapsed > 0 else 0.0


@contextmanager
def shown(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Yield what `run_batch` tells its progress to."""
    pace = Pace()
    if console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task("", total=None, note="")

            def move(progress: Progress) -> None:
                pace.add(progress)
                bar.update(
                    task, total=progress.total, completed=_ended(progress), note=note(progress, pace, color=True)
                )

            yield move
        return
    printed = 0.0

    def line(progress: Progress) -> None:
        nonlocal printed
        pace.add(progress)
        if progress.seconds - printed >= LINE_EVERY_S:
            printed = progress.seconds
            console.print(f"{_ended(progress)}/{progress.total}  {note(progress, pace)}", soft_wrap=True)

    yield line


def note(progress: Progress, pace: Pace, *, color: bool = False) -> str:
    """Write the counts of a progress in one line."""

    def many(count: int, word: str, style: str) -> str:
        return f"[{style}]{count} {word}[/]" if color and count else f"{count} {word}"

    parts = [
        many(progress.done, "done", "green"),
        many(progress.failed, "failed", "red"),
        many(progress.rerouted, "rerouted", "yellow"),
        f"{progress.waiting} waiting",
        f"{pace.tokens:.0f} tokens/s",
    ]
    if progress.skipped:
        parts.insert(0, f"{progress.skipped} from before")
    left = pace.left
    ended = _ended(progress) >= progress.total
    parts.append(
        f"took {spelled(progress.seconds)}" if ended else f"ETA {spelled(left)}" if left is not None else "ETA –"
    )
    return " · ".join(parts)


def _ended(progress: Progress) -> int:
    return progress.skipped + progress.done + progress.failed


def _bar(console: Console) -> Bar:
    # On a narrow terminal the bar shrinks and the note takes a second line: nothing of it is cut off.
    bar = BarColumn(bar_width=max(6, min(24, console.width - 90)))
    note_column = TextColumn("{task.fields[note]}", table_column=Column(no_wrap=False))
    columns = (bar, TextColumn("{task.percentage:>3.0f} %"), note_column)
    return Bar(*columns, console=console, refresh_per_second=4)
