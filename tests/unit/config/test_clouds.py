"""What deployments of AWS, Azure and Vertex say beside their key: from the file, else from the clouds' variables."""

from typing import Any

import pytest

from broker.config import Deployment, Settings
from broker.config.loader import settings_of
from broker.config.problems import ConfigProblems
from broker.config.views import masked

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "env-secret", "AWS_SESSION_TOKEN": "env-session"}


def read(environ: dict[str, str] | None = None, **params: Any) -> Settings:
    return settings_of({"model_list": [{"model_name": "a", "litellm_params": params}]}, environ or {})


def deployment(environ: dict[str, str] | None = None, **params: Any) -> Deployment:
    return read(environ, **params).aliases["a"].deployments[0]


def test_a_bedrock_deployment_takes_region_and_keys_from_the_file_then_from_the_environment() -> None:
    stated = deployment(
        KEYS, model="bedrock/m", aws_region_name="eu-west-1", aws_access_key_id="AKIA1", aws_secret_access_key="s1"
    ).aws
    assert stated is not None
    assert (stated.region, stated.session_token) == ("eu-west-1", None)
    assert set(deployment(KEYS, model="bedrock/m").secrets) == {"AKIAENV", "env-secret", "env-session"}


def test_an_api_key_of_its_own_keeps_the_environments_credentials_out() -> None:
    found = deployment({**KEYS, "AWS_REGION": "us-east-1"}, model="bedrock/m", api_key="bedrock-key")
    assert found.secrets == ("bedrock-key",)
    assert found.aws is not None
    assert found.aws.region == "us-east-1"


AZURE = {"AZURE_API_KEY": "env-key", "AZURE_CLIENT_SECRET": "env-secret", "AZURE_API_BASE": "https://env.example.com"}


@pytest.mark.parametrize(
    ("base", "secrets"),
    [
        (None, {"env-key", "env-secret"}),
        ("https://x.openai.azure.com", {"env-key", "env-secret"}),
        ("https://x.cognitiveservices.azure.com/openai/v1", {"env-key", "env-secret"}),
        ("https://x.services.ai.azure.com/", {"env-key", "env-secret"}),
        ("http://x.openai.azure.com", set()),
        ("https://x.openai.azure.com.example.com", set()),
        ("https://gateway.example.com/x.openai.azure.com", set()),
        ("https://x.openai.azure.com@example.com", set()),
    ],
)
def test_the_environments_azure_credentials_go_to_azures_own_hosts_alone(base: str | None, secrets: set[str]) -> None:
    assert set(deployment(AZURE, model="azure/d", api_base=base).secrets) == secrets


def test_the_environments_secret_is_not_traded_at_an_address_of_the_file() -> None:
    base = "https://x.openai.azure.com"
    own = deployment(AZURE, model="azure/d", api_base=base, azure_authority_host="login.microsoftonline.us")
    other = deployment(AZURE, model="azure/d", api_base=base, azure_authority_host="https://login.example.com")
    assert (set(own.secrets), set(other.secrets)) == ({"env-key", "env-secret"}, {"env-key"})


def test_a_key_of_the_environment_does_not_overrule_what_the_file_proves_itself_with() -> None:
    azure = deployment(AZURE, model="azure/d", api_base="https://x.openai.azure.com", azure_ad_token="token")
    bedrock = deployment(
        {"AWS_BEARER_TOKEN_BEDROCK": "env-key"}, model="bedrock/m", aws_access_key_id="AKIA1", aws_secret_access_key="s"
    )
    assert (azure.secrets, bedrock.secrets) == (("token",), ("AKIA1", "s"))


@pytest.mark.parametrize(
    ("base", "secrets"),
    [(None, ("/keys/a.json",)), ("https://x.p.googleapis.com", ("/keys/a.json",)), ("https://example.com", ())],
)
def test_a_google_token_of_the_environment_goes_to_google_alone(base: str | None, secrets: tuple[str, ...]) -> None:
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": "/keys/a.json"}
    assert deployment(environ, model="vertex_ai/gemini-3-pro", api_base=base).secrets == secrets


def test_an_azure_deployment_has_a_version_and_an_application() -> None:
    found = deployment(
        model="azure/d", api_base="https://x.openai.azure.com", api_version="2024-10-21", tenant_id="t",
        client_id="c", client_secret="very secret",
    )  # fmt: skip
    assert found.azure is not None
    assert (found.azure.api_version, found.azure.tenant_id) == ("2024-10-21", "t")
    assert found.secrets == ("very secret",)


def test_vertex_credentials_may_be_an_object_in_the_file() -> None:
    found = deployment(model="vertex_ai/g", vertex_project="p", vertex_credentials={"type": "service_account"})
    assert found.vertex is not None
    assert found.vertex.credentials is not None
    assert found.vertex.credentials.get_secret_value() == '{"type":"service_account"}'


def test_parameters_of_another_cloud_are_listed_as_not_acted_on() -> None:
    settings = read(model="openai/m", aws_region_name="eu-west-1")
    assert settings.unacted == ("model_list[].litellm_params.aws_region_name",)
    assert settings.aliases["a"].deployments[0].aws is None


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"model": "azure/d", "api_version": "newest"}, "api_version"),
        ({"model": "bedrock/m", "aws_region_name": "Eu West"}, "aws_region_name"),
        ({"model": "vertex_ai/m", "vertex_location": "EU!"}, "vertex_location"),
    ],
)
def test_what_cannot_be_is_named_by_its_parameter(params: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigProblems, match=rf"model_list\[0\]\.litellm_params\.{field}"):
        read(**params)


def test_no_secret_of_a_cloud_is_shown() -> None:
    shown = str(masked(read(KEYS, model="bedrock/m")))
    assert "env-secret" not in shown
    assert "AKIAENV" not in shown
    assert "***" in shown
