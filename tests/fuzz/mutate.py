"""Breaks bytes as upstreams do: bits flipped, ends cut off, pieces doubled, values of another type, huge numbers."""

import json
import random
from typing import Any, Final

JUNK: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1 << 70, 1e308, "", "\ud800", "x" * 500, [], {}, [[]], {"": {}}, [None], {"type": None},
)  # fmt: skip
PIECES: Final = (
    b"null",
    b"{",
    b"}",
    b"[",
    b"\\u0000",
    b'"',
    b"\xff",
    b"\r\n\r\n",
    b"data: [DONE]\n\n",
    b"NaN",
    b"1e999",
)
MOST_CHANGES: Final = 6
DEEP: Final = 3000


def mutated(raw: bytes, draw: random.Random) -> bytes:
    """Return a broken copy: of the bytes, or of the JSON in it where there is some."""
    how = draw.random()
    if how < 0.4:
        return _of_json(raw, draw)
    found = bytearray(raw)
    for _ in range(draw.randint(1, MOST_CHANGES)):
        _change(found, draw)
    return bytes(found)


def _change(found: bytearray, draw: random.Random) -> None:
    place = draw.randrange(len(found) + 1)
    match draw.randrange(7):
        case 0 if place < len(found):
            found[place] ^= 1 << draw.randrange(8)
        case 1:
            del found[place : place + draw.randint(1, 60)]
        case 2:
            found[place:place] = found[place : place + draw.randint(1, 80)]
        case 3:
            found[place:place] = draw.choice(PIECES)
        case 4:
            del found[place:]
        case 5:
            found[place : place + 4] = draw.choice(PIECES)
        case _:
            found[place:place] = draw.randbytes(draw.randint(1, 8))


def _of_json(raw: bytes, draw: random.Random) -> bytes:
    """Return the same with values of its JSON replaced; of a stream, those of some events."""
    if raw[:1] in b"{[":
        try:
            return _written(_changed(json.loads(raw), draw), draw)
        except ValueError:
            return raw[: draw.randrange(len(raw) + 1)]
    lines = raw.split(b"\n")
    for index, line in enumerate(lines):
        if line.startswith(b"data: {") and draw.random() < 0.3:
            lines[index] = b"data: " + _written(_changed(json.loads(line[6:]), draw), draw)
    if draw.random() < 0.2:
        draw.shuffle(lines)
    return b"\n".join(lines)


def _changed(value: Any, draw: random.Random) -> Any:
    """Return a copy with one value somewhere in it replaced, left out or doubled."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name = draw.choice(list(value))
        if draw.random() < 0.15:
            return {key: item for key, item in value.items() if key != name}
        return {**value, name: _changed(value[name], draw)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        place = draw.randrange(len(value))
        if draw.random() < 0.15:
            return [*value, value[place]]
        return [*value[:place], _changed(value[place], draw), *value[place + 1 :]]
    return draw.choice(JUNK)


def _written(value: Any, draw: random.Random) -> bytes:
    raw = json.dumps(value).encode()
    if draw.random() < 0.01:
        return b"[" * DEEP + raw + b"]" * DEEP
    return raw
