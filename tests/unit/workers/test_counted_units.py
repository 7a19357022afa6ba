"""A row of the ledger keeps what was counted here, and is priced by it."""

from decimal import Decimal

import orjson

from broker.config import Prices
from broker.ledger.units import Units
from tests.unit.workers.world import World, make_alias
from workers.providers.base import Call, CallResult, OnChunk, Usage

SPOKEN = Prices.model_validate({"input_cost_per_character": "0.000015"})


class Speaker:
    """Answers with speech: its usage is counted in characters and told by nobody."""

    async def call(self, call: Call, on_chunk: OnChunk | None = None) -> CallResult:
        del call, on_chunk
        return CallResult(b"{}", "tts-1", Usage(units=Units(characters=1000), estimated=True))

    async def close(self) -> None:
        return


async def test_speech_is_priced_by_its_characters_and_the_row_keeps_their_number() -> None:
    alias = make_alias("fast")
    deployments = tuple(each.model_copy(update={"prices": SPOKEN}) for each in alias.deployments)
    world = World(alias.model_copy(update={"deployments": deployments}))
    world.provider = Speaker()  # type: ignore[assignment] # the same port
    async with world.worker():
        await world.publish("fast", "a")
        replies = await world.replies(1)
        (row,) = await world.rows(1)
    assert replies["a"].cost == Decimal("0.015")
    assert (row.cost, row.estimated) == (Decimal("0.015"), True)
    assert orjson.loads(row.raw_usage) == {"counted": {"characters": 1000}}
