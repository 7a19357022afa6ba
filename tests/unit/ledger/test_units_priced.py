"""What sound, pictures, speech, searches and cache writes cost by published prices, worked out by hand."""

from decimal import Decimal
from typing import Any

import pytest

from broker.config import Deployment
from broker.ledger.prices import PROVIDER_BATCH
from broker.ledger.units import Units
from tests.unit.ledger.priced import MTOK, USD, Used, cost, deployment


def of_openai(model: str) -> Deployment:
    return deployment("openai", model)


def test_sound_that_is_heard_and_spoken_costs_each_its_own_rate() -> None:
    raw = {
        "prompt_tokens_details": {"audio_tokens": 400, "text_tokens": 100},
        "completion_tokens_details": {"audio_tokens": 200, "text_tokens": 50},
    }
    used = Used(500, 250, audio_tokens=600, raw=raw)  # gpt-audio: $2.50 and $10 text, $32 and $64 sound a million
    assert cost(of_openai("gpt-audio"), used) == 100 * 2_500_000 + 400 * 32 * MTOK + 50 * 10 * MTOK + 200 * 64 * MTOK


def test_sound_without_a_price_of_its_own_is_unknown_rather_than_text() -> None:
    raw = {"prompt_tokens_details": {"audio_tokens": 400}}
    assert cost(of_openai("gpt-4o-audio-preview"), Used(500, audio_tokens=400, raw=raw)) is None
    assert cost(of_openai("gpt-4o-audio-preview"), Used(500, 10)) == 500 * 2_500_000 + 10 * 10 * MTOK


def test_sound_at_google_costs_what_text_costs_where_no_price_of_it_is_published() -> None:
    raw = {"promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 400}]}
    assert cost(deployment("gemini", "gemini-2.5-pro"), Used(500, audio_tokens=400, raw=raw)) == 500 * 1_250_000


def test_the_sum_of_sound_alone_tells_nothing_where_both_sides_may_have_it() -> None:
    assert cost(of_openai("gpt-audio"), Used(500, 250, audio_tokens=600)) is None


def test_cached_sound_costs_its_own_rate_where_the_usage_tells_it() -> None:
    told = {"promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 400}, {"modality": "TEXT", "tokenCount": 600}]}
    kept = {"cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 300}, {"modality": "TEXT", "tokenCount": 100}]}
    flash = deployment("gemini", "gemini-3.1-flash-lite")  # $0.25, sound $0.50, cached $0.025, cached sound $0.05
    found = cost(flash, Used(1000, cached_tokens=400, audio_tokens=400, raw={**told, **kept}))
    assert found == 500 * 250_000 + 100 * 500_000 + 100 * 25_000 + 300 * 50_000
    assert cost(flash, Used(1000, cached_tokens=400, audio_tokens=400, raw=told)) is None


def test_a_transcription_costs_by_its_tokens_or_by_its_length() -> None:
    tokens = {"type": "tokens", "input_token_details": {"audio_tokens": 90, "text_tokens": 10}}
    used = Used(100, 20, audio_tokens=90, raw=tokens)  # gpt-4o-transcribe: $2.50, sound $6, out $10 a million
    assert cost(of_openai("gpt-4o-transcribe"), used) == 10 * 2_500_000 + 90 * 6 * MTOK + 20 * 10 * MTOK
    minute = Used(units=Units(seconds=Decimal(60)))
    assert cost(of_openai("whisper-1"), minute) == USD * 6 // 1000  # $0.006 a minute


def test_a_transcription_of_unknown_length_has_no_price() -> None:
    assert cost(of_openai("whisper-1"), Used()) is None
    assert cost(of_openai("gpt-4o-transcribe"), Used(units=Units(unpriced=1))) is None


def test_voxtral_costs_by_the_seconds_its_usage_tells() -> None:
    raw = {"prompt_audio_seconds": 3600, "prompt_tokens": 4, "completion_tokens": 635}
    assert cost(deployment("mistral", "voxtral-mini-2602"), Used(4, 635, raw=raw)) == USD * 18 // 100  # $0.18 an hour
    small = deployment("mistral", "voxtral-small-2507")  # $0.10 and $0.40 a million, $0.24 an hour of sound
    assert cost(small, Used(4, 635, raw=raw)) == 4 * 100_000 + 635 * 400_000 + USD * 24 // 100


def test_speech_costs_by_the_character() -> None:
    assert cost(of_openai("tts-1"), Used(units=Units(characters=1000))) == USD * 15 // 1000  # $15 a million
    assert cost(of_openai("tts-1-hd"), Used(units=Units(characters=1000))) == USD * 30 // 1000


def test_speech_that_is_sold_by_tokens_nobody_counted_has_no_price() -> None:
    assert cost(of_openai("gpt-4o-mini-tts"), Used(units=Units(characters=1000))) is None


def test_pictures_cost_their_tokens() -> None:
    raw = {
        "input_tokens_details": {"text_tokens": 50, "image_tokens": 323},
        "output_tokens_details": {"image_tokens": 4160, "text_tokens": 0},
    }
    used = Used(373, 4160, units=Units(images=1), raw=raw)
    assert cost(of_openai("gpt-image-1"), used) == 50 * 5 * MTOK + 323 * 10 * MTOK + 4160 * 40 * MTOK
    assert cost(of_openai("gpt-image-1.5"), used) == 50 * 5 * MTOK + 323 * 8 * MTOK + 4160 * 32 * MTOK


def test_pictures_whose_tokens_are_not_told_apart_have_no_price() -> None:
    assert cost(of_openai("gpt-image-1.5"), Used(373, 4160, units=Units(images=1))) is None
    assert cost(of_openai("gpt-image-1"), Used(units=Units(images=1))) is None


def test_a_picture_that_gemini_made_costs_its_own_rate() -> None:
    raw = {
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}],
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
    }
    found = cost(deployment("gemini", "gemini-2.5-flash-image"), Used(10, 1290, raw=raw))
    assert found == 10 * 300_000 + 1290 * 30 * MTOK  # $0.0387 a picture


def test_a_picture_may_cost_a_price_of_its_own() -> None:
    assert cost(deployment("xai", "grok-imagine-image"), Used(units=Units(images=3))) == 3 * USD * 2 // 100


def test_pictures_in_a_chat_cost_what_text_costs() -> None:
    raw = {"prompt_tokens_details": {"image_tokens": 765}}
    assert cost(of_openai("gpt-4o"), Used(800, raw=raw)) == 800 * 2_500_000


@pytest.mark.parametrize(
    "raw",
    [
        {"cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 60}},
        {"cacheDetails": [{"ttl": "5m", "inputTokens": 40}, {"ttl": "1h", "inputTokens": 60}]},
    ],
)
def test_cache_writes_of_an_hour_cost_more_through_bedrock_and_vertex_too(raw: dict[str, Any]) -> None:
    used = Used(100, cache_write_tokens=100, raw=raw)
    plain = 40 * 3_750_000 + 60 * 6_000_000
    assert cost(deployment("anthropic", "claude-sonnet-4-5"), used) == plain
    assert cost(deployment("bedrock", "global.anthropic.claude-sonnet-4-5-20250929-v1:0"), used) == plain
    regional = deployment("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0")
    assert cost(regional, used) == plain * 11 // 10
    assert cost(deployment("vertex_ai", "claude-sonnet-4-5", region="global"), used) == plain


def test_openai_s_cache_writes_of_twelve_hours_have_no_published_price() -> None:
    raw = {"input_tokens_details": {"cache_write_tokens": 100, "cache_write_tokens_details": {"ttl_12h_tokens": 100}}}
    assert cost(of_openai("gpt-6-sol"), Used(100, cache_write_tokens=100, raw=raw)) is None
    assert cost(of_openai("gpt-6-sol"), Used(100, cache_write_tokens=100)) == 100 * 2_500_000


def test_rerank_costs_by_the_search_or_by_the_token() -> None:
    searched = Used(raw={"billed_units": {"search_units": 2}})
    assert cost(deployment("cohere", "rerank-v3.5"), searched) == 2 * USD * 2 // 1000  # $2 a thousand
    assert cost(deployment("bedrock", "cohere.rerank-v3-5:0", region="us-east-1"), searched) == 2 * USD * 2 // 1000
    assert cost(deployment("cohere", "rerank-v3.5"), Used(1000)) is None
    assert cost(deployment("voyage", "rerank-2.5"), Used(1000)) == 1000 * 50_000
    assert cost(deployment("jina_ai", "jina-reranker-m0"), Used(1000)) == 1000 * 50_000


def test_cohere_bills_what_it_says_it_bills() -> None:
    raw = {
        "billed_units": {"input_tokens": 5, "output_tokens": 418},
        "tokens": {"input_tokens": 71, "output_tokens": 418},
    }
    assert cost(deployment("cohere", "command-a"), Used(71, 418, raw=raw)) == 5 * 2_500_000 + 418 * 10 * MTOK


def test_embedded_pictures_have_a_price_of_their_own() -> None:
    pictures = Used(raw={"billed_units": {"images": 3}})
    assert cost(deployment("cohere", "embed-english-v3.0"), pictures) == 3 * USD // 10_000
    tokens = Used(raw={"billed_units": {"image_tokens": 1000}})
    assert cost(deployment("cohere", "embed-v4.0"), tokens) == 1000 * 470_000
    unclear = Used(raw={"billed_units": {"image_tokens": 1000, "input_tokens": 1000}})
    assert cost(deployment("cohere", "embed-v4.0"), unclear) is None


@pytest.mark.parametrize(("size", "fee"), [("low", 5), ("medium", 8), ("high", 12)])
def test_perplexity_s_fee_depends_on_the_size_of_the_search_context(size: str, fee: int) -> None:
    used = Used(1000, 100, raw={"search_context_size": size})
    assert cost(deployment("perplexity", "sonar"), used) == 1000 * MTOK + 100 * MTOK + fee * USD // 1000


def test_perplexity_s_fee_is_unknown_where_the_usage_does_not_tell_the_size() -> None:
    assert cost(deployment("perplexity", "sonar"), Used(1000, 100)) is None
    assert cost(deployment("perplexity", "sonar-deep-research"), Used(1000, raw={"search_context_size": "low"})) is None


def test_searches_of_the_web_cost_their_fee() -> None:
    claude = Used(10, 10, raw={"server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1}})
    tokens = 10 * 3 * MTOK + 10 * 15 * MTOK
    assert cost(deployment("anthropic", "claude-sonnet-4-5"), claude) == tokens + 2 * USD // 100  # $10 a thousand
    response = Used(10, 10, units=Units(web_searches=1, file_searches=2))
    assert cost(of_openai("gpt-5"), response) == 10 * 1_250_000 + 10 * 10 * MTOK + USD // 100 + 2 * USD // 400


def test_moderation_is_free_of_charge() -> None:
    assert cost(of_openai("omni-moderation-latest"), Used(10)) == 0


def test_the_batch_rate_of_sound_that_nobody_states_is_unknown() -> None:
    minute = Used(units=Units(seconds=Decimal(60)))
    assert cost(of_openai("whisper-1"), minute, lane=PROVIDER_BATCH) is None
    assert cost(deployment("mistral", "voxtral-mini-2602"), minute, lane=PROVIDER_BATCH) == USD * 9 // 100 // 60
