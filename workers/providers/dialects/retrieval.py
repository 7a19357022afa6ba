"""What the dialects of embeddings and reranking share: inputs, encodings, a provider's own parameters. Pure."""

import struct
from collections.abc import Collection, Mapping
from typing import Any, Final

from broker.errors import ContextLengthExceeded, RequestError
from workers.providers import openai
from workers.providers.catalog import HARMLESS, ResolvedDeployment
from workers.providers.conversation import bad, without
from workers.providers.dialect import Stream
from workers.providers.openai_stream import Completion

UNREADABLE: Final = (
    KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError, OverflowError, struct.error,
)  # fmt: skip
"""What reading an answer of a wrong shape raises."""

MOST: Final = 2**53
"""Above it a JSON number is no whole one for every reader (RFC 8259, section 6); no answer counts that far."""


def streamed(endpoint: str) -> bool:
    """Whether answers of `endpoint` can be streamed: no embeddings and no ranking can."""
    del endpoint
    return False


def stream(target: ResolvedDeployment, endpoint: str, asked: Mapping[str, Any]) -> Stream:
    """Return what puts a streamed answer together, for a server that streams all the same."""
    del target, asked
    return Completion(endpoint)


def own(target: ResolvedDeployment, asked: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Return the provider's own parameters: those that nobody else knows, by name.

    Of those that speak to a broker, only what the deployment itself says.
    """
    fixed = openai.CONTROL & (target.defaults.keys() - target.dropped)
    told = dict(without(asked, known | HARMLESS | openai.CONTROL))
    return told | {name: target.defaults[name] for name in fixed}


def inputs(asked: Mapping[str, Any], whose: str) -> list[str]:
    """Return the texts to embed. Raises `InvalidRequest` for numbers of tokens, which are of one tokenizer only."""
    value = asked.get("input")
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found or not all(isinstance(each, str) for each in found):
        bad("input", f"a text or a list of texts is needed; {whose} takes no token numbers")
    return found


def is_image(text: str) -> bool:
    """Whether an input is a picture: a data URL."""
    return text.startswith("data:image/")


def encoding(asked: Mapping[str, Any]) -> str:
    """Return `encoding_format`, `float` where nothing is said."""
    form = asked.get("encoding_format") or "float"
    if not isinstance(form, str) or form not in {"float", "base64"}:
        bad("encoding_format", "float or base64 is needed")
    return form


def too_long(found: RequestError, status: int, words: Collection[str]) -> RequestError:
    """Return the error as one of the context where the request is at fault and the words say so."""
    if status in {400, 422} and any(each in found.message.lower() for each in words):
        return ContextLengthExceeded(found.message)
    return found


def count(source: object, name: str) -> int | None:
    """Return a whole count of an object, which some APIs write as a decimal; None where none is told."""
    value = source.get(name) if isinstance(source, dict) else None
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < MOST else None
