"""Batch input files: what counts as a line, and what is said of a bad one."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.client.batch_input import MAX_LINE, BadLine, BatchFileError, count_lines, fingerprint, read_lines


def line(custom_id: Any = "a", **changes: Any) -> bytes:
    value = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": {"model": "local"}}
    return orjson.dumps(value | changes)


def written(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines))
    return path


def said(path: Path) -> list[str]:
    return [str(each) if isinstance(each, BadLine) else each.custom_id for each in read_lines(path)]


def test_lines_are_read_in_order_with_or_without_a_last_newline(tmp_path: Path) -> None:
    path = written(tmp_path / "in", line("a"), b"", b"  \r", line("b") + b"\r", line("c"))
    assert said(path) == ["a", "b", "c"]
    assert [each.number for each in read_lines(path)] == [1, 4, 5]
    assert count_lines(path) == 3


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    assert said(written(tmp_path / "in", b"\xef\xbb\xbf" + line("a"))) == ["a"]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"{oops", "line 1: line: is not JSON: "),
        (b"[1]", "line 1: line: is not a JSON object but list"),
        (b"\xff\xfe", "line 1: line: is not JSON: "),
        (b'{"body": {"model": "local"}}', "line 1: custom_id: Field required"),
        (line(""), "line 1: custom_id: String should have at least 1 character"),
        (line(7), "line 1: custom_id: Input should be a valid string"),
        (line(method="GET"), "line 1: method: Input should be 'POST'"),
        (line(url="/v1/images"), "line 1: url: '/v1/images' is not served"),
        (line(body=[]), "line 1: body: Input should be a valid dictionary"),
        (line(body={}), "line 1: body.model: must be the name of an alias"),
        (line(body={"model": ""}), "line 1: body.model: must be the name of an alias"),
    ],
)
def test_a_bad_line_names_its_number_and_its_field(tmp_path: Path, raw: bytes, why: str) -> None:
    (text,) = said(written(tmp_path / "in", raw))
    assert text.startswith(why)


def test_the_second_line_with_a_custom_id_is_bad(tmp_path: Path) -> None:
    path = written(tmp_path / "in", line("a"), line("b"), line("a"))
    assert said(path) == ["a", "b", "line 3: custom_id: 'a' stands on an earlier line as well"]


def test_a_line_that_is_too_long_is_skipped_without_being_held(tmp_path: Path) -> None:
    path = written(tmp_path / "in", line("a"), b"x" * (2 * MAX_LINE + 5), line("b"))
    assert said(path) == ["a", f"line 2: line: is longer than {MAX_LINE} bytes", "b"]
    assert count_lines(path) == 3


def test_another_content_is_another_file(tmp_path: Path) -> None:
    one, two = written(tmp_path / "one", line("a")), written(tmp_path / "two", line("b"))
    assert fingerprint(one) != fingerprint(two)
    assert fingerprint(one) == fingerprint(one)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BatchFileError, match="nowhere: No such file"):
        count_lines(tmp_path / "nowhere")
