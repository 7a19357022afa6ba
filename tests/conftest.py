"""Fixtures of every test: real parts, started once a session when first asked for, and no way out of this machine."""

import asyncio
import os
import random
import socket
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from broker.embedded.clickhouse_part import ClickHousePart
from broker.embedded.kafka_part import KafkaPart
from broker.embedded.model_part import ModelPart
from broker.embedded.part import Part
from broker.embedded.probe import free_port, port_is_free
from broker.embedded.redis_part import RedisPart

T = TypeVar("T")

Connect = Callable[[socket.socket, tuple[str, int]], int | None]

KAFKA_BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP")
"""Address of a cluster to run the suite against; the embedded log when absent."""

PORTS_OF_A_STACK = 16
"""What `broker up` and `broker demo` use at most, from their first port on."""

ALLOWED_HOSTS = {"127.0.0.1", "::1", "localhost"} | {
    server.rsplit(":", 1)[0] for server in (KAFKA_BOOTSTRAP or "").split(",") if server
}


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run on a loop of its own, so that no test's loop is touched."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def _started(part: Part, folder: Path) -> Iterator[str]:
    yield _run(part.start(folder, free_port()))
    _run(part.stop())


@pytest.fixture(scope="session", autouse=True)
def _no_way_out() -> Iterator[None]:
    """Refuse every connection of the test process that leaves this machine."""
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex"):
        original: Connect = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: tuple[str, int], original: Connect = original) -> int | None:
            if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ALLOWED_HOSTS:
                raise RuntimeError(f"a test tried to connect to {address[0]}:{address[1]}")
            return original(self, address)

        patch.setattr(socket.socket, name, guarded)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def parts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's parts keep their data and logs."""
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="session")
def kafka_bootstrap(parts_folder: Path) -> Iterator[str]:
    """`host:port` of a Kafka-protocol log; topics outlive a test, so use `unique_prefix`."""
    if KAFKA_BOOTSTRAP:
        yield KAFKA_BOOTSTRAP
    else:
        yield from _started(KafkaPart(), parts_folder)


@pytest.fixture(scope="session")
def redis_url(parts_folder: Path) -> Iterator[str]:
    """URL of a Redis server; keys outlive a test, so use `unique_prefix`."""
    yield from _started(RedisPart(), parts_folder)


@pytest.fixture(scope="session")
def clickhouse_dsn(parts_folder: Path) -> Iterator[str]:
    """DSN of a ClickHouse engine; its database is shared by the session's tests."""
    yield from _started(ClickHousePart(), parts_folder)


@pytest.fixture(scope="session")
def model_url(parts_folder: Path) -> Iterator[str]:
    """Base URL (`http://127.0.0.1:port/v1`) of the local model; mark such tests `model`."""
    yield from _started(ModelPart(), parts_folder)


@pytest.fixture(scope="session")
def embedding_url(parts_folder: Path) -> Iterator[str]:
    """Base URL of the same model, which embeds there; mark such tests `model`."""
    yield from _started(ModelPart(embeddings=True), parts_folder)


@pytest.fixture
def unique_prefix() -> str:
    """Topic prefix of this test alone, such as `t3f9a1c.`."""
    return f"t{uuid.uuid4().hex[:8]}."


@pytest.fixture
def port_base() -> int:
    """First of `PORTS_OF_A_STACK` free ports; below the range from which the kernel gives clients theirs."""
    while True:
        base = random.randrange(20_000, 32_000)  # noqa: S311 - a port, not a secret
        if all(port_is_free(base + distance) for distance in range(PORTS_OF_A_STACK)):
            return base
