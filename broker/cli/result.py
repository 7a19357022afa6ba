"""`broker result`: read the stored answer of a request."""

import sys
from pathlib import Path

import click
import orjson

from broker.adapters.redis_journal import RedisJournal
from broker.cli.common import config_option, json_option, load_settings, run_async
from broker.config import Settings
from broker.errors import ConfigError
from broker.ports import Answer
from broker.topics import TopicNames


@click.command()
@click.argument("request_id")
@click.option("--headers", is_flag=True, help="Print what the reply's headers say before the body.")
@json_option
@config_option
def command(*, request_id: str, headers: bool, as_json: bool, config: Path | None) -> None:
    """Print the stored answer of REQUEST_ID.

    A request that carried no request-id header has the id TOPIC-PARTITION-OFFSET of its record. Answers are kept for
    redis.answer_ttl seconds. Exit code 0: printed, also where the answer is an error; 1: there is none.
    """
    answer = run_async(_look_up(load_settings(config), request_id))
    if answer is None:
        click.echo(
            f"error: no answer is stored for {request_id}: it is not finished, was never sent, or is too old", err=True
        )
        sys.exit(1)
    click.echo(_as_json(answer) if as_json else _as_text(answer, headers=headers))


async def _look_up(settings: Settings, request_id: str) -> Answer | None:
    journal = open_journal(settings)
    await journal.start()
    try:
        return await journal.outcome(request_id)
    finally:
        await journal.stop()


def open_journal(settings: Settings) -> RedisJournal:
    """Return the journal, not started. Raises `ConfigError` where no Redis is known."""
    if settings.redis.url is None:
        raise ConfigError("no Redis: start `broker up` in this folder, or name redis.url")
    return RedisJournal(settings.redis, TopicNames(settings.kafka.topic_prefix))


def _as_json(answer: Answer) -> bytes:
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = answer.body.decode(errors="replace")
    record = {
        "request_id": answer.request_id,
        "status": answer.status,
        "headers": dict(answer.headers),
        "body": body,
    }
    return orjson.dumps(record)


def _as_text(answer: Answer, *, headers: bool) -> bytes:
    head = "".join(f"{name}: {value}\n" for name, value in answer.headers.items()) + "\n" if headers else ""
    return head.encode() + answer.body
