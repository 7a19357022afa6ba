"""A real model through the whole queue: chat, a stream, an answer that fits a schema, embeddings."""

import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from broker.embedded.model_part import MODEL_NAME
from tests.serving import Caller, alias, calling, make_topics, settings_of, working

pytestmark = [pytest.mark.embedded, pytest.mark.model]

QUESTION = {"role": "user", "content": "Name three colours."}


@pytest.fixture
async def caller(
    kafka_bootstrap: str, redis_url: str, model_url: str, embedding_url: str, unique_prefix: str
) -> AsyncIterator[Caller]:
    fields = {"provider": "llamacpp", "model": MODEL_NAME}
    settings = settings_of(
        kafka_bootstrap,
        redis_url,
        unique_prefix,
        alias("chat", model_url, timeout=120.0, limits={**fields, "name": f"{unique_prefix}chat/0"}),
        alias("embed", embedding_url, timeout=120.0, limits={**fields, "name": f"{unique_prefix}embed/0"}),
    )
    await make_topics(settings)
    async with calling(settings) as found, working(settings):
        yield found


async def test_a_chat_is_answered_by_a_real_model(caller: Caller) -> None:
    reply = await caller.ask("chat", {"messages": [QUESTION], "max_tokens": 24, "temperature": 0, "seed": 1})
    assert reply.status == 200, reply.value
    completion = ChatCompletion.model_validate(reply.body(), strict=True)
    assert completion.choices[0].message.content
    assert completion.usage is not None
    (event,) = await caller.events(reply.request_id, 1)
    assert (event.input_tokens, event.output_tokens, event.estimated) == (
        completion.usage.prompt_tokens,
        completion.usage.completion_tokens,
        False,
    )


async def test_a_stream_of_a_real_model_adds_up_to_its_final_answer(caller: Caller) -> None:
    asked = {"messages": [QUESTION], "max_tokens": 24, "stream": True, "stream_options": {"include_usage": True}}
    reply = await caller.ask("chat", asked)
    assert reply.status == 200, reply.value
    records = [record for record in caller.seen if dict(record.headers).get("request-id") == reply.request_id.encode()]
    chunks = [
        ChatCompletionChunk.model_validate_json(record.value or b"", strict=True)
        for record in records
        if record.topic == caller.names.replies and dict(record.headers).get("final") != b"1"
    ]
    told = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    whole = ChatCompletion.model_validate(reply.body(), strict=True)
    assert told == whole.choices[0].message.content
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage is not None] == [
        whole.usage.completion_tokens if whole.usage else None
    ]


async def test_an_answer_fits_the_schema_that_was_asked_for(caller: Caller) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"type": "string", "enum": ["red", "green"]}, "number": {"type": "integer"}},
        "required": ["colour", "number"],
        "additionalProperties": False,
    }
    format_ = {"type": "json_schema", "json_schema": {"name": "pick", "schema": schema, "strict": True}}
    reply = await caller.ask("chat", {"messages": [QUESTION], "response_format": format_, "max_tokens": 60})
    assert reply.status == 200, reply.value
    answer: Any = json.loads(reply.body()["choices"][0]["message"]["content"])
    assert set(answer) == {"colour", "number"}
    assert answer["colour"] in {"red", "green"}
    assert isinstance(answer["number"], int)


async def test_texts_are_embedded_and_like_ones_lie_nearer(caller: Caller) -> None:
    texts = ["The cat sleeps on the sofa.", "A cat is sleeping on a couch.", "Interest rates rose in March."]
    reply = await caller.ask("embed", {"model": "embed", "input": texts}, endpoint="/v1/embeddings")
    assert reply.status == 200, reply.value
    found = CreateEmbeddingResponse.model_validate(reply.body(), strict=True)
    one, two, other = [item.embedding for item in found.data]
    assert len(one) == len(two) == len(other) > 100
    assert likeness(one, two) > likeness(one, other)


def likeness(one: list[float], other: list[float]) -> float:
    """Cosine of the angle between two vectors."""
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))
