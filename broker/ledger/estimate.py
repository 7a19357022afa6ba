"""Tokens a request may take, guessed before it is sent: for permits only, never for money. Imports nothing of ours."""

from collections.abc import Mapping
from typing import Any, Final

CHARACTERS_A_TOKEN: Final = 4
"""English text in the tokenizers of current models; other scripts take more tokens, which limits then learn."""

DEFAULT_OUTPUT: Final = 256
"""Output tokens assumed where the request sets no bound."""

PART_TOKENS: Final = 765
"""An image or a file part without text: what OpenAI counts for one picture of 1024 × 1024 pixels in high detail."""


def estimate(body: Mapping[str, Any]) -> tuple[int, int]:
    """Input and output tokens of a request body of any served endpoint, together at least 1; and the output alone.

    Shapes that are not the endpoint's count as nothing: the body is validated elsewhere.
    """
    messages = body.get("messages")
    if messages is not None:
        output = _output_bound(body)
        return _of_messages(messages) + output, output
    prompt = body.get("prompt")
    if prompt is not None and "file" not in body:
        output = _output_bound(body)
        return _of_input(prompt) + output, output
    if "documents" in body:
        return max(1, _of_input(body.get("query")) + _of_documents(body["documents"])), 0
    if "max_output_tokens" in body or "instructions" in body:
        bound = body.get("max_output_tokens")
        output = bound if isinstance(bound, int) else DEFAULT_OUTPUT
        return max(1, _of_any_input(body.get("input"))) + _of_input(body.get("instructions") or "") + output, output
    return max(1, _of_any_input(body.get("input"))), 0


def estimate_tokens(body: Mapping[str, Any]) -> int:
    """Input and output tokens of a request body, together."""
    return estimate(body)[0]


def _of_messages(messages: object) -> int:
    if not isinstance(messages, list):
        return 1
    characters = others = 0
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if type(content) is str:
            characters += len(content)
        elif isinstance(content, list):
            for part in content:
                text = part.get("text") if isinstance(part, dict) else None
                if isinstance(text, str):
                    characters += len(text)
                else:
                    others += PART_TOKENS
    return characters // CHARACTERS_A_TOKEN + others + 4 * len(messages)


def _of_any_input(given: object) -> int:
    """Tokens of an `input`: texts and tokens, or the messages of a response."""
    if isinstance(given, list) and given and isinstance(given[0], dict):
        return _of_messages(given)
    return _of_input(given)


def _of_documents(documents: object) -> int:
    if not isinstance(documents, list):
        return 1
    return sum(_of_input(each.get("text") if isinstance(each, dict) else each) for each in documents)


def _of_input(given: object) -> int:
    """Tokens of a text, of texts, of a list of tokens or of lists of tokens."""
    if isinstance(given, str):
        return len(given) // CHARACTERS_A_TOKEN + 1
    if not isinstance(given, list):
        return 1
    return sum(
        1 if isinstance(each, int) else len(each) if isinstance(each, list) else _of_input(each) for each in given
    )


def _output_bound(body: Mapping[str, Any]) -> int:
    bound = body.get("max_completion_tokens") or body.get("max_tokens")
    return bound if isinstance(bound, int) else DEFAULT_OUTPUT
