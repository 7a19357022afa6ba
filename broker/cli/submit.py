"""`broker submit`: send an OpenAI batch file and collect the answers."""

import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click
import orjson
from rich.console import Console

from broker.cli.common import config_option, json_option, load_settings, run_async
from broker.cli.duration import Duration, spelled
from broker.cli.progress import shown
from broker.client import BrokerClient, Lane
from broker.client.batch import IN_FLIGHT, BatchSummary, Progress, run_batch
from broker.client.batch_files import BatchPaths, default_errors_path
from broker.client.batch_input import BatchFileError, ResultsExist
from broker.config import Settings
from broker.errors import ConfigError

INTERRUPTED: Final = 130

FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the command line asks for."""

    file: Path
    output: Path
    errors: Path
    resume: bool
    force: bool
    lane: Lane
    deadline: float | None
    tags: dict[str, str]
    in_flight: int
    key: str | None
    config: Path | None


def tags_of(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Turn `name=value` texts into a dictionary; ends the command with exit code 2 for anything else."""
    pairs = [value.partition("=") for value in values]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise click.BadParameter(f"{name!r} is not of the form NAME=VALUE", ctx=ctx, param=param)
    return {name: value for name, _, value in pairs}


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=FILE, required=True, help="Where the answers go, one line each.")
@click.option("--errors", type=FILE, default=None, help="Where failed lines go.  [default: OUTPUT.errors.jsonl]")
@click.option("--resume", is_flag=True, help="Continue: send only the lines that have no final reply yet.")
@click.option("--force", is_flag=True, help="Overwrite the files of an earlier run.")
@click.option(
    "--lane",
    type=click.Choice([lane.value for lane in Lane]),
    default=Lane.BATCH.value,
    show_default=True,
    help="Batch is served from what interactive leaves over.",
)
@click.option("--deadline", type=Duration(), default=None, help="For the whole file: 90s, 15m, 2h, 1d.")
@click.option("--tag", "tags", multiple=True, callback=tags_of, metavar="NAME=VALUE", help="Lands in the ledger.")
@click.option(
    "--in-flight", type=click.IntRange(1, 100_000), default=IN_FLIGHT, show_default=True, help="Open at once."
)
@click.option("--key", envvar="BROKER_API_KEY", show_envvar=True, default=None, help="Virtual key to send as.")
@json_option
@config_option
def command(
    *,
    file: Path,
    output: Path,
    errors: Path | None,
    resume: bool,
    force: bool,
    lane: str,
    deadline: float | None,
    tags: dict[str, str],
    in_flight: int,
    key: str | None,
    as_json: bool,
    config: Path | None,
) -> None:
    """Send the lines of FILE (OpenAI batch format) and write every answer to OUTPUT.

    Exit code 0: every line was answered; 1: some failed, see the error file; 2: wrong use; 130: interrupted.
    """
    if resume and force:
        raise click.UsageError("--resume continues a run, --force throws it away: give one of them")
    job = Job(
        file=file,
        output=output,
        errors=errors or default_errors_path(output),
        resume=resume,
        force=force,
        lane=Lane(lane),
        deadline=deadline,
        tags=tags,
        in_flight=in_flight,
        key=key,
        config=config,
    )
    settings = load_settings(config)
    if settings.kafka.bootstrap_servers is None:
        raise ConfigError("no Kafka: start `broker up` in this folder, or name kafka.bootstrap_servers")
    summary = _run(job, settings)
    _tell(summary, job, as_json=as_json)
    sys.exit(0 if summary.all_ok else 1)


def _run(job: Job, settings: Settings) -> BatchSummary:
    ended = 0
    try:
        if not job.resume and not job.force:
            BatchPaths(job.output, job.errors).check_new()
        with shown(Console(stderr=True)) as show:

            def on_progress(progress: Progress) -> None:
                nonlocal ended
                ended = progress.skipped + progress.done + progress.failed
                show(progress)

            return run_async(_submit(job, settings, on_progress))
    except KeyboardInterrupt:
        _say_how_to_resume(job, ended)
        sys.exit(INTERRUPTED)
    except ResultsExist as error:
        raise ConfigError(f"{error} (--resume, --force)") from None
    except BatchFileError as error:
        raise ConfigError(str(error)) from None


async def _submit(job: Job, settings: Settings, on_progress: Callable[[Progress], None]) -> BatchSummary:
    client = BrokerClient(kafka=settings.kafka, key=job.key, alias_names=settings.alias_names)
    async with client:
        return await run_batch(
            client,
            job.file,
            job.output,
            job.errors,
            lane=job.lane,
            deadline=job.deadline,
            tags=job.tags or None,
            in_flight=job.in_flight,
            resume=job.resume,
            overwrite=job.force,
            on_progress=on_progress,
        )


def _say_how_to_resume(job: Job, ended: int) -> None:
    words = ["broker", "submit", str(job.file), "-o", str(job.output), "--errors", str(job.errors), "--resume"]
    words += ["--config", str(job.config)] if job.config is not None else []
    words += [
        "--lane",
        job.lane.value,
        "--in-flight",
        str(job.in_flight),
        *(f"--tag={name}={value}" for name, value in job.tags.items()),
    ]
    click.echo(
        f"\ninterrupted: {ended} lines have their result; the rest is continued by\n  {shlex.join(words)}", err=True
    )


def _tell(summary: BatchSummary, job: Job, *, as_json: bool) -> None:
    if as_json:
        record = asdict(summary) | {"output": str(job.output), "errors": str(job.errors)}
        click.echo(orjson.dumps(record).decode())
        return
    before = f", {summary.skipped} from before ({summary.failed_before} failed)" if summary.skipped else ""
    click.echo(
        f"{summary.total} lines: {summary.ok} answered, {summary.failed} failed, {summary.rerouted} rerouted{before}; "
        f"{summary.input_tokens} tokens in, {summary.output_tokens} out, {spelled(summary.seconds)}"
    )
    click.echo(f"answers: {job.output}")
    if not summary.all_ok:
        click.echo(f"errors:  {job.errors}")
    if summary.unanswered:
        click.echo(f"{summary.unanswered} lines have no final reply: the same command with --resume sends them again")
