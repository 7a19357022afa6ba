"""Every class of error an engine can raise has its meaning written down."""

import builtins
import inspect
from types import ModuleType

import httpx
import pyreqwest.exceptions
import pytest

from workers.providers import transport_httpx, transport_pyreqwest
from workers.providers.transport import Fault, make_transport
from workers.providers.transport_httpx import HttpxTransport


def exceptions_of(module: ModuleType) -> set[type[BaseException]]:
    found = {item for _, item in inspect.getmembers(module, inspect.isclass) if issubclass(item, BaseException)}
    return {item for item in found if item.__module__.startswith(module.__name__.partition(".")[0])}


@pytest.mark.parametrize(
    ("module", "table"),
    [(httpx, transport_httpx.FAULTS), (pyreqwest.exceptions, transport_pyreqwest.FAULTS)],
    ids=["httpx", "pyreqwest"],
)
def test_every_error_of_an_engine_is_mapped(module: ModuleType, table: dict[type[BaseException], Fault]) -> None:
    assert exceptions_of(module) - set(table) == set()


@pytest.mark.parametrize("table", [transport_httpx.FAULTS, transport_pyreqwest.FAULTS], ids=["httpx", "pyreqwest"])
def test_every_kind_of_timeout_is_a_timeout(table: dict[type[BaseException], Fault]) -> None:
    timeouts = {kind for kind in table if "Timeout" in kind.__name__ and vars(builtins).get(kind.__name__) is None}
    assert {table[kind] for kind in timeouts} == {Fault.TIMEOUT}


async def test_the_second_engine_is_used_where_the_first_has_no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.providers.transport.find_spec", lambda _: None)
    transport = make_transport(1)
    assert isinstance(transport, HttpxTransport)
    await transport.close()
