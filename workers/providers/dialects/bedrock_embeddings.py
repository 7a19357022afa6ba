"""Embeddings of Bedrock's models, by InvokeModel: Titan's for text and images, Cohere's. Pure.

docs.aws.amazon.com/bedrock/latest/userguide: model-parameters-titan-embed-text, …-titan-embed-mm, …-embed-v3 and
…-embed-v4.
"""

import struct
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from workers.providers import openai
from workers.providers.catalog import ResolvedDeployment
from workers.providers.conversation import bad, without
from workers.providers.dialect import cannot_take
from workers.providers.dialects.bedrock_models import Model

KNOWN: Final = frozenset({"model", "input", "dimensions", "encoding_format", "user", "metadata"})
TOKENS: Final = "x-amzn-bedrock-input-token-count"
"""The header that counts the tokens of the input, which Cohere's answers do not tell."""

TITAN_TEXT: Final = ("amazon.titan-embed-text-", "amazon.titan-embed-g1-text-")
TITAN_IMAGE: Final = "amazon.titan-embed-image-"
COHERE: Final = "cohere.embed-"
_FIRST_TITAN: Final = ("amazon.titan-embed-text-v1", "amazon.titan-embed-g1-text-")
_COHERE_4: Final = "cohere.embed-v4"


def request(target: ResolvedDeployment, model: Model, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model's own body. Raises `InvalidRequest`."""
    inputs = [asked["input"]] if isinstance(asked.get("input"), str) else asked.get("input")
    if not isinstance(inputs, list) or not inputs or not all(isinstance(each, str) and each for each in inputs):
        bad("input", "a text or a list of texts is needed; Bedrock takes no token numbers")
    if asked.get("encoding_format") not in {None, "float", "base64"}:
        bad("encoding_format", "float or base64 is needed")
    own = {
        name: value for name, value in without(asked, KNOWN | openai.CONTROL) if not name.startswith(("aws_", "stream"))
    }
    dimensions = asked.get("dimensions")
    if model.name.startswith(COHERE):
        return {**_cohere(target, model, inputs, dimensions), **own}
    if not model.name.startswith((*TITAN_TEXT, TITAN_IMAGE)):
        bad("model", f"{model.name} embeds in a way that is not spoken; Titan and Cohere are")
    if len(inputs) > 1:
        bad("input", "Titan embeds one text a request")
    if model.name.startswith(TITAN_IMAGE):
        return {**_image(inputs[0], dimensions), **own}
    out: dict[str, Any] = {"inputText": inputs[0], **own}
    if dimensions is not None:
        if model.name.startswith(_FIRST_TITAN):
            cannot_take(target, "dimensions", f"{model.name} has one size only")
        else:
            out["dimensions"] = dimensions
    return out


def _image(text: str, dimensions: object) -> dict[str, Any]:
    data = _data(text)
    out: dict[str, Any] = {"inputText": text} if data is None else {"inputImage": data.partition(",")[2]}
    if dimensions is not None:
        out["embeddingConfig"] = {"outputEmbeddingLength": dimensions}
    return out


def _cohere(target: ResolvedDeployment, model: Model, inputs: list[str], dimensions: object) -> dict[str, Any]:
    images = [each for each in inputs if _data(each) is not None]
    if images and len(images) != len(inputs):
        bad("input", "texts and images cannot stand in one request")
    out: dict[str, Any] = {"images": images, "input_type": "image"} if images else {"texts": inputs}
    out.setdefault("input_type", "search_document")
    out["embedding_types"] = ["float"]
    if dimensions is not None:
        if model.name.startswith(_COHERE_4):
            out["output_dimension"] = dimensions
        else:
            cannot_take(target, "dimensions", f"{model.name} has one size only")
    return out


def _data(text: str) -> str | None:
    return text if text.startswith("data:image/") and ";base64," in text else None


def listed(body: Mapping[str, Any], model: str, asked: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    """Return OpenAI's list of embeddings. Raises KeyError, TypeError and the like where the answer is none."""
    if "embedding" in body or "embeddingsByType" in body:
        vectors = [body["embedding"] if "embedding" in body else body["embeddingsByType"]["float"]]
    else:
        told = body["embeddings"]
        vectors = told["float"] if isinstance(told, dict) else told
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(each, asked.get("encoding_format"))}
        for index, each in enumerate(vectors)
    ]
    found: dict[str, Any] = {"object": "list", "model": model, "data": data}
    tokens = _tokens(body, headers)
    if tokens is not None:
        found["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return found


def _vector(values: object, form: object) -> Any:  # noqa: ANN401 - numbers, or their bytes as text
    if not isinstance(values, list) or any(
        isinstance(each, bool) or not isinstance(each, int | float) for each in values
    ):
        raise TypeError(type(values))
    numbers = [float(each) for each in values]
    return b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode() if form == "base64" else numbers


def _tokens(body: Mapping[str, Any], headers: Mapping[str, str]) -> int | None:
    counted = body.get("inputTextTokenCount")
    if type(counted) is int and counted >= 0:
        return counted
    told = headers.get(TOKENS, "")
    return int(told) if told.isascii() and told.isdecimal() and len(told) < 12 else None  # noqa: PLR2004 - no sane count
