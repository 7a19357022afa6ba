"""Prices of a deployment by LiteLLM's names: which ones are acted on, where they may stand, what is wrong with one."""

from decimal import Decimal

import pytest
from pydantic import ValidationError

from broker.config import Prices
from broker.config.price_names import PriceName, is_price, price_name
from tests.unit.config.yaml_text import problems_of, settings_from

FILE = """
model_list:
  - model_name: chat
    litellm_params:
      model: openai/gpt-9
      region: eu
      input_cost_per_token: 0.000001
      input_cost_per_token_flex: 0.0000005
      input_cost_per_token_above_200k_tokens_priority: 0.000004
      search_context_cost_per_query: {search_context_size_low: 0.005}
      output_cost_per_pixel: 0.1
    model_info:
      input_cost_per_token_flex: 7
      cache_creation_input_token_cost_above_1hr: 0.000002
      regional_processing_uplift_multiplier_eu: 1.1
      cost_per_ptu_per_hour: 3
"""


def test_prices_stand_in_the_parameters_or_in_model_info_and_the_parameters_win() -> None:
    (served,) = settings_from(FILE).aliases["chat"].deployments
    assert served.region == "eu"
    assert {name: value for name, value in served.prices if value is not None} == {
        "input_cost_per_token": Decimal("0.000001"),
        "input_cost_per_token_flex": Decimal("5E-7"),
        "input_cost_per_token_above_200k_tokens_priority": Decimal("0.000004"),
        "search_context_cost_per_query": {"search_context_size_low": Decimal("0.005")},
        "cache_creation_input_token_cost_above_1hr": Decimal("0.000002"),
        "regional_processing_uplift_multiplier_eu": Decimal("1.1"),
    }


def test_a_price_of_a_unit_that_is_not_counted_is_listed_as_not_acted_on() -> None:
    assert settings_from(FILE).unacted == (
        "model_list[].litellm_params.output_cost_per_pixel",
        "model_list[].model_info.cost_per_ptu_per_hour",
    )


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("input_cost_per_token", PriceName("input")),
        ("input_cost_per_token_batches", PriceName("input", 0, "batch")),
        ("output_cost_per_token_above_128k_tokens", PriceName("output", 128_000)),
        ("cache_read_input_token_cost_above_272k_tokens_ultrafast", PriceName("cached", 272_000, "ultrafast")),
        ("cache_creation_input_token_cost_above_1hr", PriceName("cache_write_1h")),
        (
            "cache_creation_input_token_cost_above_12hr_above_272k_tokens_flex",
            PriceName("cache_write_12h", 272_000, "flex"),
        ),
        ("input_cost_per_audio_token_priority", PriceName("audio_input", 0, "priority")),
        ("input_cost_per_query", PriceName("search_unit")),
        ("input_cost_per_second", PriceName("hour")),
        ("output_cost_per_pixel", None),
        ("input_cost_per_token_turbo", None),
        ("output_cost_per_image_1024", None),
        ("input_cost_per_video_per_second", None),
        ("cost", None),
    ],
)
def test_a_name_says_what_from_where_on_and_in_which_tier(name: str, read: PriceName | None) -> None:
    assert price_name(name) == read
    assert is_price(name) == (read is not None)


def test_a_price_below_zero_is_a_problem_of_its_name() -> None:
    text = FILE.replace("input_cost_per_token_flex: 0.0000005", "input_cost_per_token_flex: -1")
    (problem,) = problems_of(text)
    place, _, why = problem.partition(": ")
    assert place == "model_list[0].litellm_params.input_cost_per_token_flex"
    assert why == "Input should be greater than or equal to 0; it is a number"


def test_a_price_by_an_unknown_name_cannot_be_made() -> None:
    with pytest.raises(ValidationError, match="input_cost_per_tokn is no price that is acted on"):
        Prices.model_validate({"input_cost_per_tokn": 1})
