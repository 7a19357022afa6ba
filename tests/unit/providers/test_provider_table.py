"""The table of providers: every row can be called, and says where its facts are from."""

import re

import orjson
import pytest
from pydantic import SecretStr

from broker.config import Deployment, ProviderRow
from broker.config.known import PROVIDER_VARIABLES
from broker.errors import InvalidRequest
from broker.limits.learned import learn
from schemas.request import CHAT, RERANK
from workers.providers import openai, table
from workers.providers.catalog import AUTH, HARMLESS, OWN_API, resolve
from workers.providers.registry import DIALECTS

KEY = SecretStr("k")
SPOKEN = {name: row for name, row in table.PROVIDERS.items() if row.dialect == "openai"}


def test_there_are_sixty_that_speak_openai_and_each_has_its_own_name() -> None:
    assert len(SPOKEN) >= 60
    assert not table.PROVIDERS.keys() & OWN_API


@pytest.mark.parametrize("name", table.PROVIDERS)
def test_a_row_resolves_and_its_call_goes_to_its_address(name: str) -> None:
    row = table.PROVIDERS[name]
    base = None if row.base_url else "http://127.0.0.1:9/v1"
    target = resolve(Deployment(name="a/0", alias="a", provider=name, model="m", api_base=base, api_key=KEY))
    body = {"messages": [{"role": "user", "content": "x"}], "query": "x", "documents": ["x"]}
    endpoint = RERANK if row.dialect in {"jina", "voyage"} else CHAT
    out = DIALECTS[row.dialect].outbound(target, endpoint, body, streams=False)
    assert out.url.startswith(row.base_url or "http://127.0.0.1:9/v1")
    assert row.auth in AUTH
    assert row.base_url is None or re.fullmatch(r"https?://[a-z0-9.:-]+(/[a-z0-9._/-]*[a-z0-9])?", row.base_url)


def test_a_parameter_goes_by_the_name_its_provider_knows() -> None:
    target = resolve(Deployment(name="a/0", alias="a", provider="mistral", model="m"))
    body = {"messages": [], "max_completion_tokens": 5, "seed": 3}
    sent = orjson.loads(DIALECTS["openai"].outbound(target, CHAT, body, streams=False).body)
    assert sent == {"messages": [], "model": "m", "max_tokens": 5, "random_seed": 3}
    both = {"messages": [], "max_completion_tokens": 5, "max_tokens": 9}
    assert orjson.loads(DIALECTS["openai"].outbound(target, CHAT, both, streams=False).body)["max_tokens"] == 9


def test_every_provider_with_variables_has_a_row_or_an_api_of_its_own() -> None:
    assert PROVIDER_VARIABLES.keys() - table.PROVIDERS.keys() - OWN_API == set()


def test_every_row_names_the_page_its_facts_are_from() -> None:
    pages = {name: row.source for name, row in table.PROVIDERS.items()}
    assert [name for name, page in pages.items() if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+(/\S*)?", page)] == []


def body(
    provider: str, model: str = "m", asked: dict[str, object] | None = None, **fields: object
) -> dict[str, object]:
    values = {"name": "a/0", "alias": "a", "provider": provider, "model": model, **fields}
    target = resolve(Deployment.model_validate(values))
    out = DIALECTS["openai"].outbound(target, CHAT, {"messages": [], **(asked or {})}, streams=False)
    found: dict[str, object] = orjson.loads(out.body)
    del found["messages"], found["model"]
    return found


LACKED = [
    (name, param) for name, row in table.PROVIDERS.items() if row.dialect == "openai" for param in sorted(row.lacks)
]


@pytest.mark.parametrize(("provider", "param"), LACKED)
def test_what_a_provider_refuses_is_a_400_by_name_or_dropped_or_sent_all_the_same(provider: str, param: str) -> None:
    asked: dict[str, object] = {param: "asked for"}
    if param in HARMLESS:
        assert body(provider, asked=asked) == {}
    else:
        with pytest.raises(InvalidRequest, match=param) as caught:
            body(provider, asked=asked)
        assert caught.value.param == param
    assert body(provider, asked=asked, drop_params=True) == {}
    assert body(provider, asked=asked, additional_drop_params=(param,)) == {}
    assert body(provider, asked=asked, allowed_openai_params=(param,)) == asked


def test_a_value_that_asks_for_nothing_is_left_out_without_a_word() -> None:
    assert body("groq", asked={"n": 1, "logprobs": False, "logit_bias": None}) == {}
    with pytest.raises(InvalidRequest, match="n: groq has no such parameter"):
        body("groq", asked={"n": 2})


def test_models_of_one_provider_differ() -> None:
    bound: dict[str, object] = {"max_tokens": 5, "temperature": 1}
    assert body("openai", "gpt-4o", bound) == bound
    assert body("openai", "o3-mini", bound) == {"max_completion_tokens": 5}
    assert body("openai", "gpt-5-mini", bound) == {"max_completion_tokens": 5, "temperature": 1}
    assert body("openai", "gpt-5-chat-latest", bound) == bound
    assert body("openai", "deployed", bound, base_model="o4-mini") == {"max_completion_tokens": 5}
    with pytest.raises(InvalidRequest, match="temperature"):
        body("openai", "o3", {"temperature": 0.2})
    with pytest.raises(InvalidRequest, match="stop"):
        body("xai", "grok-4-0709", {"stop": ["x"]})
    assert body("xai", "grok-3", {"stop": ["x"]}) == {"stop": ["x"]}


def test_limits_under_a_name_of_their_own_are_learned() -> None:
    target = resolve(Deployment(name="a/0", alias="a", provider="cerebras", model="m"))
    headers = {"x-ratelimit-limit-tokens-minute": "60000", "x-ratelimit-remaining-tokens-minute": "7", "x-other": "1",
               "x-ratelimit-reset-tokens-minute": "30.5"}  # fmt: skip
    learned = learn(openai.told_limits(target, headers), 0)
    assert learned is not None
    assert (learned.limits, learned.left, learned.reset) == ({"tpm": 60000}, {"tpm": 7}, {"tpm": 30.5})


ROW = ProviderRow(
    base_url="https://api.acme.test/v1",
    auth="api-key",
    headers={"X-Team": SecretStr("t1")},
    renames={"max_completion_tokens": "max_new_tokens"},
    lacks=("seed",),
    limit_headers={"X-Left": "x-ratelimit-remaining-requests"},
)


def test_a_row_of_the_configuration_is_a_provider_like_any_other() -> None:
    target = resolve(Deployment(name="a/0", alias="a", provider="acme", model="m", api_key=SecretStr("k"), row=ROW))
    assert target.base_url == "https://api.acme.test/v1"
    assert {"api-key": "k", "x-team": "t1"}.items() <= dict(target.headers).items()
    assert openai.told_limits(target, {"x-left": "3"})["x-ratelimit-remaining-requests"] == "3"
    assert body("acme", asked={"max_completion_tokens": 4}, row=ROW) == {"max_new_tokens": 4}
    with pytest.raises(InvalidRequest, match="seed"):
        body("acme", asked={"seed": 4}, row=ROW)


def test_a_row_of_the_configuration_goes_before_the_tables_own() -> None:
    target = resolve(Deployment(name="a/0", alias="a", provider="groq", model="m", row=ROW))
    assert target.base_url == "https://api.acme.test/v1"
