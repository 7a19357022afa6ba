"""What the tests of prices share: a usage, a deployment, the cost of one by the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from broker.config import Deployment
from broker.ledger.prices import PriceTable
from broker.ledger.units import Units

NOON = int(datetime(2026, 11, 18, 12, tzinfo=UTC).timestamp() * 1000)
"""A Wednesday."""

MTOK = 10**6
"""Pico-dollars a token where a million of them cost a dollar."""
USD = 10**12


@dataclass(frozen=True)
class Used:
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    units: Units | None = None
    raw: Mapping[str, Any] | None = None


def deployment(provider: str, model: str, **more: Any) -> Deployment:
    return Deployment(name="a/0", alias="a", provider=provider, model=model, **more)


def cost(  # noqa: PLR0913 - the things a price depends on
    served: Deployment,
    usage: Used,
    *,
    model: str = "",
    tier: str | None = None,
    lane: str = "interactive",
    at_ms: int = NOON,
    overrides: tuple[dict[str, Any], ...] = (),
) -> int | None:
    table = PriceTable.compile([served], overrides, NOON)
    return table.price("a/0", model or served.model, usage, tier, lane, at_ms).cost_pico
