"""Log lines: their shape, and that no credential stands in one."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from broker.logs import mask, setup


@pytest.fixture(autouse=True)
def _restore_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("authorization: Bearer sk-live-abcdef done", "authorization: Bearer *** done"),
        ("key sk-proj-Ab12_cd-34 refused", "key *** refused"),
        ("redis://:hunter2@localhost:6379/0", "redis://:***@localhost:6379/0"),
        ("clickhouse://user:p4ss@ch:8123/db", "clickhouse://user:***@ch:8123/db"),
        ('{"x-api-key": "abc123", "a": 1}', '{"x-api-key": "***", "a": 1}'),
        ("http://localhost:8080/v1 is down", "http://localhost:8080/v1 is down"),
        ("task-2 of llm.requests.local-0-41", "task-2 of llm.requests.local-0-41"),
    ],
)
def test_credentials_are_masked_and_nothing_else_is(text: str, expected: str) -> None:
    assert mask(text) == expected


def test_a_json_line_carries_the_extra_fields_and_the_error() -> None:
    stream = io.StringIO()
    setup("info", json=True, stream=stream)
    error = ValueError("Bearer secret-token")
    logging.getLogger("broker.x").error("it broke", extra={"alias": "local"}, exc_info=error)
    line = json.loads(stream.getvalue())
    assert (line["level"], line["logger"], line["message"], line["alias"]) == ("error", "broker.x", "it broke", "local")
    assert "ValueError: Bearer ***" in line["error"]
    assert "secret-token" not in stream.getvalue()


def test_a_text_line_is_masked_with_its_arguments() -> None:
    stream = io.StringIO()
    setup("info", stream=stream)
    logging.getLogger("broker.x").warning("refused %s", "sk-abcdefgh")
    assert stream.getvalue().endswith("WARNING broker.x: refused ***\n")


def test_lines_below_the_level_are_left_out_and_libraries_are_quiet() -> None:
    stream = io.StringIO()
    setup("info", stream=stream)
    logging.getLogger("broker.x").debug("a request")
    logging.getLogger("httpx").info("HTTP Request: POST")
    assert not stream.getvalue()


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no such log level: loud"):
        setup("loud")
