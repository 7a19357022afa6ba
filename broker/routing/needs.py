"""What a request needs of a model, read once from its body. Pure; imports endpoint names only.

A shape that is not the endpoint's asks for nothing here: the body is validated elsewhere.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from schemas.request import CHAT, COMPLETIONS, EMBEDDINGS, RERANK, RESPONSES

TRIMMING: Final = {
    "truncation": ("disabled",),
    "transforms": ([],),
    "plugins": ([],),
    "context_management": (),
    "truncate": ("NONE", "none", False),
    "truncate_prompt_tokens": (),
}
"""Parameters with which a provider cuts what is too long instead of refusing it, and values that mean it does not: of
OpenAI's Responses, OpenRouter, Anthropic, Cohere and text-embeddings-inference, vLLM."""

BOUNDS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")
"""Parameters that bound what is written, the one that goes before the others first."""

PIECE: Final = 1 << 16
"""Characters that are cut into words at once."""

_PARTS: Final = {
    "image_url": "supports_vision",
    "input_image": "supports_vision",
    "image": "supports_vision",
    "input_audio": "supports_audio_input",
    "video_url": "supports_video_input",
}
"""Parts of a message by type: OpenAI's, those of its Responses, and what servers of open models take beside them."""

_FILES: Final = frozenset({"file", "input_file"})
_PDF: Final = "data:application/pdf"


class Needs(NamedTuple):
    """What one request asks of whatever serves it."""

    endpoint: str
    input_tokens: int
    """Estimated; of the largest input where each has to fit for itself."""
    output_tokens: int | None
    """The bound the caller set, None where there is none; `output_param` is the parameter it stands in."""
    output_param: str
    answers: int
    """`n`."""
    abilities: tuple[tuple[str, str], ...]
    """Each ability once, with the first place of the body that asks for it: `("supports_vision", "messages[0].…")`."""
    trimmed: bool
    """Whether the caller asks the provider to cut what is too long."""


def needs_of(endpoint: str, body: Mapping[str, Any], estimated_input: int) -> Needs:
    """Read what a request needs; `estimated_input` is the whole body's estimate of input tokens. Raises nothing."""
    param = ""
    for name in BOUNDS:
        if name in body and _whole(body[name]) is not None:
            param = name
            break
    abilities: dict[str, str] = {}
    for ability, place in _abilities(body):
        abilities.setdefault(ability, place)
    return Needs(
        endpoint=endpoint,
        input_tokens=estimated_input if endpoint not in _APART else _largest(endpoint, body),
        output_tokens=_whole(body.get(param)),
        output_param=param,
        answers=_whole(body.get("n")) or 1,
        abilities=tuple(abilities.items()),
        trimmed=is_trimmed(body) or endpoint == RERANK,
    )


def is_trimmed(parameters: Mapping[str, Any]) -> bool:
    """Whether parameters ask a provider to cut what is too long."""
    return not TRIMMING.keys().isdisjoint(parameters) and any(
        name in parameters and parameters[name] is not None and parameters[name] not in values
        for name, values in TRIMMING.items()
    )


def has_more_words(endpoint: str, body: Mapping[str, Any], limit: int) -> bool:
    """Whether an input that has to fit as a whole has more than `limit` words, or tokens where it is given as such.

    Takes time in proportion to `limit` at most, however long the body. A long text is counted piece by piece, each of
    which may begin inside a word: of many thousand words it may find one too few, never one too many.
    """
    return any(_counts_over(texts, tokens, limit) for texts, tokens in _inputs(endpoint, body))


def _counts_over(texts: list[str], tokens: int, limit: int) -> bool:
    left = limit - tokens
    for text in texts:
        for start in range(0, len(text), PIECE):
            left -= len(text[start : start + PIECE].split()) - (start > 0)
            if left < 0:
                return True
    return left < 0


_APART: Final = frozenset({EMBEDDINGS, COMPLETIONS})
"""Endpoints that take several inputs in one request, each of which has to fit for itself."""


def _largest(endpoint: str, body: Mapping[str, Any]) -> int:
    sizes = (sum(len(text) for text in texts) // 4 + tokens for texts, tokens in _inputs(endpoint, body))
    return max(sizes, default=0)


def _inputs(endpoint: str, body: Mapping[str, Any]) -> Iterator[tuple[list[str], int]]:
    """Yield every input that has to fit for itself: its texts, and how many tokens it has where it is given as such."""
    if endpoint == CHAT:
        yield list(_texts(body.get("messages"))), 0
    elif endpoint == RESPONSES:
        instructions, given = body.get("instructions"), body.get("input")
        texts = [given] if isinstance(given, str) else list(_texts(given))
        yield texts + ([instructions] if isinstance(instructions, str) else []), 0
    elif endpoint in _APART:
        given = body.get("input" if endpoint == EMBEDDINGS else "prompt")
        if isinstance(given, list) and not any(isinstance(each, int) for each in given):
            for each in given:
                yield _one(each)
        else:
            yield _one(given)


def _one(given: object) -> tuple[list[str], int]:
    if isinstance(given, str):
        return [given], 0
    return [], len(given) if isinstance(given, list) else 0


def _texts(messages: object) -> Iterator[str]:
    if not isinstance(messages, list):
        return
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else (content,):
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text


def _abilities(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is asked for and where; the first place of an ability is the one that an error names."""
    if not _ASKING.isdisjoint(body):
        yield from _of_parameters(body)
    for field in ("messages", "input"):
        messages = body.get(field)
        if isinstance(messages, list):
            for number, message in enumerate(messages):
                content = message.get("content") if isinstance(message, dict) else None
                if isinstance(content, list):
                    yield from _of_parts(content, f"{field}[{number}]")


_ASKING: Final = frozenset(
    {"tools", "functions", "response_format", "text", "reasoning_effort", "reasoning", "thinking"}
    | {"web_search_options", "modalities"}
)
"""Parameters that may ask for an ability."""


def _of_parameters(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("tools", "functions"):
        if _has_functions(name, body.get(name)):
            yield "supports_function_calling", name
            if body.get("parallel_tool_calls") is True:
                yield "supports_parallel_function_calling", "parallel_tool_calls"
    if _type(body.get("response_format")) == "json_schema":
        yield "supports_response_schema", "response_format"
    text = body.get("text")
    if isinstance(text, dict) and _type(text.get("format")) == "json_schema":
        yield "supports_response_schema", "text"
    yield from _reasoning(body)
    if body.get("web_search_options") is not None:
        yield "supports_web_search", "web_search_options"
    modalities = body.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        yield "supports_audio_output", "modalities"


def _has_functions(name: str, tools: object) -> bool:
    """Whether functions of the caller's are offered; tools of the provider's own (`web_search`) are something else."""
    return isinstance(tools, list) and any(name == "functions" or _type(tool) == "function" for tool in tools)


def _of_parts(content: list[Any], place: str) -> Iterator[tuple[str, str]]:
    for index, part in enumerate(content):
        ability = _of_part(part) if isinstance(part, dict) else None
        if ability is not None:
            yield ability, f"{place}.content[{index}]"


def _reasoning(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    effort, reasoning = body.get("reasoning_effort"), body.get("reasoning")
    if isinstance(effort, str) and effort != "none":
        yield "supports_reasoning", "reasoning_effort"
    effort = reasoning.get("effort") if isinstance(reasoning, dict) else None
    if isinstance(effort, str) and effort != "none":
        yield "supports_reasoning", "reasoning"
    if _type(body.get("thinking")) == "enabled":
        yield "supports_reasoning", "thinking"


def _of_part(part: Mapping[str, Any]) -> str | None:
    kind = part.get("type")
    if not isinstance(kind, str):
        return None
    if kind in _FILES:
        return "supports_pdf_input" if _is_pdf(part) else None
    ability = _PARTS.get(kind)
    if ability == "supports_vision":
        url = _url(part)
        if url.startswith("data:") and not url.startswith("data:image/"):
            return "supports_pdf_input" if url.startswith(_PDF) else None
    return ability


def _is_pdf(part: Mapping[str, Any]) -> bool:
    file = part.get("file")
    file = file if isinstance(file, dict) else part
    data, name = file.get("file_data"), file.get("filename")
    return (isinstance(data, str) and data.startswith(_PDF)) or (
        isinstance(data, str) and isinstance(name, str) and name.lower().endswith(".pdf")
    )


def _url(part: Mapping[str, Any]) -> str:
    url = part.get("image_url")
    url = url.get("url") if isinstance(url, dict) else url
    return url if isinstance(url, str) else ""


def _type(value: object) -> object:
    return value.get("type") if isinstance(value, dict) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
