"""`broker dead`: look at dead letters and send them again."""

import heapq
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import click
import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.adapters.kafka import KafkaProducer, KafkaReader
from broker.cli.common import config_option, json_option, load_settings, run_async
from broker.cli.duration import Duration
from broker.cli.moment import Moment
from broker.clock import SystemClock
from broker.config import Settings
from broker.envelope.dead import DeadLetter
from broker.errors import BrokerError
from broker.ledger.money import to_text
from broker.topics import TopicNames

if TYPE_CHECKING:
    from workers.dead import Bounds, DeadLetters, Estimate, Sought

Command = TypeVar("Command", bound=Callable[..., Any])

SHOWN = 2_000
"""Characters of a value that `show` prints without `--full`."""
WIDE: Final = 120
"""Columns of a terminal from which `list` has room for the origin too; `show` and `--json` always tell it."""
MOST_ID: Final = 36
"""Characters of a request id in a list: a UUID with its hyphens."""


class Unconfirmed(click.ClickException):
    """Nobody is there to ask; ends the command with one line and exit code 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line as every other error's."""
        click.echo(f"error: {self.format_message()}", file=file, err=True)


def selection(command: Command) -> Command:
    """Give a command the options that say which letters are meant."""
    options = [
        click.option("--alias", default=None, help="Only requests for this alias."),
        click.option("--reason", default=None, help="Only this code, or reasons with this text in them."),
        click.option("--since", type=Moment(), default=None, help="Dead since: 2h (ago), 7d, 2026-01-31, …"),
        click.option("--until", type=Moment(), default=None, help="Dead before: 30m (ago), 2026-01-31T12:00, …"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def command() -> None:
    """Dead letters: records that could not be served, kept as they were, with the reason."""


@command.command("list")
@selection
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The newest so many.")
@json_option
@config_option
def list_letters(config: Path | None, *, as_json: bool, limit: int, **chosen: Any) -> None:  # noqa: ANN401 - options
    """List dead letters, newest first."""
    matched, letters = run_async(_newest(load_settings(config), _sought(**chosen), limit))
    if as_json:
        rows = [_row(letter, alias) for letter, alias in letters]
        click.echo(orjson.dumps({"matched": matched, "letters": rows}, option=orjson.OPT_INDENT_2))
        return
    console = Console()
    if letters:
        console.print(_grid(letters, wide=console.width >= WIDE))
    console.print(f"{len(letters)} of {matched} dead letters" if matched else "no dead letters")


@command.command()
@click.argument("ids", nargs=-1, required=True)
@click.option("--full", is_flag=True, help="Print the whole value, however long.")
@json_option
@config_option
def show(config: Path | None, ids: tuple[str, ...], *, as_json: bool, full: bool) -> None:
    """Show dead letters by request id or origin: reason, headers, value. Exit 1 where one is not there."""
    _, letters = run_async(_newest(load_settings(config), _sought(ids=ids), limit=1_000))
    if as_json:
        rows = [_row(letter, alias, whole=True) for letter, alias in letters]
        click.echo(orjson.dumps({"letters": rows}, option=orjson.OPT_INDENT_2))
    else:
        for letter, _ in letters:
            _print_letter(letter, full=full)
    found = {name for letter, _ in letters for name in (letter.request_id, letter.origin)}
    missing = [name for name in ids if name not in found]
    if missing:
        raise BrokerError(f"no dead letter of {', '.join(missing)}; they are kept for 30 days")


@command.command()
@click.argument("ids", nargs=-1)
@selection
@click.option("--all", "everything", is_flag=True, help="Every dead letter; needed when nothing else narrows it.")
@click.option("--dry-run", is_flag=True, help="Only say how many there are and what they may cost.")
@click.option("--deadline", type=Duration(), default=None, help="Give them this long from now: 90s, 15m, 2h, 1d.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@config_option
def replay(
    config: Path | None,
    *,
    ids: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    deadline: float | None,
    yes: bool,
    as_json: bool,
    **chosen: Any,  # noqa: ANN401 - the options of `selection`
) -> None:
    """Send dead letters to the topics they came from, each under its own request id.

    A letter stays in the dead-letter topic until its retention ends, so a second replay sends it again.
    """
    sought = _sought(ids=ids, **chosen)
    if sought.everything and not everything:
        raise click.UsageError("say which: IDS, --alias, --reason, --since, --until, or --all")
    if as_json and not (dry_run or yes):
        raise click.UsageError("--json cannot ask: add --yes or --dry-run")
    if not (dry_run or yes or (sys.stdin and sys.stdin.isatty())):
        raise Unconfirmed("nothing is sent without a confirmation; add --yes (or --dry-run to look)")
    run_async(_replay(load_settings(config), sought, dry_run=dry_run, deadline=deadline, ask=not yes, as_json=as_json))


def _sought(
    *,
    ids: tuple[str, ...] = (),
    alias: str | None = None,
    reason: str | None = None,
    since: float | None = None,
    until: float | None = None,
) -> "Sought":
    from workers.dead import Sought  # noqa: PLC0415 - the core knows workers only inside its commands

    return Sought(
        ids=frozenset(ids),
        alias=alias,
        reason=reason,
        since=None if since is None else round(since * 1000),
        until=None if until is None else round(until * 1000),
    )


@asynccontextmanager
async def _opened(settings: Settings) -> "AsyncIterator[tuple[DeadLetters, Bounds]]":
    from workers.dead import DeadLetters  # noqa: PLC0415 - the core knows workers only inside its commands

    names = TopicNames(settings.kafka.topic_prefix)
    reader = KafkaReader(settings.kafka)
    await reader.start()
    try:
        letters = DeadLetters(reader, names)
        bounds = await letters.bounds()
        if not bounds:
            raise BrokerError(f"topic {names.dead} does not exist: `broker topics apply` makes it")
        yield letters, bounds
    finally:
        await reader.stop()


async def _newest(settings: Settings, sought: "Sought", limit: int) -> tuple[int, list[tuple[DeadLetter, str | None]]]:
    """Count what matches and keep the newest, in constant memory; newest first, each with its alias."""
    matched = 0
    kept: list[tuple[int, int, DeadLetter, str | None]] = []
    async with _opened(settings) as (letters, bounds):
        async for letter in letters.find(sought, bounds):
            matched += 1
            place = letters.place(letter)
            entry = (letter.at, matched, letter, place[0] if place else None)
            if len(kept) < limit:
                heapq.heappush(kept, entry)
            else:
                heapq.heappushpop(kept, entry)
    return matched, [(letter, alias) for _, _, letter, alias in sorted(kept, reverse=True)]


async def _replay(
    settings: Settings, sought: "Sought", *, dry_run: bool, deadline: float | None, ask: bool, as_json: bool
) -> None:
    from workers.dead import Estimator  # noqa: PLC0415 - the core knows workers only inside its commands

    now = SystemClock().now_ms()
    async with _opened(settings) as (letters, bounds):
        estimator = Estimator(settings, letters, now)
        async for letter in letters.find(sought, bounds):
            estimator.add(letter)
        total = estimator.total
        if not as_json:
            click.echo(_spelled(total, given=deadline is not None))
        if dry_run or not total.requests + total.others:
            if as_json:
                click.echo(orjson.dumps(_plan(total)))
            return
        if ask:
            click.confirm("Send them again?", abort=True)
        producer = KafkaProducer(settings.kafka)
        await producer.start()
        try:
            until = None if deadline is None else now + round(deadline * 1000)
            done = await letters.replay(letters.find(sought, bounds), producer, until)
        finally:
            await producer.stop()
    failed = [{"request_id": letter.request_id, "reason": reason} for letter, reason in done.failed]
    if as_json:
        click.echo(orjson.dumps({**_plan(total), "sent": done.sent, "failed": failed}))
    else:
        for topic, count in sorted(done.sent.items()):
            click.echo(f"{count} sent to {topic}")
    if failed:
        first = failed[0]
        raise BrokerError(f"{len(failed)} could not be sent, the first is {first['request_id']}: {first['reason']}")


def _plan(total: "Estimate") -> dict[str, Any]:
    return {
        "requests": total.requests,
        "others": total.others,
        "by_alias": total.by_alias,
        "priced": total.priced,
        "estimated_cost": to_text(total.cost_pico),
        "expired": total.expired,
    }


def _spelled(total: "Estimate", *, given: bool) -> str:
    aliases = ", ".join(f"{count} for {alias}" for alias, count in sorted(total.by_alias.items()))
    text = f"{total.requests} requests" + (f" ({aliases})" if aliases else "")
    if total.others:
        text += f" and {total.others} other records"
    if total.requests:
        text += f"; estimated cost ${to_text(total.cost_pico)[:-6]}"
    if total.priced < total.requests:
        text += f", {total.requests - total.priced} of them without a known price"
    if total.expired and not given:
        text += f"; the deadline of {total.expired} has passed (--deadline gives a new one)"
    return text


def _at(letter: DeadLetter) -> str:
    return datetime.fromtimestamp(letter.at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _grid(letters: Sequence[tuple[DeadLetter, str | None]], *, wide: bool) -> Table:
    """One line a letter; what does not fit ends in an ellipsis, but an id that `show` takes does not."""
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    grid.add_column("at (UTC)", no_wrap=True)
    grid.add_column("request id", no_wrap=True, max_width=MOST_ID)
    for name in ("alias", "code", "reason", *(["origin"] if wide else [])):
        grid.add_column(name)
    for letter, alias in letters:
        # The year says nothing: letters are kept for 30 days.
        texts = [_at(letter)[5:], letter.request_id, alias or "–", letter.code, letter.reason]
        texts += [letter.origin] if wide else []
        # A column that may not wrap is not narrowed to make room; its cells are cut all the same.
        grid.add_row(*(Text(" ".join(text.split()), no_wrap=True, overflow="ellipsis") for text in texts))
    return grid


def _row(letter: DeadLetter, alias: str | None, *, whole: bool = False) -> dict[str, Any]:
    row: dict[str, Any] = {
        "at": datetime.fromtimestamp(letter.at / 1000, UTC).isoformat(timespec="milliseconds"),
        "request_id": letter.request_id,
        "alias": alias,
        "code": letter.code,
        "reason": letter.reason,
        "origin": letter.origin,
    }
    if whole:
        from workers.dead import header_texts  # noqa: PLC0415 - the core knows workers only inside its commands

        value = letter.record.value
        row["headers"] = header_texts(letter)
        row["value"] = None if value is None else value.decode(errors="backslashreplace")
    return row


def _print_letter(letter: DeadLetter, *, full: bool) -> None:
    from workers.dead import header_texts  # noqa: PLC0415 - the core knows workers only inside its commands

    click.echo(f"{letter.request_id}  {letter.code}  {_at(letter)} UTC\n  {letter.reason}\n  from {letter.origin}")
    for name, text in header_texts(letter).items():
        click.echo(f"  {name}: {text}")
    value = letter.record.value
    text = "(no value)" if value is None else value.decode(errors="backslashreplace")
    cut = len(text) - SHOWN
    click.echo(text if full or cut <= 0 else f"{text[:SHOWN]}… ({cut} more characters, --full prints them)")
    click.echo()
