"""What an answer used beside tokens of text, as a provider's own usage tells it. Imports the standard library."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from typing import Any, Final

NOTHING: Final = Decimal(0)
MOST_SECONDS: Final = 10**9
"""Longer than anyone listens; such a number is a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Tokens here are parts of a usage's own counts: of input, of output, of cached or of cache-write tokens."""

    audio_input: int = 0
    audio_output: int = 0
    audio_cached: int = 0
    image_input: int = 0
    image_output: int = 0
    image_cached: int = 0
    tells_input: bool = False
    """Whether the usage says which input tokens are pictures; `tells_output` and `tells_cached` likewise."""
    tells_output: bool = False
    tells_cached: bool = False
    written_1h: int = 0
    """Cache-write tokens that are kept for an hour, or for 12 hours; the others are kept as long as is usual."""
    written_12h: int = 0
    images: int = 0
    """Pictures that were made, `images_given` that were read."""
    images_given: int = 0
    seconds: Decimal = NOTHING
    """Of sound that was listened to."""
    characters: int = 0
    """Of text that was spoken."""
    search_units: int = 0
    web_searches: int = 0
    file_searches: int = 0
    unpriced: int = 0
    """Uses of tools, and other units, that nobody prices here."""
    search_context: str = ""
    """Size of the search context that a fee per request depends on: low, medium, high."""

    def with_(self, other: "Units") -> "Units":
        """Return both together: where one says nothing the other counts."""
        both = {each.name: getattr(self, each.name) or getattr(other, each.name) for each in fields(self)}
        return Units(**both)

    def told(self) -> dict[str, int | str]:
        """Return what there is some of, as JSON; seconds as a decimal text."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: str(value) if isinstance(value, Decimal) else value for name, value in found.items() if value}


PLAIN: Final = Units()


def units_in(raw: Mapping[str, Any]) -> Units:
    """Read a provider's usage object, of whichever provider; what cannot be read counts as not told.

    Sources: the usage types of the official SDKs (openai, anthropic, google-genai, cohere, botocore's Bedrock model),
    docs.mistral.ai/capabilities/audio (`prompt_audio_seconds`), docs.perplexity.ai (`search_context_size`).
    """
    into = _first(raw, "prompt_tokens_details", "input_tokens_details", "input_token_details")
    out = _first(raw, "completion_tokens_details", "output_tokens_details", "output_token_details")
    cached = _mapping(into.get("cached_tokens_details"))
    kept = _mapping(into.get("cache_write_tokens_details"))
    given, made, read = (
        _modalities(raw.get(name)) for name in ("promptTokensDetails", "candidatesTokensDetails", "cacheTokensDetails")
    )
    context = raw.get("search_context_size")
    web, other = _tools(raw)
    return Units(
        audio_input=count(into, "audio_tokens") or given.get("AUDIO", 0),
        audio_output=count(out, "audio_tokens") or made.get("AUDIO", 0),
        audio_cached=count(cached, "audio_tokens") or read.get("AUDIO", 0),
        image_input=count(into, "image_tokens") or given.get("IMAGE", 0),
        image_output=count(out, "image_tokens") or made.get("IMAGE", 0),
        image_cached=count(cached, "image_tokens") or read.get("IMAGE", 0),
        tells_input="image_tokens" in into or bool(given),
        tells_output="image_tokens" in out or bool(made),
        tells_cached=bool(cached) or bool(read),
        written_1h=_written_1h(raw, into),
        written_12h=count(kept, "ttl_12h_tokens"),
        seconds=_seconds(raw),
        web_searches=web,
        unpriced=other,
        search_context=context if isinstance(context, str) else "",
    )


def billed_units(raw: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return Cohere's `billed_units`, of its usage or of its `meta`; None where there are none."""
    found = raw.get("billed_units")
    if not isinstance(found, Mapping):
        found = _mapping(raw.get("meta")).get("billed_units")
    return found if isinstance(found, Mapping) and found else None


def count(source: Mapping[str, Any], name: str) -> int:
    """Return a whole count above zero, however JSON wrote it; 0 for anything else."""
    value = source.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and value > 0 else 0


def _first(raw: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    return next((found for name in names if isinstance(found := raw.get(name), Mapping) and found), {})


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _modalities(value: object) -> dict[str, int]:
    """Tokens by modality in Gemini's lists."""
    return {} if not isinstance(value, list) else dict(_counted(value))


def _counted(value: list[Any]) -> Iterator[tuple[str, int]]:
    for each in value:
        if isinstance(each, Mapping) and isinstance(each.get("modality"), str):
            yield each["modality"].upper(), count(each, "tokenCount")


def _written_1h(raw: Mapping[str, Any], into: Mapping[str, Any]) -> int:
    """Cache writes of an hour: Anthropic's `cache_creation`, on Vertex too, and Bedrock's list `cacheDetails`.

    In OpenAI's shape, where Anthropic's are put for a caller, they stand among the details of the prompt.
    """
    kept = raw.get("cache_creation") or into.get("cache_creation_token_details")
    told = count(_mapping(kept), "ephemeral_1h_input_tokens")
    details = raw.get("cacheDetails")
    if told or not isinstance(details, list):
        return told
    return sum(count(each, "inputTokens") for each in details if isinstance(each, Mapping) and each.get("ttl") == "1h")


def _seconds(raw: Mapping[str, Any]) -> Decimal:
    value = raw.get("seconds") if raw.get("type") == "duration" else raw.get("prompt_audio_seconds")
    return seconds_of(value)


def seconds_of(value: object) -> Decimal:
    """Return seconds above zero; 0 for anything that is no number of them."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return NOTHING
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return NOTHING
    return found if found.is_finite() and 0 < found <= MOST_SECONDS else NOTHING


def _tools(raw: Mapping[str, Any]) -> tuple[int, int]:
    """Web searches, and uses of other tools that are charged for by a fee that is not in `raw`.

    Anthropic's `server_tool_use` (fetching pages is free: platform.claude.com/docs/en/about-claude/pricing), xAI's
    `num_sources_used`, Perplexity's `num_search_queries`.
    """
    used = raw.get("server_tool_use")
    others = sum(1 for name in ("num_sources_used", "num_search_queries") if raw.get(name))
    if not isinstance(used, Mapping):
        return 0, others + bool(used)
    web = count(used, "web_search_requests")
    known = {"web_search_requests", "web_fetch_requests"}
    return web, others + sum(1 for name, value in used.items() if name not in known and value)
