"""What the simulator answers: a text of so many tokens, and values that fit a JSON schema. Pure."""

import hashlib
import hmac
import io
import wave
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

WORDS: Final = "the quick brown fox jumps over the lazy dog while a calm river runs past"
THOUGHTS: Final = "first look at what was asked then weigh what is known and choose the plainest answer"
CHARACTERS_A_TOKEN: Final = 4
DEEPEST: Final = 12
SEAL: Final = b"simulated signature"
"""Anything will do: it only has to be the same when a signature comes back."""


def tokens_of(told: str) -> int:
    """Count the tokens of a text: four characters each, at least one."""
    return max(1, -(-len(told) // CHARACTERS_A_TOKEN))


def text(tokens: int, words: str = WORDS, skip: int = 0) -> str:
    """Return a text that counts `tokens` tokens: four characters each; `skip` words further on in the sentence."""
    listed = words.split(" ")
    turned = " ".join(listed[skip % len(listed) :] + listed[: skip % len(listed)])
    repeated = f"{turned} " * (tokens * CHARACTERS_A_TOKEN // len(turned) + 1)
    return repeated[: max(1, tokens * CHARACTERS_A_TOKEN)].strip() or "ok"


def pieces(told: str, count: int) -> list[str]:
    """Cut a text into at most `count` pieces, as a stream sends it."""
    size = max(1, -(-len(told) // max(1, count)))
    return [told[start : start + size] for start in range(0, len(told), size)]


def token_texts(told: str) -> list[str]:
    """Cut a text into its tokens."""
    return [told[at : at + CHARACTERS_A_TOKEN] for at in range(0, len(told), CHARACTERS_A_TOKEN)]


def vector(count: int, seed: int = 0) -> list[float]:
    """Return an embedding of `count` numbers of length one or less, another one for another `seed`."""
    return [round(1 / (place + 1 + seed), 6) for place in range(count)]


def signature(told: str) -> str:
    """Sign a thought, so that a changed one is known when it comes back."""
    return b64encode(hmac.new(SEAL, told.encode(), hashlib.sha256).digest()).decode()


def is_signed(told: str, signed: object) -> bool:
    """Whether a signature is the one that was given to this text."""
    return isinstance(signed, str) and hmac.compare_digest(signature(told).encode(), signed.encode())


def wav() -> bytes:
    """Return a tenth of a second of silence."""
    target = io.BytesIO()
    with wave.open(target, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    return target.getvalue()


def relevance(query: str, document: str) -> float:
    """Score a document by the part of the query's words that it holds: 0 … 1."""
    asked = set(query.lower().split())
    held = asked & set(document.lower().split())
    return round(len(held) / max(1, len(asked)) * 0.9 + 0.05, 6)


def fitting(schema: Mapping[str, Any], depth: int = 0) -> Any:  # noqa: ANN401 - any JSON
    """Return the plainest value of a JSON schema: its first choice, its required properties, one item."""
    if depth > DEEPEST:
        return None
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if schema.get("enum"):
        return schema["enum"][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return fitting(schema[name][0], depth + 1)
    return _typed(schema, depth)


def _typed(schema: Mapping[str, Any], depth: int) -> Any:  # noqa: ANN401 - any JSON
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    kind = str(kind).lower()
    if kind == "object":
        properties = schema.get("properties") or {}
        wanted = schema.get("required") or list(properties)
        return {name: fitting(properties.get(name) or {}, depth + 1) for name in wanted}
    if kind == "array":
        return [fitting(schema.get("items") or {}, depth + 1)]
    return {
        "integer": schema.get("minimum", 1),
        "number": schema.get("minimum", 1.5),
        "boolean": True,
        "null": None,
    }.get(kind, "text")
