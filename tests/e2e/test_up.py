"""`broker up` as a user runs it: what it starts, what it keeps, how it stops."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from redis import Redis

from broker.embedded.probe import port_is_free
from broker.embedded.runfile import discover

pytestmark = pytest.mark.embedded

PORTS_USED = 16

REQUEST = b'{"messages": [{"role": "user", "content": "Hello"}]}'

CONFIG = """
model_list:
  - model_name: away
    litellm_params: {model: openai/away, api_base: "http://127.0.0.1:9/v1", api_key: none}
workers: {drain_seconds: 5}
"""


class Up:
    """A running `broker up --json`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "broker", "up", "--json", "--no-model", *arguments]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """Read events up to the one that is looked for."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told: dict[str, Any] = json.loads(line)
            if told["event"] == event and fields.items() <= told.items():
                return told
        raise AssertionError(f"no event {event}: {self.errors()}")

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Up]:
    up = Up(folder, *arguments)
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.process.kill()
        up.process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def _produce(address: str) -> None:
    producer = Producer({"bootstrap.servers": address})
    producer.produce("llm.requests.away", REQUEST, partition=0)
    assert producer.flush(10) == 0


def _first_record(address: str) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": address, "group.id": "test", "enable.auto.commit": False})
    consumer.assign([TopicPartition("llm.requests.away", 0, 0)])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None
    value = message.value()
    assert value is None or isinstance(value, bytes)
    return value


def test_a_second_start_in_the_same_folder_keeps_its_data(folder: Path, port_base: int) -> None:
    arguments = ("--config", "config.yaml", "--port-base", str(port_base))
    with running(folder, *arguments) as up:
        addresses = up.wait_for("ready")["addresses"]
        key = (folder / ".broker" / "signing-key").read_text()
        _produce(addresses["kafka"])
        with Redis.from_url(addresses["redis"]) as redis:
            redis.set("kept", "yes")
        with clickhouse_connect.get_client(dsn=addresses["clickhouse"]) as client:
            client.command("CREATE TABLE kept (id UInt64) ENGINE = MergeTree ORDER BY id")
            client.insert("kept", [[7]])
        assert up.stop() == 0
    assert all(port_is_free(port_base + distance) for distance in range(PORTS_USED))

    with running(folder, *arguments) as up:
        addresses = up.wait_for("ready")["addresses"]
        assert _first_record(addresses["kafka"]) == REQUEST
        with Redis.from_url(addresses["redis"]) as redis:
            assert redis.get("kept") == b"yes"
        with clickhouse_connect.get_client(dsn=addresses["clickhouse"]) as client:
            assert client.query("SELECT id FROM kept").result_rows == [(7,)]
        assert (folder / ".broker" / "signing-key").read_text() == key
        assert up.stop(signal.SIGTERM) == 0


def test_everything_answers_on_its_port_and_programs_that_die_come_back(folder: Path, port_base: int) -> None:
    with running(folder, "--config", "config.yaml", "--port-base", str(port_base)) as up:
        ready = up.wait_for("ready")
        addresses, pids = ready["addresses"], ready["pids"]

        assert addresses == {
            "health": f"http://127.0.0.1:{port_base}",
            "kafka": f"127.0.0.1:{port_base + 1}",
            "redis": f"redis://127.0.0.1:{port_base + 2}/0",
            "clickhouse": f"clickhouse://127.0.0.1:{port_base + 4}/broker",
            "sink": f"http://127.0.0.1:{port_base + 10}",
            "relay": f"http://127.0.0.1:{port_base + 11}",
            "worker-default-0": f"http://127.0.0.1:{port_base + 12}",
        }
        assert httpx.get(f"{addresses['health']}/ready").json()["parts"] == dict.fromkeys(pids, True)
        assert 'process="worker-default-0"' in httpx.get(f"{addresses['health']}/metrics").text
        assert discover(folder) == {
            "config": str(folder / "config.yaml"),
            "signing_key_file": str(folder / ".broker" / "signing-key"),
            **{name: addresses[name] for name in ("health", "kafka", "redis", "clickhouse")},
        }

        second = Up(folder, "--port-base", str(port_base + 100))
        assert second.process.wait(60) == 1
        assert second.errors().startswith(f"error: a stack already runs in this folder (process {up.process.pid}, ")
        second.process.communicate()

        os.kill(pids["worker-default-0"], signal.SIGKILL)
        assert up.wait_for("ended", name="worker-default-0")["code"] == -signal.SIGKILL
        assert up.wait_for("started", name="worker-default-0")["pid"] != pids["worker-default-0"]

        assert up.stop() == 0
        assert discover(folder) is None


def _in_flight(health: str) -> float:
    """Upstream calls that run now, as the stack's metrics tell."""
    lines = httpx.get(f"{health}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("broker_in_flight{"))


def test_a_second_signal_does_not_wait_for_running_calls(folder: Path, port_base: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = CONFIG.replace("127.0.0.1:9/", f"127.0.0.1:{silent.getsockname()[1]}/").replace("5}", "100}")
        (folder / "config.yaml").write_text(config)
        with running(folder, "--config", "config.yaml", "--port-base", str(port_base)) as up:
            addresses = up.wait_for("ready")["addresses"]
            _produce(addresses["kafka"])
            deadline = time.monotonic() + 30
            while _in_flight(addresses["health"]) != 1:
                assert time.monotonic() < deadline, "the request was never started"
                time.sleep(0.05)

            up.process.send_signal(signal.SIGINT)
            up.wait_for("stopping")
            began = time.monotonic()
            assert up.stop() == 0

    assert time.monotonic() - began < 50
    assert all(port_is_free(port_base + distance) for distance in range(PORTS_USED))


def test_nothing_is_left_when_up_is_killed(folder: Path, port_base: int) -> None:
    with running(folder, "--config", "config.yaml", "--port-base", str(port_base)) as up:
        up.wait_for("ready")
        up.process.kill()
        up.process.wait()

        deadline = time.monotonic() + 30
        while not all(port_is_free(port_base + distance) for distance in range(PORTS_USED)):
            assert time.monotonic() < deadline, "a child outlived its parent"
            time.sleep(0.05)
    assert discover(folder) is None


@pytest.mark.parametrize(("distance", "name"), [(0, "the status page"), (1, "kafka"), (10, "sink")])
def test_a_port_in_use_is_one_clear_line(folder: Path, port_base: int, distance: int, name: str) -> None:
    arguments = ("--config", "config.yaml", "--port-base", str(port_base))
    with socket.create_server(("127.0.0.1", port_base + distance)), running(folder, *arguments) as up:
        assert up.process.wait(60) == 1
        assert up.errors() == (
            f"error: {name}: port {port_base + distance} on 127.0.0.1 is in use; "
            "stop what listens there, or choose other ports with --port-base\n"
        )


def test_a_configuration_that_cannot_be_used_ends_it_with_code_2(folder: Path) -> None:
    with running(folder, "--config", "absent.yaml") as up:
        assert up.process.wait(60) == 2
        assert up.errors().startswith("error: ")
