"""`broker cancel`: cancel a request, queued or running."""

import asyncio
import sys
from pathlib import Path
from typing import Final

import click
import orjson

from broker.adapters.kafka import KafkaProducer
from broker.cli.common import config_option, json_option, load_settings, run_async
from broker.cli.duration import Duration
from broker.cli.result import open_journal
from broker.clock import SystemClock
from broker.config import Settings
from broker.envelope import encode_cancel
from broker.errors import ConfigError, Unavailable
from broker.ports import Answer, Journal, LogProducer
from broker.topics import TopicNames

CANCELLED: Final = 499
LOOK_EVERY_S: Final = 0.1


@click.command()
@click.argument("request_id")
@click.option("--wait", type=Duration(), default="5s", show_default=True, help="How long to look for the outcome.")
@json_option
@config_option
def command(*, request_id: str, wait: float, as_json: bool, config: Path | None) -> None:
    """Cancel REQUEST_ID, queued or running; its final reply is then 499 `cancelled`.

    Exit code 0: cancelled, or the cancel is written and waits for the request; 1: it had ended before.
    """
    settings = load_settings(config)
    if settings.kafka.bootstrap_servers is None:
        raise ConfigError("no Kafka: start `broker up` in this folder, or name kafka.bootstrap_servers")
    outcome = run_async(_cancel(settings, request_id, wait))
    click.echo(_as_json(request_id, outcome) if as_json else _as_text(request_id, outcome, wait))
    sys.exit(0 if outcome is None or outcome.status == CANCELLED else 1)


async def _cancel(settings: Settings, request_id: str, wait: float) -> Answer | None:
    names = TopicNames(settings.kafka.topic_prefix)
    producer, journal = KafkaProducer(settings.kafka), open_journal(settings)
    await producer.start()
    try:
        await journal.start()
        return await cancel(request_id, producer=producer, journal=journal, names=names, wait=wait)
    finally:
        await journal.stop()
        await producer.stop()


async def cancel(
    request_id: str, *, producer: LogProducer, journal: Journal, names: TopicNames, wait: float
) -> Answer | None:
    """Write the cancel unless the request has ended, and return its outcome; None when none came in `wait` seconds.

    A cancel of a request that has ended is not written: it would end the same id when it is sent again. Raises
    `Unavailable` where the control topic cannot be written, or the answers cannot be read.
    """
    outcome = await journal.outcome(request_id)
    if outcome is not None:
        return outcome
    (failure,) = await producer.send_all([encode_cancel(request_id, names, SystemClock().now_ms())])
    if failure is not None:
        raise Unavailable(f"the cancel could not be written: {failure.reason}")
    try:
        async with asyncio.timeout(wait):
            return await _outcome(journal, request_id)
    except TimeoutError:
        return None


async def _outcome(journal: Journal, request_id: str) -> Answer:
    while (outcome := await journal.outcome(request_id)) is None:  # noqa: ASYNC110 - a store has nothing to be woken by
        await asyncio.sleep(LOOK_EVERY_S)
    return outcome


def _as_json(request_id: str, outcome: Answer | None) -> str:
    status = None if outcome is None else outcome.status
    return orjson.dumps({"request_id": request_id, "status": status, "cancelled": status == CANCELLED}).decode()


def _as_text(request_id: str, outcome: Answer | None, wait: float) -> str:
    if outcome is None:
        return f"the cancel is written, no outcome within {wait:g} s: a worker applies it when it comes to {request_id}"
    if outcome.status == CANCELLED:
        return f"{request_id} is cancelled"
    return f"{request_id} ended before it could be cancelled, with status {outcome.status}: see `broker result`"
