"""Five thousand requests through the whole product: `broker up`, `broker submit`, a stub upstream, the ledger."""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

import clickhouse_connect
import pytest
import yaml

from tests.processes import run, upstream_process

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]

COUNT = 5_000
READY_SECONDS = 60


def write_input(path: Path) -> None:
    with path.open("w") as lines:
        for number in range(COUNT):
            body = {"model": "stub", "messages": [{"role": "user", "content": f"Question {number}"}], "max_tokens": 16}
            line = {"custom_id": f"c-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            lines.write(json.dumps(line) + "\n")


async def test_of_five_thousand_requests_none_is_lost_none_is_doubled_and_each_has_one_row(
    tmp_path: Path, port_base: int
) -> None:
    write_input(tmp_path / "in.jsonl")
    async with upstream_process() as url:
        prices = {"input_cost_per_token": "0.000001", "output_cost_per_token": "0.000002"}
        params = {"model": "openai/stub-model", "api_base": url, "api_key": "sk-none", **prices}
        config = tmp_path / "broker.yaml"
        config.write_text(yaml.safe_dump({"model_list": [{"model_name": "stub", "litellm_params": params}]}))
        arguments = ["up", "--json", "--no-model", "--config", str(config), "--port-base", str(port_base)]
        up = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "broker", *arguments, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        try:
            ready = await asyncio.wait_for(_ready(up), READY_SECONDS)
            out, errors = tmp_path / "out.jsonl", tmp_path / "err.jsonl"
            submit = ("submit", "in.jsonl", "-o", str(out), "--errors", str(errors), "--config", str(config), "--json")
            summary = json.loads(await run(*submit, cwd=tmp_path))
            rows = await _rows(ready)
        finally:
            up.terminate()
            await asyncio.wait_for(up.wait(), READY_SECONDS)
    answers = Counter(json.loads(line)["custom_id"] for line in out.read_text().splitlines())
    assert (summary["ok"], summary["failed"]) == (COUNT, 0)
    assert answers == Counter({f"c-{number}": 1 for number in range(COUNT)})
    assert not errors.exists() or errors.read_text() == ""
    assert rows == (COUNT, COUNT, COUNT, COUNT)


async def _ready(up: asyncio.subprocess.Process) -> dict[str, str]:
    assert up.stdout is not None
    async for line in up.stdout:
        event = json.loads(line)
        if event["event"] == "ready":
            return dict(event["addresses"])
    raise AssertionError("broker up ended before it was ready")


async def _rows(addresses: dict[str, str]) -> tuple[int, ...]:
    """Rows, billable rows, distinct requests, priced rows; asked again until the sink has written them all."""
    client = await asyncio.to_thread(clickhouse_connect.get_client, dsn=addresses["clickhouse"])
    sql = "SELECT count(), countIf(billable), uniqExact(request_id), count(cost) FROM attempts FINAL"
    try:
        async with asyncio.timeout(READY_SECONDS):
            while True:
                counts = (await asyncio.to_thread(client.query, sql)).result_rows[0]
                if counts[0] >= COUNT:
                    return tuple(int(count) for count in counts)
                await asyncio.sleep(0.2)
    finally:
        await asyncio.to_thread(client.close)
