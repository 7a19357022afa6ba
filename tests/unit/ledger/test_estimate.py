"""The guess at a request's tokens."""

import pytest

from broker.ledger.estimate import DEFAULT_OUTPUT, PART_TOKENS, estimate_tokens


def test_a_chat_counts_its_texts_and_a_default_of_output() -> None:
    body = {"messages": [{"role": "user", "content": "x" * 40}, {"role": "assistant", "tool_calls": []}]}
    assert estimate_tokens(body) == 10 + 8 + DEFAULT_OUTPUT


def test_the_request_s_own_bound_of_output_is_taken() -> None:
    body = {"messages": [{"role": "user", "content": "x" * 40}], "max_completion_tokens": 7, "max_tokens": 9}
    assert estimate_tokens(body) == 10 + 4 + 7


def test_parts_count_their_text_and_a_flat_number_for_a_picture() -> None:
    parts = [{"type": "text", "text": "x" * 40}, {"type": "image_url", "image_url": {"url": "data:"}}]
    assert estimate_tokens({"messages": [{"role": "user", "content": parts}]}) == 10 + PART_TOKENS + 4 + DEFAULT_OUTPUT


@pytest.mark.parametrize(
    ("given", "tokens"), [("x" * 40, 11), (["x" * 40, "y" * 4], 13), ([1, 2, 3], 3), ([[1, 2], [3]], 3), (None, 1)]
)
def test_an_embedding_has_no_output(given: object, tokens: int) -> None:
    assert estimate_tokens({"input": given}) == tokens


def test_a_completion_counts_its_prompt_and_its_bound() -> None:
    assert estimate_tokens({"prompt": "x" * 40, "max_tokens": 5}) == 16


@pytest.mark.parametrize("messages", ["text", 5, [5, "text", {"content": {}}, {"content": [5]}]])
def test_shapes_that_are_not_the_endpoint_s_do_not_fail(messages: object) -> None:
    assert estimate_tokens({"messages": messages, "max_tokens": "many"}) >= 1
