"""The file itself: what is read, what is joined, and what an error says of it."""

from pathlib import Path

import pytest

from broker.config import Settings, load
from broker.errors import ConfigError

ENTRY = "- {model_name: %s, litellm_params: {model: m}}\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_without_file_and_variable_the_defaults_hold() -> None:
    settings = load(None, {})
    assert settings.model_copy(update={"config_hash": ""}) == Settings()


def test_the_variable_names_the_file_when_no_path_is_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "server: {port_base: 5000}")
    assert load(None, {"BROKER_CONFIG": str(path)}).server.port_base == 5000


def test_a_given_path_goes_before_the_variable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "server: {port_base: 5000}")
    assert load(path, {"BROKER_CONFIG": "absent.yaml"}).server.port_base == 5000


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path / "a.yaml", "# nothing\n"), {}).aliases == {}


def test_included_files_join_lists_and_replace_other_keys(tmp_path: Path) -> None:
    write(tmp_path / "models.yaml", f"model_list:\n{ENTRY % 'b'}server: {{port_base: 6000}}\n")
    path = write(
        tmp_path / "a.yaml", f"include: [models.yaml]\nmodel_list:\n{ENTRY % 'a'}server: {{port_base: 5000}}\n"
    )
    settings = load(path, {})
    assert (list(settings.aliases), settings.server.port_base) == (["a", "b"], 6000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b\n", "a mapping of sections is needed, not a list"),
        ("server: {port_base: 1}\nserver: {}\n", "line 2, column 1: the key server stands twice"),
        ("a: [1\n", "line 2, column 1: expected"),
        ("include: models.yaml\n", "include: a list of file names is needed, not text"),
        ("include: [absent.yaml]\n", "absent.yaml: there is no such file"),
        ("a: !!python/object:os.system x\n", "could not determine a constructor"),
        ("[" * 5000, "it is not YAML"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path / "a.yaml", text), {})
    assert expected in str(caught.value)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: there is no such file"):
        load(tmp_path / "absent.yaml", {})


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the file cannot be read"):
        load(tmp_path, {})


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load(path, {})


def test_what_the_parser_quotes_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path / "a.yaml", "general_settings: {master_key: *sk-secret-anchor}\n"), {})
    assert "sk-secret-anchor" not in str(caught.value)


def test_anchors_and_merge_keys_of_yaml_work(tmp_path: Path) -> None:
    text = """
    model_list:
      - model_name: a
        params: &shared {model: openai/a, rpm: 3, api_base: "http://127.0.0.1:1"}
      - model_name: b
        params: {<<: *shared, model: openai/b}
    """
    settings = load(write(tmp_path / "a.yaml", text), {})
    assert [(name, alias.deployments[0].rpm) for name, alias in settings.aliases.items()] == [("a", 3), ("b", 3)]
