"""`broker doctor`: looks at every configured part and says what to do."""

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from broker.adapters.clickhouse import ClickHouseLedger
from broker.adapters.kafka_admin import KafkaAdmin
from broker.adapters.redis_probe import look
from broker.cli.common import config_option, json_option, load_settings, run_async
from broker.cli.doctor_checks import (
    CALL_SECONDS,
    CALLS_AT_ONCE,
    CHECK_SECONDS,
    Finding,
    State,
    bounded,
    check_addresses,
    check_clickhouse,
    check_config,
    check_deployments,
    check_kafka,
    check_redis,
)
from broker.clock import SystemClock
from broker.config import Deployment, Settings

SIGNS: Final = {State.OK: "✓", State.FAILED: "✗", State.NOTE: "–"}

NOT_CONFIGURED: Final = "not configured: `broker up` starts one on this machine"


@click.command()
@config_option
@json_option
@click.option(
    "--call", "with_calls", is_flag=True, help="Make one tiny call of each deployment; it costs a few tokens."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=CHECK_SECONDS,
    show_default=True,
    help="Seconds one check may take.",
)
def command(config: Path | None, *, as_json: bool, with_calls: bool, timeout: float) -> None:
    """Check the configuration, Kafka, Redis, ClickHouse, clocks and deployments; exit 1 if anything failed."""
    # What a client library would log about a part that is away is what the finding tells.
    logging.getLogger().addHandler(logging.NullHandler())
    settings = load_settings(config)
    findings = run_async(examine(settings, with_calls=with_calls, timeout=timeout))
    failed = any(finding.state is State.FAILED for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "checks": [asdict(finding) for finding in findings]}))
    else:
        click.echo(as_text(findings))
    sys.exit(1 if failed else 0)


async def examine(settings: Settings, *, with_calls: bool, timeout: float) -> list[Finding]:
    """Run every check, side by side; each takes at most `timeout` seconds, a call at most a minute."""
    clock = SystemClock()
    groups = await asyncio.gather(
        _kafka(settings, timeout),
        _redis(settings, timeout),
        _clickhouse(settings, timeout),
        _calls(settings, with_calls=with_calls),
    )
    return [*check_config(settings, clock.now_ms()), *(finding for group in groups for finding in group)]


def _kafka(settings: Settings, timeout: float) -> Awaitable[Sequence[Finding]]:
    if settings.kafka.bootstrap_servers is None:
        return _note("kafka", NOT_CONFIGURED)
    todo = "check that it runs, kafka.bootstrap_servers, security_protocol and sasl_*"
    return bounded("kafka", lambda: check_kafka(settings, KafkaAdmin(settings.kafka)), todo, timeout)


def _redis(settings: Settings, timeout: float) -> Awaitable[Sequence[Finding]]:
    if settings.redis.url is None:
        return _note("redis", NOT_CONFIGURED)
    todo = "check that it runs, and redis.url with its user and password"
    return bounded("redis", lambda: check_redis(lambda: look(settings.redis), SystemClock()), todo, timeout)


def _clickhouse(settings: Settings, timeout: float) -> Awaitable[Sequence[Finding]]:
    if settings.clickhouse.dsn is None:
        return _note("clickhouse", NOT_CONFIGURED)
    todo = "check that it runs, and clickhouse.dsn with its user, password and database"

    async def check() -> Sequence[Finding]:
        return await check_clickhouse(ClickHouseLedger(settings.clickhouse), SystemClock())

    return bounded("clickhouse", check, todo, timeout)


async def _calls(settings: Settings, *, with_calls: bool) -> Sequence[Finding]:
    count = sum(len(alias.deployments) for alias in settings.aliases.values())
    if not count:
        return []
    from workers.providers.base import Call  # noqa: PLC0415 - a command imports workers when it runs
    from workers.providers.catalog import resolve  # noqa: PLC0415 - as above
    from workers.providers.client import HttpProviderClient  # noqa: PLC0415 - as above
    from workers.providers.transport import make_transport  # noqa: PLC0415 - as above

    if not with_calls:
        todo = "`broker doctor --call` makes one tiny call of each"
        return [*check_addresses(settings, resolve), *await _note("deployments", f"{count} not called", todo)]
    provider = HttpProviderClient(make_transport(CALLS_AT_ONCE))

    async def call(deployment: Deployment, endpoint: str, body: Mapping[str, Any]) -> str:
        result = await provider.call(Call(deployment, endpoint, body, CALL_SECONDS, f"doctor-{deployment.name}"))
        tokens = f"{result.usage.input_tokens} + {result.usage.output_tokens} tokens"
        return f"answered by {result.model or deployment.model} ({tokens})"

    try:
        return await check_deployments(settings, call)
    finally:
        await provider.close()


async def _note(part: str, found: str, todo: str = "") -> Sequence[Finding]:
    return [Finding(part, State.NOTE, found, todo)]


def as_text(findings: Sequence[Finding]) -> str:
    """Return a line a finding, what to do about it below, and a last line that counts."""
    width = max(len(finding.part) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{SIGNS[finding.state]} {finding.part:<{width}}  {finding.found}")
        if finding.todo:
            lines.append(f"  {'':<{width}}  → {finding.todo}")
    failed = sum(finding.state is State.FAILED for finding in findings)
    lines.append("nothing failed" if not failed else f"{failed} of {len(findings)} checks failed")
    return "\n".join(lines)
