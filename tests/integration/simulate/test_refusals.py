"""What a provider refuses is refused, in its own form and by the name of the field."""

import json
from typing import Any

import httpx
import pytest

HELLO = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "m", "messages": HELLO}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
MESSAGES = {"model": "m", "max_tokens": 50, "messages": HELLO}
GENERATE = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
CONVERSE = {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}
VERTEX = "/v1/projects/my-project/locations/us-central1/publishers/google/models"
AZURE = "/openai/deployments/mine/chat/completions?api-version=2024-10-21"
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": ("/v1/chat/completions", CHAT),
    "embeddings": ("/v1/embeddings", {"model": "m", "input": "Hello"}),
    "completions": ("/v1/completions", {"model": "m", "prompt": "Hello"}),
    "responses": ("/v1/responses", {"model": "m", "input": "Hello"}),
    "moderations": ("/v1/moderations", {"input": "Hello"}),
    "images": ("/v1/images/generations", {"model": "gpt-image-1", "prompt": "Hello"}),
    "speech": ("/v1/audio/speech", {"model": "tts-1", "voice": "alloy", "input": "Hello"}),
    "anthropic": ("/v1/messages", MESSAGES),
    "gemini": ("/v1beta/models/gemini-x:generateContent", GENERATE),
    "vertex": (f"{VERTEX}/gemini-x:generateContent", GENERATE),
    "predict": (f"{VERTEX}/text-embedding-005:predict", {"instances": [{"content": "Hello"}]}),
    "cohere": ("/v2/chat", CHAT),
    "embed": ("/v2/embed", {"model": "m", "input_type": "search_query", "texts": ["Hello"]}),
    "rerank": ("/v2/rerank", {"model": "m", "query": "a", "documents": ["a", "b"]}),
    "jina": ("/v1/rerank", {"model": "jina-reranker-v2", "query": "a", "documents": ["a", "b"]}),
    "voyage": ("/v1/rerank", {"model": "rerank-2.5", "query": "a", "documents": ["a", "b"]}),
    "bedrock": ("/model/any.model/converse", CONVERSE),
    "titan": ("/model/amazon.titan-embed-text-v2:0/invoke", {"inputText": "Hello"}),
    "azure": (AZURE, CHAT),
    "azure_v1": ("/openai/v1/chat/completions", CHAT),
}


@pytest.mark.parametrize("api", BODIES)
def test_a_good_request_is_answered(plain: httpx.Client, api: str) -> None:
    path, body = BODIES[api]
    assert plain.post(path, json=body).status_code == 200


def image(url: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


def picture(media: str, data: str) -> dict[str, Any]:
    source = {"type": "base64", "media_type": media, "data": data}
    return {"messages": [{"role": "user", "content": [{"type": "image", "source": source}]}]}


def said(*parts: Any, role: str = "user") -> dict[str, Any]:
    return {"contents": [{"role": role, "parts": list(parts)}]}


@pytest.mark.parametrize(
    ("api", "change", "field"),
    [
        ("openai", {"top_logprobs": 3}, "top_logprobs"),
        ("openai", {"stream_options": {"include_usage": True}}, "stream_options"),
        ("openai", {"tool_choice": "required"}, "tool_choice"),
        ("openai", {"parallel_tool_calls": True}, "parallel_tool_calls"),
        ("openai", {"service_tier": "cheap"}, "service_tier"),
        ("openai", {"model": "gpt-5", "max_tokens": 5}, "max_tokens"),
        ("openai", {"model": "o3", "temperature": 0.5}, "temperature"),
        ("openai", {"model": "gpt-4o", "reasoning_effort": "low"}, "reasoning_effort"),
        ("openai", {"reasoning_effort": "some"}, "reasoning_effort"),
        ("openai", {"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ("openai", {"response_format": {"type": "json_object"}}, "messages"),
        ("openai", {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "schema"),
        ("openai", image("data:image/png;base64,!!"), "image_url.url"),
        ("openai", image("data:image/tiff;base64,aaaa"), "image_url.url"),
        ("openai", image("ftp://example.org/a.png"), "image_url.url"),
        ("openai", {"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ("openai", {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ("embeddings", {"input": []}, "input"),
        ("embeddings", {"encoding_format": "hex"}, "encoding_format"),
        ("completions", {"messages": HELLO}, "messages"),
        ("completions", {"n": 3, "best_of": 2}, "best_of"),
        ("responses", {"messages": HELLO}, "messages"),
        ("responses", {"max_output_tokens": 3}, "max_output_tokens"),
        ("responses", {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input"),
        ("moderations", {"input": [{"type": "image_url", "image_url": {}}]}, "image_url.url"),
        ("images", {"response_format": "url"}, "response_format"),
        ("images", {"n": 11}, "n"),
        ("speech", {"speed": 9}, "speed"),
        ("speech", {"input": ""}, "input"),
        ("anthropic", {"messages": [{"role": "system", "content": "x"}]}, "messages.0.role"),
        ("anthropic", {"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]}, "text"),
        ("anthropic", {"tools": [{"name": "f", "input_schema": {}}]}, "tools.0.input_schema.type"),
        ("anthropic", {"tool_choice": {"type": "any"}}, "tool_choice"),
        ("anthropic", {"stop_sequences": [3]}, "stop_sequences.0"),
        ("anthropic", {"system": [{"type": "text", "text": "a", "cache_control": {"type": "x"}}]}, "cache_control"),
        ("anthropic", {"output_config": {"format": {"type": "json_object"}}}, "output_config.format"),
        ("anthropic", {"response_format": {"type": "json_object"}}, "response_format"),
        ("anthropic", picture("image/tiff", "aaaa"), "media_type"),
        ("anthropic", picture("image/png", "!"), "data"),
        ("gemini", {"generationConfig": {"responseSchema": {"type": "OBJECT"}}}, "responseMimeType"),
        ("gemini", {"generationConfig": {"logprobs": 2}}, "logprobs"),
        ("gemini", {"generationConfig": {"thinkingConfig": {"thinkingBudget": 1, "thinkingLevel": "low"}}}, "thinking"),
        ("gemini", {"safetySettings": [{"category": "X"}]}, "threshold"),
        ("gemini", said({"inlineData": {"mimeType": "picture", "data": "aaaa"}}), "mimeType"),
        ("gemini", said({"inlineData": {"mimeType": "image/png", "data": "?"}}), "data"),
        ("gemini", said({"functionResponse": {"name": "f"}}), "response"),
        ("gemini", {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, "ANY"),
        ("vertex", {"generationConfig": {"topP": 2}}, "topP"),
        ("predict", {"instances": [{"text": "x"}]}, "text"),
        ("predict", {"parameters": {"dimensions": 3}}, "dimensions"),
        ("cohere", {"top_p": 0.5}, "top_p"),
        ("cohere", {"tool_choice": "REQUIRED"}, "tool_choice"),
        ("cohere", {"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]}, "tool call id c"),
        ("cohere", {"temperature": 1.5}, "temperature"),
        ("embed", {"input_type": None}, "input_type"),
        ("embed", {"images": ["data:image/png;base64,aaaa"]}, "exactly one of texts"),
        ("embed", {"output_dimension": 100}, "output_dimension"),
        ("rerank", {"documents": []}, "documents"),
        ("rerank", {"return_documents": True}, "return_documents"),
        ("voyage", {"top_n": 1}, "top_n"),
        ("bedrock", {"inferenceConfig": {"max_tokens": 3}}, "inferenceConfig.max_tokens"),
        ("bedrock", {"inferenceConfig": {"temperature": 3}}, "inferenceConfig.temperature"),
        ("bedrock", {"messages": [{"role": "tool", "content": [{"text": "x"}]}]}, "messages.0.role"),
        ("bedrock", {"messages": [{"role": "assistant", "content": [{"text": "x"}]}]}, "user message"),
        ("bedrock", {"messages": [{"role": "user", "content": [{"text": "x", "image": {}}]}]}, "messages.0.content.0"),
        ("bedrock", {"messages": CONVERSE["messages"] * 2}, "alternate"),
        ("titan", {"dimensions": 100}, "dimensions"),
        ("azure", {"messages": [{"role": "user"}]}, "content"),
        ("azure_v1", {"model": None}, "model"),
    ],
)  # fmt: skip
def test_what_the_provider_would_refuse_is_refused_by_name(
    plain: httpx.Client, api: str, change: dict[str, Any], field: str
) -> None:
    path, body = BODIES[api]
    answer = plain.post(path, json={**body, **change})
    assert (answer.status_code, field in answer.text) == (400, True), answer.text


def test_jina_lists_what_is_wrong_as_its_framework_does(plain: httpx.Client) -> None:
    answer = plain.post("/jina/v1/rerank", json={"model": "m", "query": "a", "top_k": 1})
    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["detail"]] == [["body", "top_k"]]


@pytest.mark.parametrize(
    ("api", "status", "told"),
    [("openai", 401, "invalid_api_key"), ("anthropic", 401, "authentication_error"),
     ("gemini", 403, "PERMISSION_DENIED"),
     ("vertex", 401, "UNAUTHENTICATED"), ("cohere", 401, "no api key"), ("jina", 401, "Not authenticated"),
     ("voyage", 401, "Not authenticated"), ("bedrock", 403, "Missing Authentication Token"),
     ("azure", 401, "Access denied"),
     ("azure_v1", 401, "Access denied")],
)  # fmt: skip
def test_a_call_without_a_key_is_refused_as_the_provider_does(
    plain: httpx.Client, api: str, status: int, told: str
) -> None:
    path, body = BODIES[api]
    answer = httpx.post(f"{plain.base_url}{path}", json=body)
    assert (answer.status_code, told in answer.text) == (status, True), answer.text


def test_bedrock_names_its_errors_in_a_header(plain: httpx.Client) -> None:
    path, body = BODIES["bedrock"]
    scope = "AKIAOTHER/20260101/eu-central-1/bedrock/aws4_request"
    wrong = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature="
    answer = plain.post(path, json=body, headers={"authorization": wrong + "0" * 64})
    assert (answer.status_code, answer.headers["x-amzn-errortype"].partition(":")[0]) == (
        403, "UnrecognizedClientException",
    )  # fmt: skip
    assert plain.post(path, json={}).headers["x-amzn-errortype"].startswith("ValidationException")


@pytest.mark.parametrize("query", ["", "?api-version=2024-13-01", "?api-version=latest"])
def test_azure_checks_the_form_of_the_api_version(plain: httpx.Client, query: str) -> None:
    path = AZURE.partition("?")[0]
    assert plain.post(path + query, json=CHAT).status_code == (400 if query else 404)


def test_a_path_or_a_method_that_is_not_served_is_told(plain: httpx.Client) -> None:
    assert plain.post("/v1/chat", json={}).status_code == 404
    assert plain.get("/v1/chat/completions").status_code == 405


@pytest.mark.parametrize("api", [name for name in BODIES if name != "speech"])
@pytest.mark.parametrize("raw", [b"", b"[]", b'{"messages": [1], "contents": 3, "model": {}}', b"<html>", b"\xff" * 50])
def test_garbage_is_a_clear_400(plain: httpx.Client, api: str, raw: bytes) -> None:
    answer = plain.post(BODIES[api][0], content=raw)
    assert answer.status_code in {400, 422}
    assert isinstance(json.loads(answer.content), dict)


def test_a_form_is_read_and_its_fields_are_checked(plain: httpx.Client) -> None:
    def post(fields: dict[str, str], name: str = "a.wav") -> httpx.Response:
        return plain.post("/v1/audio/transcriptions", data=fields, files={"file": (name, b"RIFF" * 300)})

    assert post({"model": "whisper-1", "response_format": "srt"}).text.startswith("1\n00:00:00,000 --> ")
    assert post({"model": "whisper-1"}).json()["text"] == "the quick brown fox"
    assert post({"language": "en"}).json()["error"]["param"] == "model"
    assert post({"model": "w", "volume": "3"}).json()["error"]["param"] == "volume"
    assert post({"model": "w", "temperature": "hot"}).json()["error"]["param"] == "temperature"
    assert post({"model": "w"}, "a.txt").json()["error"]["param"] == "file"
    assert plain.post("/v1/audio/transcriptions", json={"model": "w"}).status_code == 400


def test_tokens_for_entra_and_google_are_given_to_well_formed_requests(plain: httpx.Client) -> None:
    scope = "https://cognitiveservices.azure.com/.default"
    good = {"grant_type": "client_credentials", "client_id": "a", "client_secret": "b", "scope": scope}
    answer = plain.post("/my-tenant/oauth2/v2.0/token", data=good)
    assert (answer.status_code, answer.json()["token_type"]) == (200, "Bearer")
    for name in good:
        missing = plain.post("/oauth2/v2.0/token", data={key: value for key, value in good.items() if key != name})
        assert missing.status_code in {400, 401}
        assert "error_description" in missing.json()
    assert plain.post("/oauth2/v2.0/token", data={**good, "scope": "mail"}).json()["error"] == "invalid_scope"


def test_google_trades_only_a_whole_assertion(plain: httpx.Client) -> None:
    from google.auth import jwt  # noqa: PLC0415 - its import takes seconds

    from tests.integration.simulate.keys import signer  # noqa: PLC0415 - makes a key

    claims = {"iss": "a@b.iam.gserviceaccount.com", "scope": "s", "aud": "https://t", "iat": 100, "exp": 3700}

    def trade(told: dict[str, Any]) -> httpx.Response:
        assertion = jwt.encode(signer(), told).decode()  # type: ignore[no-untyped-call] # google-auth has no types
        kind = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        return plain.post("/token", data={"grant_type": kind, "assertion": assertion})

    assert trade(claims).json()["token_type"] == "Bearer"
    assert trade({**claims, "exp": 9999}).json()["error"] == "invalid_grant"
    assert trade({name: value for name, value in claims.items() if name != "scope"}).json()["error"] == "invalid_grant"
    assert plain.post("/token", data={"grant_type": "password"}).json()["error"] == "unsupported_grant_type"
