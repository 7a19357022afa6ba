"""LiteLLM's names of a deployment's prices: what each one prices, from which size of a request on, in which tier.

docs.litellm.ai/docs/proxy/custom_pricing: a name is what is priced, then `_above_<N>k_tokens`, then the tier. Imports
the standard library.
"""

import re
from typing import Final, NamedTuple

RATES: Final = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached",
    "input_cost_per_token_cache_hit": "cached",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "cache_creation_input_token_cost_above_12hr": "cache_write_12h",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
    "cache_read_input_audio_token_cost": "audio_cached",
    "input_cost_per_image_token": "image_input",
    "output_cost_per_image_token": "image_output",
    "cache_read_input_image_token_cost": "image_cached",
    "input_cost_per_image": "image_given",
    "output_cost_per_image": "image",
    "input_cost_per_character": "character",
    "input_cost_per_second": "hour",
    "input_cost_per_audio_per_second": "hour",
    "input_cost_per_query": "search_unit",
    "input_cost_per_request": "per_request",
}
"""What is priced → the rate it is; a price per second becomes one per hour."""

TIERS: Final = {"batches": "batch", "flex": "flex", "priority": "priority", "ultrafast": "ultrafast"} | {
    "balanced": "balanced"
}
"""LiteLLM's endings → service tiers as providers name them, `batch` being a provider's batch API."""

UPLIFTS: Final = {
    "regional_processing_uplift_multiplier_eu": "eu",
    "regional_processing_uplift_multiplier_us": "us",
    "regional_endpoint_uplift_multiplier": "*",
}
"""Factors on every price of a region; `*` is any region but a provider's global one."""

SEARCH_CONTEXT: Final = "search_context_cost_per_query"
"""A mapping: fee of a request by the size of its search context, `search_context_size_low`, `_medium`, `_high`."""

_NAME: Final = re.compile(
    rf"(?P<rate>{'|'.join(sorted(RATES, key=len, reverse=True))})(?:_above_(?P<above>\d+)k_tokens)?"
    rf"(?:_(?P<tier>{'|'.join(TIERS)}))?"
)


class PriceName(NamedTuple):
    """`rate` is a field of the ledger's rates, `above` input tokens above which it holds, `tier` "" the standard."""

    rate: str
    above: int = 0
    tier: str = ""


def price_name(name: str) -> PriceName | None:
    """Read a name; None for one whose unit is not counted here."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return PriceName(RATES[found["rate"]], int(found["above"] or 0) * 1000, TIERS.get(found["tier"], ""))


def is_price(name: str) -> bool:
    """Whether a key of a deployment is a price, or a factor on prices, that is acted on."""
    return name in UPLIFTS or name == SEARCH_CONTEXT or price_name(name) is not None
