"""What a request needs of a model, read from its body."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.routing.needs import Needs, has_more_words, needs_of
from schemas.request import CHAT, COMPLETIONS, EMBEDDINGS, RERANK, RESPONSES

PDF = "data:application/pdf;base64,JVBERi0="
FUNCTION = {"type": "function", "function": {"name": "f"}}
PNG = "data:image/png;base64,iVBORw0="


def chat(*parts: dict[str, Any], **fields: Any) -> Needs:
    content: Any = list(parts) if parts else "Hello"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    return needs_of(CHAT, {"messages": messages, **fields}, 10)


def test_a_plain_chat_needs_nothing_but_room() -> None:
    plain = Needs(CHAT, 10, None, "", answers=1, abilities=(), trimmed=False)
    assert chat() == plain
    assert chat(tools=[], response_format={"type": "text"}, reasoning_effort="none", parallel_tool_calls=True) == plain


@pytest.mark.parametrize(
    ("fields", "abilities"),
    [
        ({"tools": [FUNCTION]}, (("supports_function_calling", "tools"),)),
        ({"functions": [{"name": "f"}]}, (("supports_function_calling", "functions"),)),
        (
            {"tools": [FUNCTION], "parallel_tool_calls": True},
            (("supports_function_calling", "tools"), ("supports_parallel_function_calling", "parallel_tool_calls")),
        ),
        ({"response_format": {"type": "json_schema"}}, (("supports_response_schema", "response_format"),)),
        ({"response_format": {"type": "json_object"}}, ()),
        ({"tools": [{"type": "web_search"}, {"type": "mcp"}, {}, 7]}, ()),
        ({"reasoning_effort": "high"}, (("supports_reasoning", "reasoning_effort"),)),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, (("supports_reasoning", "thinking"),)),
        ({"web_search_options": {}}, (("supports_web_search", "web_search_options"),)),
        ({"modalities": ["text", "audio"]}, (("supports_audio_output", "modalities"),)),
    ],
)
def test_a_parameter_asks_for_an_ability(fields: dict[str, Any], abilities: tuple[tuple[str, str], ...]) -> None:
    assert chat(**fields).abilities == abilities


@pytest.mark.parametrize(
    ("part", "ability"),
    [
        ({"type": "image_url", "image_url": {"url": PNG}}, "supports_vision"),
        ({"type": "image_url", "image_url": "https://example.org/a.png"}, "supports_vision"),
        ({"type": "image_url", "image_url": {"url": PDF}}, "supports_pdf_input"),
        ({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}, "supports_audio_input"),
        ({"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}}, "supports_video_input"),
        ({"type": "file", "file": {"file_data": PDF}}, "supports_pdf_input"),
        ({"type": "file", "file": {"file_data": "JVBERi0=", "filename": "A.PDF"}}, "supports_pdf_input"),
    ],
)
def test_a_part_asks_for_an_ability_at_its_place(part: dict[str, Any], ability: str) -> None:
    text = {"type": "text", "text": "Look"}
    assert chat(text, part).abilities == ((ability, "messages[1].content[1]"),)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "Look"},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"file_data": "data:text/csv;base64,YQ=="}},
        {"type": "image_url", "image_url": {"url": "data:text/plain;base64,YQ=="}},
        {"type": "refusal", "refusal": "No"},
        {"type": 7},
    ],
)
def test_a_part_of_unknown_meaning_asks_for_nothing(part: dict[str, Any]) -> None:
    assert chat(part).abilities == ()


def test_the_first_place_that_asks_for_an_ability_is_named_once() -> None:
    picture = {"type": "image_url", "image_url": {"url": PNG}}
    assert chat(picture, picture).abilities == (("supports_vision", "messages[1].content[0]"),)


def test_a_response_asks_in_its_own_words() -> None:
    content = [{"type": "input_image", "image_url": PNG}, {"type": "input_file", "file_data": PDF}]
    body = {
        "input": [{"role": "user", "content": content}],
        "text": {"format": {"type": "json_schema"}},
        "reasoning": {"effort": "low"},
        "max_output_tokens": 50,
    }
    needs = needs_of(RESPONSES, body, 10)
    assert needs.abilities == (
        ("supports_response_schema", "text"),
        ("supports_reasoning", "reasoning"),
        ("supports_vision", "input[0].content[0]"),
        ("supports_pdf_input", "input[0].content[1]"),
    )
    assert (needs.output_tokens, needs.output_param) == (50, "max_output_tokens")


def test_the_newer_bound_of_the_output_goes_before_the_older() -> None:
    needs = chat(max_tokens=5, max_completion_tokens=7, n=3)
    assert (needs.output_tokens, needs.output_param, needs.answers) == (7, "max_completion_tokens", 3)


def test_each_text_to_embed_has_to_fit_for_itself() -> None:
    assert needs_of(EMBEDDINGS, {"input": ["a" * 40, "b" * 80]}, 30).input_tokens == 20
    assert needs_of(EMBEDDINGS, {"input": [[1, 2, 3], [4]]}, 4).input_tokens == 3
    assert needs_of(EMBEDDINGS, {"input": [1, 2, 3, 4]}, 4).input_tokens == 4
    assert needs_of(COMPLETIONS, {"prompt": ["a" * 40, "b" * 80]}, 30).input_tokens == 20


@pytest.mark.parametrize(
    ("fields", "trimmed"),
    [
        ({"truncation": "auto"}, True),
        ({"truncation": "disabled"}, False),
        ({"transforms": ["middle-out"]}, True),
        ({"transforms": []}, False),
        ({"truncate_prompt_tokens": 100}, True),
        ({"truncate": None}, False),
    ],
)
def test_a_caller_may_ask_for_long_inputs_to_be_cut(fields: dict[str, Any], trimmed: bool) -> None:  # noqa: FBT001
    assert chat(**fields).trimmed is trimmed


def test_documents_to_rank_are_cut_by_whoever_ranks_them() -> None:
    assert needs_of(RERANK, {"query": "q", "documents": ["d"]}, 2).trimmed


@pytest.mark.parametrize("spaces", [" ", "\n", "   ", "\t \n"])
def test_words_are_counted_up_to_a_limit_whatever_stands_between_them(spaces: str) -> None:
    body = {"messages": [{"content": spaces.join(["word"] * 6)}, {"content": [{"type": "text", "text": " w o r d "}]}]}
    assert [has_more_words(CHAT, body, limit) for limit in (0, 8, 9, 10, 11)] == [True, True, True, False, False]


def test_words_of_a_response_are_those_of_its_input_and_its_instructions() -> None:
    body = {"input": "a b c", "instructions": "d e"}
    assert [has_more_words(RESPONSES, body, limit) for limit in (4, 5)] == [True, False]


def test_tokens_that_are_given_as_numbers_are_counted_as_they_are() -> None:
    assert [has_more_words(EMBEDDINGS, {"input": [[1] * 5, [2] * 9]}, limit) for limit in (8, 9)] == [True, False]


def test_a_long_text_that_is_cut_into_pieces_never_counts_more_words_than_it_has() -> None:
    for text in ("word " * 40_000, "x" * 150_000, "a" * ((1 << 16) - 1) + " b"):
        count = len(text.split())
        body = {"messages": [{"content": text}]}
        assert not has_more_words(CHAT, body, count)
        assert has_more_words(CHAT, body, count - 4)


@given(st.text(alphabet="ab \n", max_size=200), st.integers(0, 120))
def test_counting_up_to_a_limit_is_counting(text: str, limit: int) -> None:
    assert has_more_words(CHAT, {"messages": [{"content": text}]}, limit) is (len(text.split()) > limit)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        "messages", "input", "prompt", "tools", "functions", "response_format", "text", "reasoning", "reasoning_effort",
        "thinking", "modalities", "n", "max_tokens", "truncation", "transforms", "plugins", "instructions", "truncate",
    ]
)  # fmt: skip
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["image_url", "file", "input_file", "text"]) | JSON},
    optional={"image_url": JSON, "file": JSON, "file_data": JSON, "filename": JSON, "text": JSON},
)
MESSAGES = st.lists(JSON | st.fixed_dictionaries({"content": JSON | st.lists(PARTS | JSON, max_size=3)}), max_size=3)


@given(
    st.sampled_from([CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, RERANK, "/v1/other"]),
    st.dictionaries(FIELDS, JSON | MESSAGES, max_size=6),
)
def test_no_body_is_so_strange_that_reading_it_fails(endpoint: str, body: dict[str, Any]) -> None:
    needs = needs_of(endpoint, body, 3)
    assert needs.input_tokens >= 0
    assert has_more_words(endpoint, body, 10**9) is False
