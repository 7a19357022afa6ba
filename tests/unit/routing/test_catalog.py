from broker.config import Alias, Deployment, Settings
from broker.routing.catalog import Catalog


def alias(name: str) -> Alias:
    return Alias(name=name, deployments=(Deployment(name=f"{name}/0", alias=name, provider="openai", model="m"),))


SETTINGS = Settings(
    aliases={"openai.gpt": alias("openai.gpt"), "local": alias("local")},
    alias_names={"openai/gpt": "openai.gpt", "local": "openai.gpt", "ghost": "gone"},
)


def test_an_alias_is_found_by_its_own_name() -> None:
    assert Catalog(SETTINGS).resolve("openai.gpt") == SETTINGS.aliases["openai.gpt"]


def test_a_name_that_kafka_forbids_is_mapped() -> None:
    assert Catalog(SETTINGS).resolve("openai/gpt") == SETTINGS.aliases["openai.gpt"]


def test_an_aliass_own_name_wins_over_a_mapped_one() -> None:
    assert Catalog(SETTINGS).resolve("local") == SETTINGS.aliases["local"]


def test_unknown_names_are_none() -> None:
    assert [Catalog(SETTINGS).resolve(name) for name in ("ghost", "gone", "", "LOCAL")] == [None] * 4
