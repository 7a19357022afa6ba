"""`broker demo` from start to end, on the real model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from broker.embedded.probe import port_is_free

pytestmark = [pytest.mark.embedded, pytest.mark.model]

PORTS_USED = 16


@pytest.mark.timeout(300)
def test_the_demo_answers_every_request_and_reconciles(tmp_path: Path, port_base: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "broker", "demo", "--port-base", str(port_base)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "demo-results.jsonl").read_text().splitlines()]
    assert len({line["custom_id"] for line in lines}) == 40
    assert {line["response"]["status_code"] for line in lines} == {200}
    assert all(line["response"]["body"]["usage"]["completion_tokens"] > 0 for line in lines)
    assert "40 requests = 40 final replies = 40 billable rows: they agree" in done.stdout
    assert "Rerouted  12 requests from flaky to local" in done.stdout
    assert all(port_is_free(port_base + distance) for distance in range(PORTS_USED))
