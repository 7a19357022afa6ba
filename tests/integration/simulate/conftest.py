"""One simulator for all tests of this folder that ask for nothing special."""

from collections.abc import Iterator

import httpx
import pytest

from tests.integration.simulate.test_simulator import simulator


@pytest.fixture(scope="module")
def plain() -> Iterator[httpx.Client]:
    with simulator() as client:
        yield client
