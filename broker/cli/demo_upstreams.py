"""The demo's two difficult providers, both simulated: one allows little and says when to come back, one only fails."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Final

from broker.embedded.part import HOST, PartError
from broker.simulate.behaviour import MINUTE_S, Behaviour
from broker.simulate.server import Simulator, listening

BURST: Final = 3
"""Answers the busy provider gives …"""
BURST_SECONDS: Final = 6.0
"""… within so many seconds: 30 a minute, and a fourth request at once is told to come back."""
BUSY_LATENCY: Final = (0.2, 0.6)
WAYS: Final[Mapping[str, str]] = {
    "429": "429",
    "503": "503",
    "html": "HTML with status 200",
    "drop": "dropped connection",
}
"""Fault → what the report calls it, in the order in which the flaky provider meets its calls with them."""


def busy_provider() -> Simulator:
    """Return a provider with a limit that a batch runs into."""
    return Simulator(Behaviour(latency=BUSY_LATENCY, rpm=round(BURST * MINUTE_S / BURST_SECONDS), window=BURST_SECONDS))


def flaky_provider() -> Simulator:
    """Return a provider that fails in four ways, in turn."""
    return Simulator(Behaviour(script=tuple(WAYS)))


def failures(flaky: Simulator) -> dict[str, int]:
    """Tell how often it failed in which way."""
    return {way: flaky.desk.outcomes[fault] for fault, way in WAYS.items()}


@contextlib.asynccontextmanager
async def serving(name: str, provider: Simulator, port: int) -> AsyncIterator[None]:
    """Serve a provider on 127.0.0.1 while the block runs; raises `PartError` where the port is in use."""
    async with contextlib.AsyncExitStack() as resources:
        try:
            await resources.enter_async_context(listening(provider, HOST, port))
        except OSError as caught:
            raise PartError(
                f"{name}: port {port} on {HOST} is in use; stop what listens there, or choose other ports with "
                "--port-base"
            ) from caught
        yield
