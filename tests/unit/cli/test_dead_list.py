"""What `broker dead list` prints, over letters a log would give."""

from typing import Any

import pytest
from click.testing import CliRunner

from broker.adapters.memory_store import MemoryRecord
from broker.cli import dead
from broker.config import Settings
from broker.envelope.dead import DeadLetter

ID = "0123456789abcdef0123456789abcdef"
REASON = "messages[0]: [bold]a list\nis needed, and what stands here is a very long text about it"


def printed(monkeypatch: pytest.MonkeyPatch, columns: int, *letters: tuple[DeadLetter, str | None]) -> list[str]:
    async def newest(*_: Any) -> tuple[int, list[tuple[DeadLetter, str | None]]]:
        return len(letters), list(letters)

    monkeypatch.setattr(dead, "_newest", newest)
    monkeypatch.setattr(dead, "load_settings", lambda _: Settings())
    result = CliRunner().invoke(dead.command, ["list"], env={"COLUMNS": str(columns)})
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def letter(request_id: str = ID) -> DeadLetter:
    record = MemoryRecord("llm.dead", 0, 7, 0, None, None, [])
    topic = "llm.requests.a-rather-long-alias"
    return DeadLetter(record, request_id, REASON, "context_length_exceeded", topic, f"{topic}-0-7", 1_700_000_000_000)


def test_a_letter_is_one_line_with_its_whole_id_in_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, 80, (letter(), "a-rather-long-alias"), (letter("short"), None))
    found = [line for line in lines if "11-14 22:13:20" in line]
    assert len(found) == 2
    assert found[0].split()[2] == ID
    assert found[0].count("…") == 3
    assert max(len(line) for line in lines) <= 80
    assert len([line for line in lines if line.strip()]) == 5  # heading, rule, two letters, the count


def test_a_wide_terminal_has_the_reason_as_it_was_written_and_the_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, 240, (letter(), "chat"))
    found = next(line for line in lines if ID in line)
    assert " ".join(REASON.split()) in found
    assert "llm.requests.a-rather-long-alias-0-7" in found
    assert "…" not in found


def test_an_id_as_long_as_a_reason_leaves_room_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, 80, (letter("x" * 300), "chat"))
    found = next(line for line in lines if "xxx" in line)
    assert f"{'x' * (dead.MOST_ID - 1)}…" in found
    assert "cont" in found
