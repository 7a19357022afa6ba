"""`broker simulate`: providers that are none, for trying out limits, faults and loads without a bill."""

import asyncio
import json
import signal
import socket
import sys

import click
import uvicorn

from broker.cli.common import json_option
from broker.simulate.behaviour import Behaviour
from broker.simulate.server import FAULTS, Simulator


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65_535), default=4020, show_default=True, help="0 takes a free one.")
@click.option("--latency", type=click.FloatRange(0), default=0.0, show_default=True, help="Seconds to the first byte.")
@click.option(
    "--tokens-per-second", type=click.FloatRange(0, min_open=True), help="Pace of an answer; at once if absent."
)
@click.option("--output-tokens", type=click.IntRange(1), default=16, show_default=True, help="Length of an answer.")
@click.option("--rpm", type=click.IntRange(1), help="Requests a minute; more get 429 with the provider's own headers.")
@click.option("--tpm", type=click.IntRange(1), help="Tokens a minute.")
@click.option("--fault", "faults", multiple=True, metavar="KIND=RATE",
              help=f"Part of the calls that fail, such as 429=0.1; {', '.join(FAULTS)} or another status.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the faults.")
@json_option
def command(
    host: str, port: int, latency: float, tokens_per_second: float | None, output_tokens: int, rpm: int | None,
    tpm: int | None, faults: tuple[str, ...], seed: int, *, as_json: bool,
) -> None:  # fmt: skip
    """Serve the OpenAI, Anthropic and Gemini APIs until Ctrl-C. Nothing is called, any key is good.

    Requests are checked as strictly as the providers do. GET /-/stats counts calls by x-request-id; POST /-/script
    takes a JSON list of faults for the next calls.
    """
    behaviour = Behaviour(latency, tokens_per_second, output_tokens, rpm, tpm, dict(map(_fault, faults)), seed)
    asyncio.run(_serve(Simulator(behaviour), host, port, as_json=as_json))


def _fault(text: str) -> tuple[str, float]:
    kind, _, rate = text.partition("=")
    known = kind in FAULTS or (kind.isdigit() and 400 <= int(kind) <= 599)  # noqa: PLR2004 - the statuses of errors
    try:
        part = float(rate)
    except ValueError:
        part = -1.0
    if not known or not 0 <= part <= 1:
        raise click.BadParameter(
            f"{text!r}: KIND=RATE is expected, RATE from 0 to 1, KIND one of {', '.join(FAULTS)} or an error status"
        )
    return kind, part


async def _serve(simulator: Simulator, host: str, port: int, *, as_json: bool) -> None:
    listening = socket.create_server((host, port), backlog=4096)
    url = f"http://{host}:{listening.getsockname()[1]}"
    bases = {"openai": f"{url}/v1", "anthropic": f"{url}/v1", "gemini": f"{url}/v1beta", "stats": f"{url}/-/stats"}
    if as_json:
        click.echo(json.dumps(bases))
    else:
        for name, base in bases.items():
            click.echo(f"{name:<10} {base}")
        click.echo("any key is good; Ctrl-C stops it")
    sys.stdout.flush()
    config = uvicorn.Config(simulator.app, log_level="critical", access_log=False, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined] # ours end it without a traceback
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, setattr, server, "should_exit", True)  # noqa: FBT003 - uvicorn's own switch
    await server.serve(sockets=[listening])
