"""The table of providers: every row can be called, and says where its facts are from."""

import re
from pathlib import Path

import orjson
import pytest

from broker.config import Deployment
from broker.config.known import PROVIDER_VARIABLES
from schemas.request import CHAT
from workers.providers import table
from workers.providers.catalog import AUTH, OWN_API, resolve
from workers.providers.registry import DIALECTS

SPOKEN = {name: row for name, row in table.PROVIDERS.items() if row.dialect == "openai"}
LINES = Path(table.__file__).read_text().splitlines()


def test_there_are_sixty_that_speak_openai_and_each_has_its_own_name() -> None:
    assert len(SPOKEN) >= 60
    assert not table.PROVIDERS.keys() & OWN_API


@pytest.mark.parametrize("name", table.PROVIDERS)
def test_a_row_resolves_and_its_call_goes_to_its_address(name: str) -> None:
    row = table.PROVIDERS[name]
    base = None if row.base_url else "http://127.0.0.1:9/v1"
    target = resolve(Deployment(name="a/0", alias="a", provider=name, model="m", api_key="k", api_base=base))
    body = {"messages": [{"role": "user", "content": "x"}]}
    out = DIALECTS[row.dialect].outbound(target, CHAT, body, streams=False)
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
    ours = {"voyage", "jina_ai"}  # they serve embeddings and rerank only
    assert PROVIDER_VARIABLES.keys() - table.PROVIDERS.keys() - OWN_API <= ours


def test_a_group_of_rows_stands_under_a_comment_that_names_a_source() -> None:
    rows = [number for number, line in enumerate(LINES) if re.match(r'    "[\w-]+": Provider\(', line)]
    for number in rows:
        above = next(line for line in reversed(LINES[:number]) if "#" in line or line.endswith("= {"))
        assert "#" in LINES[number] or "#" in above or "# " in LINES[number - 1]
