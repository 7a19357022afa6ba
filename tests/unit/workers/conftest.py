"""Fixtures of the worker's unit tests."""

import pytest

from tests.unit.workers.world import World, make_alias


@pytest.fixture
def world() -> World:
    """One alias, `fast`, with one deployment."""
    return World(make_alias("fast"))
