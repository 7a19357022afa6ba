"""Programs that end are started again, drain when they are stopped, and show up on one page."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.embedded.part import PartError
from broker.embedded.probe import free_port, port_is_free
from broker.embedded.process import Child
from broker.embedded.redis_part import RedisPart
from broker.embedded.status import StatusPage
from broker.embedded.supervisor import KeptPart, KeptProgram, Program

pytestmark = pytest.mark.embedded

SERVER = """
import http.server, signal, sys

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"# HELP work_total Work\\n# TYPE work_total counter\\nwork_total 2.0\\n"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

def drain(*_):
    print("drained", flush=True)
    sys.exit(0)

signal.signal(signal.SIGTERM, drain)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
"""


class Ear:
    """Hears events, and lets a test wait for one."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self._new = asyncio.Event()

    def tell(self, event: str, fields: dict[str, Any]) -> None:
        self.heard.append((event, fields))
        self._new.set()

    async def wait_for(self, event: str, count: int) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while len(found := [fields for name, fields in self.heard if name == event]) < count:
                self._new.clear()
                await self._new.wait()
        return found[count - 1]


def program(folder: Path, script: str = SERVER) -> Program:
    port = free_port()
    command = [sys.executable, "-c", script, str(port)]
    return Program(name="worker", command=command, port=port, log=folder / "worker.log", env={}, grace=10.0)


async def test_a_program_that_dies_is_started_again(tmp_path: Path) -> None:
    ear = Ear()
    kept = KeptProgram(program(tmp_path), ear.tell)
    await kept.ready()
    kept.keep()
    first = kept.pid

    os.kill(first, signal.SIGKILL)
    ended = await ear.wait_for("ended", 1)
    await ear.wait_for("started", 2)
    await kept.ready()

    assert kept.pid != first
    assert (ended["code"], ended["restart_in_s"]) == (-signal.SIGKILL, 0.5)
    await kept.stop()


async def test_a_stopped_program_drains_and_stays_away(tmp_path: Path) -> None:
    ear = Ear()
    kept = KeptProgram(program(tmp_path), ear.tell)
    await kept.ready()
    kept.keep()

    await kept.stop()

    assert kept.program.log.read_text().endswith("drained\n")
    assert [event for event, _ in ear.heard] == ["started"]
    assert port_is_free(kept.program.port)


async def test_a_program_that_does_not_drain_in_time_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\nsignal.pause()"
    child = Child([sys.executable, "-c", stubborn], log=tmp_path / "log")
    async with asyncio.timeout(20):
        while child.last_line() != "deaf":  # noqa: ASYNC110 - what another process prints is no event of ours
            await asyncio.sleep(0.02)

    await child.stop(0.1)

    assert child.exit_code() == -signal.SIGKILL


async def test_a_program_that_cannot_start_tells_why(tmp_path: Path) -> None:
    kept = KeptProgram(program(tmp_path, "raise SystemExit('error: no such pool')"), Ear().tell)

    with pytest.raises(PartError, match=r"^worker ended with code 1: error: no such pool \(log: .*worker\.log\)$"):
        await kept.ready()


async def test_a_part_that_dies_is_started_again_with_its_data(tmp_path: Path) -> None:
    ear = Ear()
    kept = KeptPart(RedisPart(), tmp_path, free_port(), ear.tell)
    await kept.start()

    os.kill(kept.part.pid, signal.SIGKILL)
    await ear.wait_for("started", 2)

    assert await kept.part.serves()
    await kept.stop()
    assert not kept.part.alive


async def test_the_status_page_speaks_for_every_part_and_program(tmp_path: Path) -> None:
    kept = KeptProgram(program(tmp_path), Ear().tell)
    await kept.ready()
    port = free_port()
    part = RedisPart()
    await part.start(tmp_path, free_port())
    async with StatusPage(lambda: ([part], [kept.program])).serving(port), httpx.AsyncClient() as client:
        base = f"http://127.0.0.1:{port}"
        good = await client.get(f"{base}/ready")
        metrics = await client.get(f"{base}/metrics")
        await kept.stop()
        bad = await client.get(f"{base}/health")
        await part.stop()

    assert (good.status_code, good.json()) == (200, {"status": "ok", "parts": {"redis": True, "worker": True}})
    assert 'work_total{process="worker"} 2.0' in metrics.text.splitlines()
    assert (bad.status_code, bad.json()["parts"]) == (503, {"redis": True, "worker": False})
