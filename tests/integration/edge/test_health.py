"""The health server on a free port of this machine."""

import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from broker.edge.health import HealthServer
from broker.errors import ConfigError


class Readiness:
    """What the process says of itself."""

    def __init__(self) -> None:
        self.ready = True
        self.why: dict[str, Any] = {}

    def __call__(self) -> tuple[bool, dict[str, Any]]:
        return self.ready, self.why


@pytest.fixture
def readiness() -> Readiness:
    return Readiness()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def server(readiness: Readiness, registry: CollectorRegistry) -> AsyncIterator[HealthServer]:
    server = HealthServer("127.0.0.1", 0, registry, readiness)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def http(server: HealthServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        yield client


async def test_health_says_that_the_process_lives(http: httpx.AsyncClient) -> None:
    answer = await http.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_is_200_while_the_work_can_be_done(http: httpx.AsyncClient) -> None:
    answer = await http.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"ready": True})


async def test_ready_is_503_with_the_reasons_while_it_cannot(http: httpx.AsyncClient, readiness: Readiness) -> None:
    readiness.ready, readiness.why = False, {"redis": "connection refused"}
    answer = await http.get("/ready")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "redis": "connection refused"})


async def test_metrics_are_in_the_text_format(http: httpx.AsyncClient, registry: CollectorRegistry) -> None:
    Counter("broker_things", "Things", registry=registry).inc()
    answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "broker_things_total 1.0" in answer.text


async def test_metrics_are_in_the_open_format_where_that_is_asked_for(http: httpx.AsyncClient) -> None:
    answer = await http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


async def test_another_path_is_404(http: httpx.AsyncClient) -> None:
    assert (await http.get("/")).status_code == 404


async def test_a_port_in_use_is_one_clear_line(server: HealthServer, registry: CollectorRegistry) -> None:
    second = HealthServer("127.0.0.1", server.port, registry, Readiness())
    with pytest.raises(ConfigError, match=rf"^port {server.port} on 127.0.0.1 is in use; choose another"):
        await second.start()
    await second.stop()


async def test_a_host_that_does_not_resolve_is_one_clear_line(registry: CollectorRegistry) -> None:
    with pytest.raises(ConfigError, match=r"^server.host: 300.0.0.1 cannot be resolved"):
        await HealthServer("300.0.0.1", 0, registry, Readiness()).start()


async def test_the_port_is_free_again_after_a_stop(registry: CollectorRegistry) -> None:
    first = HealthServer("127.0.0.1", 0, registry, Readiness())
    await first.start()
    await first.stop()
    await first.stop()
    second = HealthServer("127.0.0.1", first.port, registry, Readiness())
    await second.start()
    await second.stop()


async def test_signals_stay_the_process_s_own(registry: CollectorRegistry) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    server = HealthServer("127.0.0.1", 0, registry, Readiness())
    await server.start()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    await server.stop()
