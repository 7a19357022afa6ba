"""What applications may import from `broker.client`, and nothing besides."""

import inspect
import subprocess
import sys
from pathlib import Path

import broker.client
from broker.client import BrokerClient


def test_the_facade_shows_exactly_what_it_lists() -> None:
    shown = {
        name for name, value in vars(broker.client).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert sorted(shown) == broker.client.__all__ == sorted(broker.client.__all__)


def test_what_is_imported_for_the_client_names_no_kafka_client() -> None:
    """The adapters, and with them aiokafka, are loaded by the first `BrokerClient(...)` without ports."""
    check = "import sys, broker.client; print(sorted({'aiokafka', 'broker.adapters'} & set(sys.modules)))"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"


def test_the_address_is_the_only_thing_an_application_must_know() -> None:
    assert repr(BrokerClient("127.0.0.1:4001")) == "BrokerClient('127.0.0.1:4001', reply_partition=-1)"
