"""What a deployment of Azure or Vertex has to say, and the field that is named where it does not."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.config import Deployment
from broker.errors import BadUpstreamResponse, ConfigError, InvalidRequest
from schemas.request import CHAT, EMBEDDINGS, MODERATIONS, RERANK, RESPONSES, SPEECH
from workers.providers.catalog import ResolvedDeployment, resolve
from workers.providers.dialects import azure, gemini, vertex
from workers.providers.openai import request

BASE = "https://res.openai.azure.com"
HI = {"messages": [{"role": "user", "content": "x"}]}
PROOFS = "needs `api_key`, `azure_ad_token`, or `tenant_id`, `client_id` and `client_secret`"
REFERENCE = "is a reference to another token, which is not followed; give `tenant_id`, `client_id` and `client_secret`"
ACCOUNT = {"type": "service_account", "client_email": "a@b", "private_key": "k"}


def target(provider: str, model: str = "m", **fields: Any) -> ResolvedDeployment:
    return resolve(Deployment(**{"name": "a/0", "alias": "a", "provider": provider, "model": model, **fields}))


@pytest.mark.parametrize(
    ("provider", "fields", "said"),
    [
        ("azure", {"api_key": "k"}, "provider azure needs `api_base`"),
        ("azure", {"api_key": "k", "api_base": "res"}, "`api_base` is not an http or https URL"),
        ("azure", {"api_key": "k", "api_base": f"{BASE}?api-version=new"},
         "the api-version in `api_base` is not a date"),
        ("azure", {"api_base": BASE}, f"provider azure {PROOFS}"),
        ("azure", {"api_base": BASE, "azure": {"tenant_id": "t", "client_secret": "s"}},
         "an application of Entra needs `client_id` too"),
        ("azure", {"api_base": BASE, "azure": {"client_id": "c"}},
         "an application of Entra needs `tenant_id` and `client_secret` too"),
        ("azure", {"api_base": BASE, "azure": {"ad_token": "oidc/x"}},
         f"`azure_ad_token` {REFERENCE}"),
        ("azure", {"api_base": BASE, "azure": {"tenant_id": "t", "client_id": "c", "client_secret": "s",
                                               "authority": "http://login.example.com"}},
         "`azure_authority_host` is not an https URL, and secrets go there"),
        ("azure_ai", {"api_base": "https://res.services.ai.azure.com"},
         f"provider azure_ai {PROOFS}"),
        ("vertex_ai", {}, "provider vertex_ai needs `vertex_credentials`, or `api_key`"),
        ("vertex_ai", {"vertex": {"credentials": json.dumps(ACCOUNT), "location": "eu"}},
         "provider vertex_ai needs `vertex_project`"),
        ("vertex_ai", {"vertex": {"credentials": json.dumps(ACCOUNT), "project": "p"}},
         "provider vertex_ai needs `vertex_location`"),
        ("vertex_ai", {"vertex": {"credentials": "{"}}, "`vertex_credentials`: this is not JSON"),
        ("vertex_ai", {"vertex": {"credentials": '{"type": "external_account"}'}},
         "`vertex_credentials`: its type must be service_account or authorized_user"),
        ("vertex_ai", {"vertex": {"credentials": '{"type": "authorized_user", "client_id": "c"}'}},
         "`vertex_credentials`: client_secret is missing"),
        ("vertex_ai", {"vertex": {"credentials": "not-there.json", "location": "eu"}},
         "the file that `vertex_credentials` names cannot be read"),
    ],
)  # fmt: skip
def test_what_is_missing_names_the_deployment_and_the_field(provider: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        target(provider, **fields)
    assert str(caught.value) == f"deployment a/0: {said}"


def test_a_model_of_another_publisher_is_refused() -> None:
    with pytest.raises(ConfigError, match="meta/llama names another publisher"):
        target("vertex_ai", "meta/llama", api_key="k")


def test_a_credential_file_tells_the_project_where_nothing_else_does(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({**ACCOUNT, "project_id": "of-the-file"}))
    said = {"credentials": str(file), "location": "us"}
    found = target("vertex_ai", "gemini-3-pro", vertex=said).base_url
    assert found == "https://aiplatform.us.rep.googleapis.com/v1/projects/of-the-file/locations/us/publishers/google"
    named = target("vertex_ai", "gemini-3-pro", vertex={**said, "project": "named", "credentials": "not-there.json"})
    assert "/projects/named/" in named.base_url


@pytest.mark.parametrize(
    ("fields", "header"),
    [
        ({"api_base": BASE}, ("api-key", "k")),
        ({"api_base": "https://res.services.ai.azure.com"}, ("api-key", "k")),
        ({"api_base": "https://x.eastus2.models.ai.azure.com"}, ("authorization", "Bearer k")),
    ],
)
def test_the_header_of_a_foundry_key_is_that_of_its_address(fields: dict[str, Any], header: tuple[str, str]) -> None:
    headers = dict(target("azure_ai", api_key="k", **fields).headers)
    assert {name: headers.get(name) for name in ("api-key", "authorization")} == {
        "api-key": None, "authorization": None, header[0]: header[1]
    }  # fmt: skip


def test_model_inference_is_told_to_pass_on_what_it_does_not_know() -> None:
    found = target("azure_ai", api_key="k", api_base="https://res.services.ai.azure.com")
    assert dict(found.headers)["extra-parameters"] == "pass-through"
    assert "extra-parameters" not in dict(target("azure", api_key="k", api_base=BASE).headers)


@pytest.mark.parametrize(
    ("endpoint", "fields", "served"),
    [
        (RESPONSES, {}, False),
        (RESPONSES, {"azure": {"api_version": "v1"}}, True),
        (MODERATIONS, {"azure": {"api_version": "v1"}}, False),
        (RERANK, {}, False),
        (SPEECH, {}, True),
        (SPEECH, {"provider": "azure_ai", "api_base": "https://res.services.ai.azure.com"}, False),
    ],
)
def test_each_api_of_azure_serves_what_it_serves(endpoint: str, fields: dict[str, Any], *, served: bool) -> None:
    found = target(**{"provider": "azure", "api_base": BASE, "api_key": "k", **fields})
    if served:
        assert azure.outbound(found, endpoint, {"input": "x"}, streams=False).url.startswith(BASE)
        return
    with pytest.raises(InvalidRequest) as caught:
        azure.outbound(found, endpoint, {"input": "x"}, streams=False)
    assert caught.value.param == "endpoint"


@pytest.mark.parametrize("base_model", ["o3-mini", "azure/o1", "azure_ai/o4-mini"])
def test_a_reasoning_model_by_its_base_model_samples_as_it_does(base_model: str) -> None:
    fields = {"api_base": BASE, "api_key": "k", "base_model": base_model}
    with pytest.raises(InvalidRequest) as caught:
        request(target("azure", **fields), {**HI, "temperature": 0.5}, streams=False)
    assert caught.value.param == "temperature"
    sent = orjson.loads(
        request(target("azure", drop_params=True, **fields), {**HI, "temperature": 0.5, "max_tokens": 9}, streams=False)
    )
    assert sent == {"model": "m", **HI, "max_completion_tokens": 9}


def test_what_vertex_does_not_serve_is_refused() -> None:
    for model in ("gemini-3-pro", "claude-opus-4-6"):
        with pytest.raises(InvalidRequest) as caught:
            vertex.outbound(target("vertex_ai", model, api_key="k"), SPEECH, {"input": "x"}, streams=False)
        assert caught.value.param == "endpoint"
    with pytest.raises(InvalidRequest) as caught:
        vertex.outbound(target("vertex_ai", "claude-opus-4-6", api_key="k"), EMBEDDINGS, {"input": "x"}, streams=False)
    assert caught.value.param == "endpoint"
    with pytest.raises(InvalidRequest) as caught:
        vertex.outbound(
            target("vertex_ai", "text-embedding-005", api_key="k"), EMBEDDINGS, {"input": [1]}, streams=False
        )
    assert caught.value.param == "input"


TEXT = {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hi!"}]}, "finishReason": "STOP"}]}


@pytest.mark.parametrize(
    ("usage", "headers", "tier"),
    [
        ({}, {"x-gemini-service-tier": "standard"}, "default"),
        ({}, {"x-gemini-service-tier": "priority"}, "priority"),
        ({"serviceTier": "flex"}, {"x-gemini-service-tier": "flex"}, "flex"),
        ({"serviceTier": "SERVICE_TIER_UNSPECIFIED"}, {}, None),
        ({"trafficType": "ON_DEMAND_OFFPEAK"}, {}, "on_demand_offpeak"),
        ({}, {}, None),
    ],
)
def test_the_tier_that_served_is_read_where_google_tells_it(
    usage: dict[str, Any], headers: dict[str, str], tier: str | None
) -> None:
    told = {"promptTokenCount": 1, "totalTokenCount": 1, **usage}
    raw = orjson.dumps({**TEXT, "usageMetadata": told})
    found = gemini.answer(target("gemini", "gemini-3-pro"), CHAT, HI, raw, headers)
    assert (found.service_tier, found.usage.raw) == (tier, told)


def test_predictions_that_count_nothing_sensible_are_no_answer() -> None:
    found = target("vertex_ai", "text-embedding-005", api_key="k")
    for count in ("x", -1, 1.5, True, None):
        each = {"embeddings": {"values": [0.5], "statistics": {"token_count": count}}}
        with pytest.raises(BadUpstreamResponse):
            vertex.answer(found, EMBEDDINGS, {"input": "x"}, orjson.dumps({"predictions": [each]}), {})
