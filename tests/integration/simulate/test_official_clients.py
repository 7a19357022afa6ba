"""The providers' own clients, unchanged, against `broker simulate`: it takes what they send, they read its answers."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import botocore.session
import cohere
import httpx
import openai
import pytest
from botocore.exceptions import ClientError
from google import genai
from google.oauth2.credentials import Credentials

from tests.integration.simulate.test_simulator import bases_of

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
TOOL: Any = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": SCHEMA}}
HELLO: Any = [{"role": "user", "content": "Hello"}]
ASKED: Any = [{"role": "user", "content": "weather in Bern and weather in Basel"}]
THE_ANSWER = "the quick brown fox jumps over the lazy dog while a calm river r"
BEDROCK_MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"


@pytest.fixture(scope="module")
def bases() -> Iterator[dict[str, str]]:
    with bases_of() as found:
        yield found


@pytest.fixture
def openai_client(bases: dict[str, str]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=bases["openai"], api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(bases: dict[str, str]) -> Iterator[anthropic.Anthropic]:
    base = bases["anthropic"].removesuffix("/v1")
    with anthropic.Anthropic(base_url=base, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
def co(bases: dict[str, str]) -> Iterator[cohere.ClientV2]:
    with httpx.Client() as http:
        yield cohere.ClientV2(api_key="k", base_url=bases["cohere"].removesuffix("/v2"), httpx_client=http)


def bedrock_of(bases: dict[str, str], secret: str | None = None) -> Any:
    session = botocore.session.get_session()
    session.set_credentials(bases["bedrock_access_key"], secret or bases["bedrock_secret_key"])
    return session.create_client("bedrock-runtime", region_name="eu-central-1", endpoint_url=bases["bedrock"])


def test_openai_chats_with_choices_and_logprobs(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(model="m", messages=HELLO, n=2, logprobs=True, top_logprobs=2)
    first, second = answer.choices
    assert (first.message.content, second.message.content) == (
        THE_ANSWER, "quick brown fox jumps over the lazy dog while a calm river runs",
    )  # fmt: skip
    assert first.logprobs is not None
    assert first.logprobs.content is not None
    assert "".join(token.token for token in first.logprobs.content) == THE_ANSWER
    assert len(first.logprobs.content[0].top_logprobs) == 2
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 32


def test_openai_streams_and_counts_last(openai_client: openai.OpenAI) -> None:
    chunks = list(
        openai_client.chat.completions.create(
            model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    told = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert told == THE_ANSWER
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_openai_streams_two_calls_of_a_tool_that_the_prompt_names_twice(openai_client: openai.OpenAI) -> None:
    with openai_client.chat.completions.stream(model="m", messages=ASKED, tools=[TOOL]) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == [{"place": "text"}] * 2
    assert len({call.id for call in message.tool_calls}) == 2


def test_openai_says_its_answer_where_audio_is_asked_for(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        model="gpt-audio", messages=HELLO, modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"}
    )
    message = answer.choices[0].message
    assert message.audio is not None
    assert (message.content, message.audio.transcript) == (None, THE_ANSWER)
    assert base64.b64decode(message.audio.data)[:4] == b"RIFF"
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.audio_tokens == 16
    with pytest.raises(openai.BadRequestError, match="'audio' parameter"):
        openai_client.chat.completions.create(model="gpt-audio", messages=HELLO, modalities=["audio"])


def test_openai_responds_and_knows_its_sealed_thoughts_again(openai_client: openai.OpenAI) -> None:
    asked: Any = {
        "model": "gpt-5",
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    }
    answer = openai_client.responses.create(input="Hello", **asked)
    assert answer.output_text == THE_ANSWER
    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens == 8
    items: Any = [item.model_dump(exclude_none=True) for item in answer.output]
    assert openai_client.responses.create(input=[*HELLO, *items, *HELLO], **asked).status == "completed"
    items[0]["summary"][0]["text"] = "something else"
    with pytest.raises(openai.BadRequestError) as refused:
        openai_client.responses.create(input=[*HELLO, *items, *HELLO], **asked)
    assert refused.value.code == "invalid_encrypted_content"


def test_openai_streams_a_response(openai_client: openai.OpenAI) -> None:
    with openai_client.responses.stream(
        model="gpt-5", input="Hello", reasoning={"effort": "low", "summary": "auto"}
    ) as s:
        kinds = [event.type for event in s]
        final = s.get_final_response()
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert "response.reasoning_summary_text.delta" in kinds
    assert final.output_text == THE_ANSWER


def test_openai_streams_a_response_that_calls_a_tool(openai_client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}
    with openai_client.responses.stream(model="gpt-5", input="x", tools=[tool], tool_choice="required") as stream:
        (call,) = stream.get_final_response().output
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"place": "text"}


def test_openai_s_other_endpoints(openai_client: openai.OpenAI) -> None:
    assert openai_client.completions.create(model="m", prompt="Hello").choices[0].text == THE_ANSWER
    pieces = [part.choices[0].text for part in openai_client.completions.create(model="m", prompt="Hello", stream=True)]
    assert "".join(pieces) == THE_ANSWER
    flagged = openai_client.moderations.create(input=["peace", "violence"]).results
    assert [each.flagged for each in flagged] == [False, True]
    assert flagged[1].categories.violence
    pictures = openai_client.images.generate(model="gpt-image-1", prompt="a fox", n=2).data
    assert pictures is not None
    assert [bool(picture.b64_json) for picture in pictures] == [True, True]
    sound = openai_client.audio.speech.create(model="tts-1", voice="alloy", input="Hello").content
    assert (sound[:4], sound[8:12]) == (b"RIFF", b"WAVE")
    heard = openai_client.audio.transcriptions.create(model="whisper-1", file=("a.wav", sound))
    assert heard.text == "the quick brown fox"
    long = openai_client.audio.transcriptions.create(
        model="whisper-1", file=("a.wav", sound), response_format="verbose_json"
    )
    assert long.duration == 1.0
    vectors = openai_client.embeddings.create(model="text-embedding-3-small", input=["a", "b"], dimensions=3).data
    assert [round(number, 3) for number in vectors[1].embedding] == [0.5, 0.333, 0.25]


def test_azure_wants_a_deployment_and_an_api_version(bases: dict[str, str]) -> None:
    fields: Any = {"azure_endpoint": bases["azure"], "api_key": "k", "max_retries": 0}
    with openai.AzureOpenAI(api_version="2024-10-21", **fields) as client:
        assert client.chat.completions.create(model="mine", messages=HELLO).choices[0].message.content == THE_ANSWER
        chunks = list(client.chat.completions.create(model="mine", messages=HELLO, stream=True))
        assert [len(chunk.choices) for chunk in chunks[:2]] == [0, 1]
        assert len(client.embeddings.create(model="mine", input="x").data) == 1
    with openai.AzureOpenAI(api_version="soon", **fields) as client, pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="mine", messages=HELLO)
    assert "soon" in refused.value.message
    with openai.OpenAI(base_url=bases["azure_v1"], api_key="k", max_retries=0) as client:
        assert client.responses.create(model="mine", input="Hello").output_text == THE_ANSWER


def test_anthropic_thinks_and_calls_and_takes_its_thoughts_back(claude: anthropic.Anthropic) -> None:
    asked: Any = {
        "model": "claude-x", "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": [{"name": "weather", "input_schema": SCHEMA}],
    }  # fmt: skip
    with claude.messages.stream(messages=ASKED, **asked) as stream:
        message = stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "tool_use", "tool_use"]
    assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", 32)
    turn: Any = [block.model_dump(exclude_none=True) for block in message.content]
    results: Any = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": "Sunny."} for block in turn if "id" in block
    ]

    def again(blocks: Any) -> Any:
        turns: Any = [*ASKED, {"role": "assistant", "content": blocks}, {"role": "user", "content": results}]
        return claude.messages.create(messages=turns, **asked)

    assert again(turn).stop_reason == "end_turn"
    with pytest.raises(anthropic.BadRequestError, match="Invalid `signature` in `thinking` block"):
        again([{**turn[0], "thinking": "something else"}, *turn[1:]])
    with pytest.raises(anthropic.BadRequestError, match="Expected `thinking`"):
        again(turn[1:])


def test_anthropic_writes_and_reads_a_cache_where_it_is_marked(claude: anthropic.Anthropic) -> None:
    system: Any = [{"type": "text", "text": "word " * 1000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    uses = [
        claude.messages.create(model="claude-x", max_tokens=20, system=system, messages=HELLO).usage for _ in range(2)
    ]
    told = [(use.cache_creation_input_tokens, use.cache_read_input_tokens, use.input_tokens) for use in uses]
    assert told == [(1250, 0, 2), (0, 1250, 2)]
    assert uses[0].cache_creation is not None
    assert uses[0].cache_creation.ephemeral_1h_input_tokens == 1250


def gemini_of(base: str) -> genai.Client:
    return genai.Client(api_key="k", http_options={"base_url": base.removesuffix("/v1beta"), "api_version": "v1beta"})


def test_gemini_thinks_streams_and_embeds(bases: dict[str, str]) -> None:
    with gemini_of(bases["gemini"]) as client:
        thinking: Any = {"thinking_config": {"include_thoughts": True, "thinking_budget": 64}, "candidate_count": 2}
        answer = client.models.generate_content(model="gemini-2.5-flash", contents="Hello", config=thinking)
        assert answer.text == THE_ANSWER
        assert answer.candidates is not None
        assert len(answer.candidates) == 2
        assert answer.usage_metadata is not None
        assert (answer.usage_metadata.thoughts_token_count, answer.usage_metadata.candidates_token_count) == (16, 32)
        pieces = [part.text or "" for part in client.models.generate_content_stream(model="m", contents="Hello")]
        assert "".join(pieces) == THE_ANSWER
        made = client.models.embed_content(model="gemini-embedding-001", contents=["a", "b"]).embeddings
        assert made is not None
        assert [each.values[0] for each in made if each.values] == [1.0, 0.5]


def test_gemini_wants_the_signature_of_its_call_back(bases: dict[str, str]) -> None:
    declared: Any = {"tools": [{"function_declarations": [{"name": "weather", "parameters_json_schema": SCHEMA}]}],
                     "automatic_function_calling": {"disable": True}}  # fmt: skip
    with gemini_of(bases["gemini"]) as client:

        def ask(contents: Any) -> Any:
            return client.models.generate_content(model="gemini-3-pro-preview", contents=contents, config=declared)

        asked = {"role": "user", "parts": [{"text": "weather?"}]}
        turn = ask([asked]).candidates[0].content.model_dump(exclude_none=True)
        result = {"role": "user", "parts": [{"function_response": {"name": "weather", "response": {"sky": "blue"}}}]}
        assert ask([asked, turn, result]).text == THE_ANSWER
        changed = {**turn, "parts": [{**turn["parts"][0], "thought_signature": b"something else"}]}
        with pytest.raises(genai.errors.ClientError, match="Corrupted thought signature"):
            ask([asked, changed, result])
        missing = {**turn, "parts": [{"function_call": turn["parts"][0]["function_call"]}]}
        with pytest.raises(genai.errors.ClientError, match="missing a thought_signature"):
            ask([asked, missing, result])


def test_vertex_answers_and_embeds(bases: dict[str, str]) -> None:
    options: Any = {"base_url": bases["vertex"].removesuffix("/v1"), "api_version": "v1"}
    token = Credentials("token")  # type: ignore[no-untyped-call] # google-auth has no types
    with genai.Client(
        vertexai=True, project="my-project", location="europe-west1", credentials=token, http_options=options
    ) as client:
        assert client.models.generate_content(model="gemini-2.5-flash", contents="Hello").text == THE_ANSWER
        pieces = [part.text or "" for part in client.models.generate_content_stream(model="m", contents="Hello")]
        assert "".join(pieces) == THE_ANSWER
        made = client.models.embed_content(model="text-embedding-005", contents=["a", "b"]).embeddings
        assert made is not None
        assert [each.values[0] for each in made if each.values] == [1.0, 0.5]


def test_cohere_chats_thinks_and_calls(co: cohere.ClientV2) -> None:
    thinking = cohere.Thinking(type="enabled")
    answer = co.chat(model="command-a", messages=HELLO, thinking=thinking)
    assert [part.type for part in answer.message.content or []] == ["thinking", "text"]
    assert (answer.finish_reason, answer.usage and answer.usage.tokens and answer.usage.tokens.output_tokens) == (
        "COMPLETE", 32.0,
    )  # fmt: skip
    events: Any = list(co.chat_stream(model="command-a", messages=ASKED, tools=[TOOL]))
    arguments = ["", ""]
    for event in events:
        if event.type == "tool-call-delta":
            arguments[event.index] += event.delta.message.tool_calls.function.arguments
    assert [json.loads(told) for told in arguments] == [{"place": "text"}] * 2
    assert events[-1].delta.finish_reason == "TOOL_CALL"


def test_cohere_embeds_and_ranks(co: cohere.ClientV2) -> None:
    made = co.embed(model="e", input_type="search_query", texts=["a"], embedding_types=["float", "int8"]).embeddings
    assert (made.float_ and made.float_[0][:2], made.int8 and made.int8[0][:2]) == ([1.0, 0.5], [100, 50])
    ranked = co.rerank(model="rerank-v3.5", query="red fox", documents=["blue", "a red fox", "red"], top_n=2)
    assert [each.index for each in ranked.results] == [1, 2]
    assert ranked.meta is not None
    assert ranked.meta.billed_units is not None
    assert ranked.meta.billed_units.search_units == 1.0


def test_bedrock_checks_the_signature_and_frames_its_stream(bases: dict[str, str]) -> None:
    client = bedrock_of(bases)
    asked: Any = [{"role": "user", "content": [{"text": "weather here, weather there"}]}]
    tools = {"tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": SCHEMA}}}]}
    hello: Any = [{"role": "user", "content": [{"text": "Hello"}]}]
    answer = client.converse(modelId=BEDROCK_MODEL, messages=hello)
    assert answer["output"]["message"]["content"] == [{"text": THE_ANSWER}]
    assert answer["usage"]["outputTokens"] == 16
    events = list(client.converse_stream(modelId=BEDROCK_MODEL, messages=asked, toolConfig=tools)["stream"])
    starts = [
        event["contentBlockStart"]["start"]["toolUse"]["name"] for event in events if "contentBlockStart" in event
    ]
    assert starts == ["weather", "weather"]
    assert events[-2]["messageStop"]["stopReason"] == "tool_use"
    assert events[-1]["metadata"]["usage"]["outputTokens"] == 16
    with pytest.raises(ClientError) as refused:
        bedrock_of(bases, "another secret").converse(modelId=BEDROCK_MODEL, messages=hello)
    told = refused.value.response
    assert (told["Error"]["Code"], told["ResponseMetadata"]["HTTPStatusCode"]) == ("InvalidSignatureException", 403)


def test_bedrock_invokes_the_embedding_models(bases: dict[str, str]) -> None:
    client = bedrock_of(bases)

    def invoke(model: str, body: Any) -> Any:
        answer = client.invoke_model(modelId=model, body=json.dumps(body))
        return answer["ResponseMetadata"]["HTTPHeaders"], json.loads(answer["body"].read())

    headers, titan = invoke("amazon.titan-embed-text-v2:0", {"inputText": "Hello there", "dimensions": 256})
    assert (len(titan["embedding"]), titan["inputTextTokenCount"]) == (256, 3)
    assert headers["x-amzn-bedrock-input-token-count"] == "3"
    _, made = invoke("cohere.embed-english-v3", {"texts": ["a", "b"], "input_type": "search_query"})
    assert [vector[0] for vector in made["embeddings"]] == [1.0, 0.5]
    with pytest.raises(ClientError, match="extraneous key"):
        invoke("amazon.titan-embed-text-v2:0", {"inputText": "x", "size": 3})
