"""Which deployments cannot serve a request, and what is said when none can."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from broker.config import Alias, Capabilities, Deployment, Settings
from broker.errors import ContextLengthExceeded, InvalidRequest
from broker.ledger.estimate import estimate
from broker.routing.fitness import ALL_FIT, Fitness, Verdict
from broker.routing.needs import needs_of
from schemas.request import CHAT, EMBEDDINGS, RERANK, RESPONSES

FUNCTION = {"type": "function", "function": {"name": "f"}}
PICTURE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}


def deployment(number: int = 0, *, provider: str = "custom", can: Capabilities | None = None, **of: Any) -> Deployment:
    return Deployment(name=f"a/{number}", alias="a", provider=provider, model="m", model_info=can, **of)


def judged(*deployments: Deployment, endpoint: str = CHAT, **body: Any) -> Verdict:
    """The verdict on a request to an alias of these deployments."""
    alias = Alias(name="a", deployments=deployments, enable_pre_call_checks=True)
    if endpoint == CHAT:
        body = {"messages": [{"role": "user", "content": "Hello"}], **body}
    total, output = estimate(body)
    needs = needs_of(endpoint, body, total - output)
    return Fitness(Settings(aliases={"a": alias})).judge(alias, needs, body)


def cannot(**abilities: Any) -> Capabilities:
    return Capabilities(**abilities)


def asks(content: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def refusal(verdict: Verdict) -> tuple[str, str | None, str]:
    assert verdict.error is not None
    return verdict.error.code, verdict.error.param, verdict.error.message


BLIND, SEEING = cannot(supports_vision=False), cannot(supports_vision=True)


def test_what_is_not_known_is_never_refused() -> None:
    picture = asks([PICTURE])
    assert judged(deployment(), tools=[FUNCTION], reasoning_effort="high", n=5, max_tokens=10**9, **picture) == ALL_FIT


def test_a_deployment_without_the_ability_is_ruled_out_and_the_others_are_not() -> None:
    verdict = judged(deployment(0, can=BLIND), deployment(1, can=SEEING), deployment(2), **asks([PICTURE]))
    assert verdict == Verdict(frozenset({"a/0"}))


def test_a_request_that_asks_for_nothing_special_fits_everywhere() -> None:
    assert judged(deployment(0, can=BLIND), deployment(1, can=SEEING)) == ALL_FIT


@pytest.mark.parametrize(
    ("ability", "body", "param"),
    [
        ("supports_vision", asks([{"type": "text", "text": "Look"}, PICTURE]), "messages[0].content[1]"),
        ("supports_function_calling", {"tools": [FUNCTION]}, "tools"),
        ("supports_response_schema", {"response_format": {"type": "json_schema"}}, "response_format"),
        ("supports_reasoning", {"reasoning_effort": "low"}, "reasoning_effort"),
        ("supports_web_search", {"web_search_options": {}}, "web_search_options"),
    ],
)
def test_when_none_has_the_ability_the_error_names_what_asked_for_it(
    ability: str, body: dict[str, Any], param: str
) -> None:
    verdict = judged(deployment(0, can=cannot(**{ability: False})), **body)
    code, named, message = refusal(verdict)
    assert (code, named) == ("invalid_request", param)
    assert message.startswith("no deployment of alias a can ")
    assert verdict.unfit == {"a/0"}


@pytest.mark.parametrize("drops", [{"drop_params": True}, {"additional_drop_params": ("tools",)}])
def test_a_parameter_that_is_dropped_needs_no_ability(drops: dict[str, Any]) -> None:
    assert judged(deployment(can=cannot(supports_function_calling=False), **drops), tools=[FUNCTION]) == ALL_FIT


def test_a_picture_is_never_dropped() -> None:
    verdict = judged(deployment(can=BLIND, drop_params=True), **asks([PICTURE]))
    assert refusal(verdict)[1] == "messages[0].content[0]"


def test_a_tool_stands_in_for_a_schema_where_the_dialect_makes_one() -> None:
    lacks = {"supports_response_schema": False}
    body: dict[str, Any] = {"response_format": {"type": "json_schema"}}
    assert judged(deployment(provider="anthropic", can=cannot(**lacks)), **body) == ALL_FIT
    without_tools = cannot(**lacks, supports_function_calling=False)
    assert isinstance(judged(deployment(provider="anthropic", can=without_tools), **body).error, InvalidRequest)
    assert isinstance(judged(deployment(provider="custom", can=cannot(**lacks)), **body).error, InvalidRequest)


def test_a_provider_that_ignores_parameters_is_refused_for_content_only() -> None:
    lacks = cannot(supports_reasoning=False, supports_vision=False)
    one = deployment(provider="openrouter", can=lacks)
    assert judged(one, reasoning_effort="high") == ALL_FIT
    assert isinstance(judged(one, **asks([PICTURE])).error, InvalidRequest)


def test_an_api_without_n_gives_one_answer() -> None:
    one = deployment(provider="anthropic")
    assert refusal(judged(one, n=2))[:2] == ("invalid_request", "n")
    assert judged(one, n=1) == ALL_FIT
    assert judged(deployment(provider="anthropic", additional_drop_params=("n",)), n=2) == ALL_FIT


@pytest.mark.parametrize("provider", ["openai", "azure", "anthropic"])
def test_more_output_than_the_model_writes_is_refused_where_the_provider_does_so(provider: str) -> None:
    can = cannot(max_output_tokens=100)
    assert refusal(judged(deployment(provider=provider, can=can), max_tokens=101)) == (
        "invalid_request",
        "max_tokens",
        "no deployment of alias a can write 101 tokens (at most 100)",
    )
    assert judged(deployment(provider=provider, can=can), max_tokens=100) == ALL_FIT
    beta = {"anthropic-beta": SecretStr("output-128k-2025-02-19")}
    assert judged(deployment(provider=provider, can=can, headers=beta), max_tokens=101) == ALL_FIT
    assert judged(deployment(provider="custom", can=can), max_tokens=101) == ALL_FIT


@pytest.mark.parametrize(
    ("mode", "endpoint", "served"),
    [
        ("chat", CHAT, True),
        ("chat", RESPONSES, True),
        ("chat", EMBEDDINGS, False),
        ("chat", RERANK, False),
        ("embedding", EMBEDDINGS, True),
        ("embedding", CHAT, False),
        ("rerank", RERANK, True),
        ("rerank", EMBEDDINGS, False),
        ("responses", CHAT, True),
        ("image_generation", CHAT, True),
        ("chat", "/v1/moderations", True),
    ],
)
def test_a_model_serves_the_endpoints_it_is_made_for(mode: str, endpoint: str, served: bool) -> None:  # noqa: FBT001
    verdict = judged(deployment(can=cannot(mode=mode)), endpoint=endpoint, input="text")
    assert (verdict.error is None) is served


def test_a_model_for_responses_alone_answers_no_chat_at_openai() -> None:
    one = deployment(provider="openai", can=cannot(mode="responses"))
    assert refusal(judged(one))[:2] == ("invalid_request", "endpoint")
    assert judged(one, endpoint=RESPONSES, input="text") == ALL_FIT


def words(count: int) -> dict[str, Any]:
    return asks("word " * count)


def small(number: int = 0, window: int = 100, **of: Any) -> Deployment:
    return deployment(number, can=cannot(max_input_tokens=window), **of)


def test_an_input_with_a_quarter_more_words_than_the_window_has_tokens_is_refused_with_the_numbers() -> None:
    assert judged(small(), **words(125)) == ALL_FIT
    code, param, message = refusal(judged(small(), **words(126)))
    assert (code, param) == ("context_length_exceeded", "messages")
    assert message == "the input has about 161 tokens; the largest context window of alias a takes 100"


def test_one_long_word_is_left_to_the_provider_to_count() -> None:
    assert judged(small(), **asks("x" * 100_000)) == ALL_FIT


def test_an_input_that_likely_does_not_fit_goes_where_it_does() -> None:
    assert judged(small(0), small(1, window=1_000), **words(90)) == Verdict(frozenset({"a/0"}))


def test_an_input_that_likely_fits_nowhere_may_go_anywhere_it_might() -> None:
    assert judged(small(0), small(1, window=110), **words(100)) == ALL_FIT
    assert judged(small(0, window=40), small(1), **words(90)) == Verdict(frozenset({"a/0"}))


def test_the_asked_output_counts_into_what_likely_fits() -> None:
    assert judged(small(0), small(1, window=1_000), max_tokens=96) == Verdict(frozenset({"a/0"}))
    assert judged(small(0), max_tokens=96) == ALL_FIT


def test_the_largest_window_is_named_of_those_that_would_do_but_for_their_size() -> None:
    verdict = judged(
        small(0), small(1, window=200), deployment(2, can=cannot(supports_function_calling=False)), tools=[FUNCTION],
        **words(500),
    )  # fmt: skip
    assert refusal(verdict)[0] == "context_length_exceeded"
    assert refusal(verdict)[2].endswith("takes 200")
    assert verdict.unfit == {"a/0", "a/1", "a/2"}


def test_what_is_cut_on_demand_is_never_too_long() -> None:
    assert judged(small(), truncation="auto", **words(500)) == ALL_FIT
    assert judged(small(extra_body={"truncate_prompt_tokens": 90}), **words(500)) == ALL_FIT


def test_embedding_servers_that_cut_are_told_from_those_that_refuse() -> None:
    texts = ["word " * 200, "short"]
    assert isinstance(judged(small(provider="openai"), endpoint=EMBEDDINGS, input=texts).error, ContextLengthExceeded)
    assert judged(small(provider="voyage"), endpoint=EMBEDDINGS, input=texts) == ALL_FIT
    assert judged(small(provider="openai"), endpoint=EMBEDDINGS, input=["word " * 90] * 50) == ALL_FIT


@given(st.lists(st.text(alphabet="abcdefgh", min_size=1, max_size=9), max_size=400), st.integers(1, 200))
def test_an_input_of_no_more_words_than_the_window_has_tokens_is_never_refused(text: list[str], window: int) -> None:
    verdict = judged(small(window=window), **asks(" ".join(text)))
    if len(text) <= window:
        assert verdict == ALL_FIT
    assert (verdict.error is not None) is (len(text) > int(window * 1.25))
