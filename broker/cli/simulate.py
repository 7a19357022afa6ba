"""`broker simulate`: providers that are none, for trying out limits, faults and loads without a bill."""

import asyncio
import json
import resource
import signal
import sys

import click

from broker.cli.common import json_option, run_async
from broker.simulate.bedrock_sign import ACCESS_KEY, SECRET_KEY
from broker.simulate.behaviour import FAULTS, Behaviour, is_fault
from broker.simulate.catalog import BASES
from broker.simulate.server import Simulator, listening

MOST_FILES = 65_536
"""A connection is a file: as many as thousands of calls at once need, where the system allows it."""


class _Range(click.ParamType[tuple[float, float]]):
    """`2` or `2-5`: seconds, or a range of them."""

    name = "seconds"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """Read it."""
        low, _, high = str(value).partition("-")
        try:
            found = float(low), float(high or low)
        except ValueError:
            found = -1.0, -1.0
        if not 0 <= found[0] <= found[1]:
            self.fail(f"{value!r}: seconds such as 0.5, or a range such as 3-6, are expected", param, ctx)
        return found


def _kind(text: str, shape: str) -> str:
    if text != "ok" and not is_fault(text):
        raise click.BadParameter(f"{text!r}: {shape} is expected, KIND one of {', '.join(FAULTS)} or an error status")
    return text


def _rates(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    del ctx, param
    found = {}
    for value in values:
        kind, _, rate = value.partition("=")
        try:
            part = float(rate)
        except ValueError:
            part = -1.0
        if kind == "ok" or not is_fault(kind) or not 0 <= part <= 1:
            raise click.BadParameter(
                f"{value!r}: KIND=RATE is expected, RATE from 0 to 1, KIND one of {', '.join(FAULTS)} or an error "
                "status"
            )
        found[kind] = part
    if sum(found.values()) > 1:
        raise click.BadParameter("KIND=RATE: the rates of all faults together are more than 1")
    return found


def _of_models(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
    del ctx, param
    pairs = [value.rpartition("=") for value in values]
    return [(model, _kind(kind, "NAME=KIND") if model else _kind("", "NAME=KIND")) for model, _, kind in pairs]


def _kinds(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str]:
    del ctx, param
    return [_kind(kind.strip(), "KIND,KIND,…") for kind in value.split(",")] if value else []


def _list_faults(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    del param
    if value:
        for kind, meaning in FAULTS.items():
            click.echo(f"{kind:<20} {meaning}")
        click.echo("and every other status from 400 to 599")
        ctx.exit()


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65_535), default=4020, show_default=True, help="0 takes a free one.")
@click.option("--latency", type=_Range(), default="0", show_default=True, metavar="SECONDS|LOW-HIGH",
              help="To the first byte; of a range each call takes a time at random.")  # fmt: skip
@click.option(
    "--tokens-per-second", type=click.FloatRange(0, min_open=True), help="Pace of an answer; at once if absent."
)
@click.option("--output-tokens", type=click.IntRange(1), default=16, show_default=True, help="Length of an answer.")
@click.option(
    "--rpm", type=click.IntRange(1), help="Requests a minute and model; more get 429 with the provider's own headers."
)
@click.option("--tpm", type=click.IntRange(1), help="Tokens a minute and model.")
@click.option("--window", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True, metavar="SECONDS",
              help="Over which --rpm and --tpm are counted: 30 a minute over 6 s lets 3 in at once.")  # fmt: skip
@click.option("--fault", "faults", multiple=True, metavar="KIND=RATE", callback=_rates,
              help="Part of the calls that fail, such as 429=0.1; --list-faults tells the kinds.")  # fmt: skip
@click.option("--model-fault", "model_faults", multiple=True, metavar="NAME=KIND", callback=_of_models,
              help="A model whose calls all fail; NAME may hold * and ?.")  # fmt: skip
@click.option("--script", metavar="KIND,KIND,…", callback=_kinds,
              help="Faults of the calls in turn, over and over; ok is none.")  # fmt: skip
@click.option("--slow", type=click.FloatRange(0), default=5.0, show_default=True, metavar="SECONDS",
              help="What the fault slow adds to the first byte.")  # fmt: skip
@click.option("--models", multiple=True, metavar="NAME", help="Only these models exist; NAME may hold * and ?.")
@click.option("--context-window", type=click.IntRange(1), metavar="TOKENS",
              help="Prompt and answer that need more get the provider's error.")  # fmt: skip
@click.option("--numbered", is_flag=True, help="Each answer tells its x-request-id and a number of its own.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of faults and latencies.")
@click.option("--list-faults", is_flag=True, is_eager=True, expose_value=False, callback=_list_faults,
              help="List the faults and exit.")  # fmt: skip
@json_option
def command(
    host: str, port: int, latency: tuple[float, float], tokens_per_second: float | None, output_tokens: int,
    rpm: int | None, tpm: int | None, window: float, faults: dict[str, float], model_faults: list[tuple[str, str]],
    script: list[str], slow: float, models: tuple[str, ...], context_window: int | None, seed: int, *, numbered: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Stand in for the providers' APIs until Ctrl-C: no provider and no model, so no bill.

    For trying out limits, faults and loads. It answers OpenAI, Anthropic, Gemini, Vertex, Cohere, Bedrock, Azure
    OpenAI, Jina and Voyage requests with made-up text, checks them as strictly as the providers do, and calls nothing.
    Any key is good, except that a SigV4 signature for Bedrock must be made with the two keys it prints.

    A tool is called where it is forced (two where several are and may be called at once), and as often as the last
    message of the user names it. A forced schema gets the plainest value that fits.

    GET /-/stats counts calls by API, model, outcome and x-request-id, those a provider would bill, and those whose
    caller went away; POST /-/script takes a JSON list of faults for the next calls.
    """
    behaviour = Behaviour(
        latency=latency, tokens_per_second=tokens_per_second, output_tokens=output_tokens, rpm=rpm, tpm=tpm,
        window=window, faults=faults, model_faults=model_faults, script=script, slow=slow, models=models,
        context_window=context_window, numbered=numbered, seed=seed,
    )  # fmt: skip
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, MOST_FILES) if hard >= 0 else MOST_FILES, hard))
    run_async(_serve(Simulator(behaviour), host, port, as_json=as_json))


async def _serve(simulator: Simulator, host: str, port: int, *, as_json: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with listening(simulator, host, port) as found:
        url = f"http://{host}:{found}"
        told = {name: f"{url}{base}" for name, base in BASES.items()}
        told |= {"bedrock_access_key": ACCESS_KEY, "bedrock_secret_key": SECRET_KEY}
        if as_json:
            click.echo(json.dumps(told))
        else:
            for name, value in told.items():
                click.echo(f"{name:<18} {value}")
            click.echo("no provider and no model: any key is good; Ctrl-C stops it")
        sys.stdout.flush()
        await stop.wait()
