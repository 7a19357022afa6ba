"""What an answer used that no count of tokens tells: pictures, speech, sound, searches; and which tier served it. Pure.

Sources: platform.openai.com/docs/api-reference (images, audio, responses), docs.cohere.com/reference/rerank,
ai.google.dev/gemini-api/docs/priority-inference (the header that names the tier).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from broker.ledger.units import Units, billed_units, count, seconds_of
from schemas.request import IMAGES, RERANK, RESPONSES, SPEECH, TRANSCRIPTIONS
from workers.providers.base import Usage
from workers.providers.catalog import ResolvedDeployment
from workers.providers.usage import estimate, usage_of

TIER_HEADER: Final = "x-gemini-service-tier"
NO_TIER: Final = frozenset({"auto", "default", "standard_only"})
"""Tiers that may be asked for without asking for one."""

UNPRICED_TOOLS: Final = ("code_interpreter_call", "image_generation_call")
"""Items of a response whose fees are not counted here."""


def usage_in(endpoint: str, asked: Mapping[str, Any], body: Mapping[str, Any]) -> Usage:
    """Return what an answer in OpenAI's shape used: as it says, else as can be counted, else estimated and marked."""
    told = usage_of(body.get("usage"))
    read = _BESIDE.get(endpoint)
    if read is None:
        return told or estimate(asked, body)
    return read(told, asked, body)


def _images(told: Usage | None, asked: Mapping[str, Any], body: Mapping[str, Any]) -> Usage:
    del asked
    made = body.get("data")
    units = Units(images=len(made) if isinstance(made, list) else 0)
    return Usage(units=units, estimated=True) if told is None else replace(told, units=units)


def _speech(told: Usage | None, asked: Mapping[str, Any], body: Mapping[str, Any]) -> Usage:
    del body
    text = asked.get("input")
    units = Units(characters=len(text) if isinstance(text, str) else 0)
    return Usage(units=units, estimated=True) if told is None else told


def _transcription(told: Usage | None, asked: Mapping[str, Any], body: Mapping[str, Any]) -> Usage:
    del asked
    if told is not None:
        return told
    raw = body.get("usage")
    usage = raw if isinstance(raw, dict) and raw.get("type") == "duration" else {}
    seconds = seconds_of(usage.get("seconds")) or seconds_of(body.get("duration"))
    if seconds:
        return Usage(units=Units(seconds=seconds), raw=usage or {"duration": body.get("duration")})
    return Usage(units=Units(unpriced=1), estimated=True)


def _rerank(told: Usage | None, asked: Mapping[str, Any], body: Mapping[str, Any]) -> Usage:
    if told is not None:
        return told
    billed = billed_units(body)
    if billed is None:
        return estimate(asked, body)
    return Usage(
        input_tokens=count(billed, "input_tokens"),
        output_tokens=count(billed, "output_tokens"),
        raw={"billed_units": dict(billed)},
    )


def _response(told: Usage | None, asked: Mapping[str, Any], body: Mapping[str, Any]) -> Usage:
    usage = told or estimate(asked, body)
    output = body.get("output")
    kinds = [item.get("type") for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    web, files = kinds.count("web_search_call"), kinds.count("file_search_call")
    unpriced = sum(kinds.count(kind) for kind in UNPRICED_TOOLS)
    if not (web or files or unpriced):
        return usage
    return replace(usage, units=Units(web_searches=web, file_searches=files, unpriced=unpriced))


_BESIDE: Final = {
    IMAGES: _images,
    SPEECH: _speech,
    TRANSCRIPTIONS: _transcription,
    RERANK: _rerank,
    RESPONSES: _response,
}


def tier_of(
    target: ResolvedDeployment, asked: Mapping[str, Any], body: Mapping[str, Any], headers: Mapping[str, str]
) -> str | None:
    """Return the tier that served: as the answer says, or its headers; where both are silent, the one asked for."""
    usage = body.get("usage")
    told = usage.get("service_tier") if isinstance(usage, dict) else None
    tier = body.get("service_tier") or told or headers.get(TIER_HEADER)
    if isinstance(tier, str):
        return tier.lower()
    wanted = asked.get("service_tier") or target.defaults.get("service_tier")
    if wanted is None:
        return None
    if not isinstance(wanted, str) or wanted in NO_TIER or "service_tier" in target.dropped | target.lacks:
        return None
    return wanted
