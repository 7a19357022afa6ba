"""What answers of OpenAI's shape tell of pictures, speech, sound, searches, and of the tier that served them."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson
import pytest

from broker.config import Deployment
from broker.ledger.units import Units, units_in
from schemas.request import CHAT, IMAGES, RERANK, RESPONSES, SPEECH, TRANSCRIPTIONS
from workers.providers import openai
from workers.providers.base import CallResult, Usage
from workers.providers.catalog import resolve
from workers.providers.counted import usage_in
from workers.providers.dialects import anthropic, gemini


def deployment(provider: str, model: str = "m", **more: Any) -> Deployment:
    return Deployment(name="a/0", alias="a", provider=provider, model=model, api_key="k", **more)


def answered(
    served: Deployment, body: Mapping[str, Any], asked: Mapping[str, Any] | None = None, **headers: str
) -> CallResult:
    chat = {"choices": [{"message": {"content": "x"}}], **body}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return openai.result(resolve(served), CHAT, asked or {}, chat, orjson.dumps(chat), named)


def test_pictures_are_counted_beside_their_tokens() -> None:
    usage = {"input_tokens": 10, "output_tokens": 4160, "total_tokens": 4170}
    told = usage_in(IMAGES, {}, {"data": [{"b64_json": "x"}, {"b64_json": "y"}], "usage": usage})
    assert (told.output_tokens, told.units, told.estimated) == (4160, Units(images=2), False)


def test_pictures_without_usage_are_counted_and_no_tokens_are_made_up() -> None:
    told = usage_in(IMAGES, {"prompt": "a long prompt"}, {"data": [{"url": "x"}]})
    assert told == Usage(units=Units(images=1), estimated=True)


def test_speech_is_counted_in_characters() -> None:
    told = usage_in(SPEECH, {"input": "Grüße"}, {"object": "audio.speech", "data": "…"})
    assert told == Usage(units=Units(characters=5), estimated=True)


@pytest.mark.parametrize(
    "body",
    [{"text": "x", "usage": {"type": "duration", "seconds": 27}}, {"text": "x", "duration": 27.0}],
)
def test_a_transcription_tells_its_length(body: dict[str, Any]) -> None:
    told = usage_in(TRANSCRIPTIONS, {}, body)
    assert (told.units, told.estimated) == (Units(seconds=Decimal(27)), False)


def test_a_transcription_may_tell_tokens_of_sound_and_text() -> None:
    usage = {
        "type": "tokens",
        "input_tokens": 14,
        "output_tokens": 45,
        "total_tokens": 59,
        "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
    }
    told = usage_in(TRANSCRIPTIONS, {}, {"text": "x", "usage": usage})
    assert (told.input_tokens, told.output_tokens, told.audio_tokens) == (14, 45, 14)


def test_a_transcription_of_unknown_length_says_that_something_is_not_priced() -> None:
    assert usage_in(TRANSCRIPTIONS, {}, {"text": "x"}) == Usage(units=Units(unpriced=1), estimated=True)


def test_rerank_tells_what_is_billed() -> None:
    told = usage_in(RERANK, {"query": "q"}, {"results": [], "meta": {"billed_units": {"search_units": 1}}})
    assert told == Usage(raw={"billed_units": {"search_units": 1}})


def test_a_response_tells_the_tools_that_cost_a_fee() -> None:
    output = [
        {"type": "web_search_call"},
        {"type": "web_search_call"},
        {"type": "code_interpreter_call"},
        {"type": "x"},
    ]
    told = usage_in(RESPONSES, {}, {"output": output, "usage": {"input_tokens": 1, "output_tokens": 2}})
    assert told.units == Units(web_searches=2, unpriced=1)


def test_a_plain_chat_has_no_units() -> None:
    assert usage_in(CHAT, {}, {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}).units is None


def test_the_tier_that_served_counts_and_not_the_one_asked_for() -> None:
    served = answered(deployment("openai"), {"service_tier": "default"}, {"service_tier": "priority"})
    assert served.service_tier == "default"


def test_gemini_tells_the_tier_in_a_header() -> None:
    found = answered(deployment("gemini"), {}, {"service_tier": "priority"}, x_gemini_service_tier="standard")
    assert found.service_tier == "standard"


@pytest.mark.parametrize(("asked", "tier"), [("flex", "flex"), ("auto", None), ("default", None), (None, None)])
def test_where_the_answer_is_silent_the_tier_asked_for_is_taken(asked: str | None, tier: str | None) -> None:
    assert answered(deployment("openai"), {}, {"service_tier": asked}).service_tier == tier


def test_a_tier_that_was_not_sent_was_not_asked_for() -> None:
    served = deployment("openai", additional_drop_params=("service_tier",))
    assert answered(served, {}, {"service_tier": "flex"}).service_tier is None


@pytest.mark.parametrize(
    ("provider", "usage", "stated"),
    [
        ("openrouter", {"cost": 0.00014}, "0.00014"),
        ("xai", {"cost_in_usd_ticks": 37_756_000}, "0.0037756000"),
    ],
)
def test_a_cost_that_the_provider_states_is_kept_in_the_raw_usage(
    provider: str, usage: dict[str, Any], stated: str
) -> None:
    told = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, **usage}
    found = answered(deployment(provider), {"usage": told})
    assert (found.stated_cost, found.usage.raw) == (stated, told)


def test_a_stream_of_anthropic_s_keeps_what_its_price_depends_on() -> None:
    usage = {
        "input_tokens": 5,
        "output_tokens": 7,
        "cache_creation_input_tokens": 100,
        "cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 60},
        "service_tier": "batch",
        "inference_geo": "us",
    }
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-5", "usage": usage}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    target = resolve(deployment("anthropic", "claude-opus-5"))
    stream = anthropic.stream(target, CHAT, {})
    for event in events:
        list(stream.feed(f"event: {event['type']}\ndata: {orjson.dumps(event).decode()}\n\n".encode()))
    body = stream.body()
    found = openai.result(target, CHAT, {}, body, orjson.dumps(body), {})
    raw = found.usage.raw or {}
    assert (units_in(raw).written_1h, raw["inference_geo"], found.service_tier) == (60, "us", "batch")


def test_a_stream_of_gemini_s_keeps_sound_and_pictures_apart() -> None:
    counts = {
        "promptTokenCount": 500,
        "candidatesTokenCount": 10,
        "cachedContentTokenCount": 300,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 400}, {"modality": "IMAGE", "tokenCount": 50}],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 300}],
    }
    part = {"content": {"role": "model", "parts": [{"text": "Hi"}]}, "finishReason": "STOP", "index": 0}
    target = resolve(deployment("gemini", "gemini-2.5-flash"))
    stream = gemini.stream(target, CHAT, {})
    list(stream.feed(b"data: " + orjson.dumps({"candidates": [part], "usageMetadata": counts}) + b"\n\n"))
    body = stream.body()
    units = units_in(openai.result(target, CHAT, {}, body, orjson.dumps(body), {}).usage.raw or {})
    assert (units.audio_input, units.image_input, units.audio_cached) == (400, 50, 300)


@pytest.mark.parametrize("tier", ["flex", "priority", "standard"])
def test_gemini_is_asked_for_a_tier_by_its_own_name(tier: str) -> None:
    asked = {"messages": [{"role": "user", "content": "Hi"}], "service_tier": tier}
    out = gemini.outbound(resolve(deployment("gemini", "gemini-2.5-flash")), CHAT, asked, streams=False)
    assert orjson.loads(out.body)["serviceTier"] == tier
