"""Reads as much of a ClickHouse statement as its HTTP interface must: where an INSERT's data begins, which format.

Imports nothing.
"""

import re
from dataclasses import dataclass
from typing import Final

TOKEN: Final = re.compile(
    rb"`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|--[^\n]*|/\*.*?\*/|[A-Za-z_]\w*|\S", re.DOTALL
)
"""A quoted text, a comment, a word, or any other sign."""

DATA_START: Final = re.compile(rb"[ \t]*(?:\r?\n)?")
"""What may stand between an INSERT's format and its data."""

END_SIGNS: Final = frozenset({b"", b";", b"SETTINGS", b"INTO"})
"""What may follow the format of a query."""


@dataclass(frozen=True, slots=True)
class Insert:
    """An INSERT whose data is encoded in `format`: the statement without its format, and the data after it."""

    statement: bytes
    format: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Token:
    """A sign at depth 0 of the parentheses; `word` is in upper case."""

    word: bytes
    text: bytes
    start: int
    end: int


def _tokens(sql: bytes) -> "list[Token]":
    """Signs outside parentheses and comments, up to where an INSERT's data begins."""
    found: list[Token] = []
    depth = 0
    for match in TOKEN.finditer(sql):
        text = match.group()
        if text.startswith((b"--", b"/*")):
            continue
        if text in (b"(", b"["):
            depth += 1
        elif text in (b")", b"]"):
            depth -= 1
        elif depth == 0:
            found.append(Token(text.upper(), text, match.start(), match.end()))
            if _insert_format(found) or _is_inline(found):
                break
    return found


def _insert_format(tokens: "list[Token]") -> bool:
    return len(tokens) > 2 and tokens[0].word == b"INSERT" and tokens[-2].word == b"FORMAT"  # noqa: PLR2004 - words


def _is_inline(tokens: "list[Token]") -> bool:
    """Whether an INSERT brings its rows as VALUES or as a query."""
    return tokens[0].word == b"INSERT" and tokens[-1].word in (b"VALUES", b"SELECT", b"WITH")


def read_insert(sql: bytes) -> Insert | None:
    """Return an INSERT … FORMAT X with what stands after it; None for every other statement, VALUES included."""
    tokens = _tokens(sql)
    if not tokens or not _insert_format(tokens):
        return None
    gap = DATA_START.match(sql, tokens[-1].end)
    data = sql[gap.end() :] if gap else b""
    return Insert(sql[: tokens[-2].start], tokens[-1].text.decode(), data)


def is_select(sql: bytes) -> bool:
    """Whether the statement only reads rows, so that running it again changes nothing."""
    tokens = _tokens(sql)
    return bool(tokens) and tokens[0].word in (b"SELECT", b"WITH")


def output_format(sql: bytes, default: str) -> str:
    """Return the format a query names at its end, else `default`."""
    tokens = _tokens(sql)
    for index in range(len(tokens) - 2, 0, -1):
        after = tokens[index + 2].word if index + 2 < len(tokens) else b""
        if tokens[index].word == b"FORMAT" and after in END_SIGNS:
            return tokens[index + 1].text.decode(errors="replace")
    return default


def without_format(sql: bytes) -> bytes:
    """Return a query without the format at its end."""
    tokens = _tokens(sql)
    for index in range(len(tokens) - 2, 0, -1):
        after = tokens[index + 2].word if index + 2 < len(tokens) else b""
        if tokens[index].word == b"FORMAT" and after in END_SIGNS:
            return sql[: tokens[index].start] + sql[tokens[index + 1].end :]
    return sql
