"""Where and how a deployment is called."""

from typing import Any

import pytest

from broker.config import Deployment
from broker.errors import ConfigError
from workers.providers.catalog import OWN_API, resolve
from workers.providers.table import PROVIDERS


def deployment(**fields: Any) -> Deployment:
    return Deployment(**{"name": "chat/0", "alias": "chat", "provider": "openai", "model": "m", **fields})


@pytest.mark.parametrize("name", [name for name, row in PROVIDERS.items() if row.base_url])
def test_every_row_with_an_address_resolves_without_one_in_the_configuration(name: str) -> None:
    resolved = resolve(deployment(provider=name))
    assert resolved.base_url == PROVIDERS[name].base_url
    assert resolved.base_url.startswith("https://") or name in {"ollama", "ollama_chat", "lm_studio", "llamafile"}


@pytest.mark.parametrize("name", ["hosted_vllm", "litellm_proxy", "somebody-new"])
def test_a_server_of_the_users_own_needs_an_address(name: str) -> None:
    with pytest.raises(ConfigError, match=r"deployment chat/0: .*api_base"):
        resolve(deployment(provider=name))
    assert resolve(deployment(provider=name, api_base="http://h:1/v1/")).base_url == "http://h:1/v1"


@pytest.mark.parametrize("name", sorted(OWN_API))
def test_an_api_that_is_not_spoken_is_refused_whatever_the_address(name: str) -> None:
    with pytest.raises(ConfigError, match="deployment chat/0"):
        resolve(deployment(provider=name, api_base="http://h:1/v1"))


@pytest.mark.parametrize(
    "base", ["h:8000/v1", "/v1", "ftp://h/v1", "http://", "http://h:port/v1", "http://h:99999/v1", "http://[::1/v1"]
)
def test_an_address_that_is_no_url_names_the_deployment_and_is_not_quoted(base: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(deployment(api_base=base))
    assert str(caught.value) == "deployment chat/0: `api_base` is not an http or https URL"


@pytest.mark.parametrize(
    ("base", "resolved"),
    [
        ("http://h:1/v1/chat/completions", "http://h:1/v1"),
        (" http://h:1/v1// ", "http://h:1/v1"),
        ("http://h:1", "http://h:1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_an_address_is_taken_as_its_users_write_it(base: str, resolved: str) -> None:
    assert resolve(deployment(api_base=base)).base_url == resolved


def test_the_key_goes_into_the_header_and_the_configurations_own_headers_win() -> None:
    found = resolve(deployment(api_key="sk-1\n", headers={"OpenAI-Organization": "org", "Accept": "x/y"}))
    assert dict(found.headers) == {
        "content-type": "application/json",
        "accept": "x/y",
        "authorization": "Bearer sk-1",
        "openai-organization": "org",
    }
    assert found.secrets == ("sk-1", "org", "x/y")


def test_without_a_key_no_header_is_sent() -> None:
    assert "authorization" not in dict(resolve(deployment(provider="ollama")).headers)
