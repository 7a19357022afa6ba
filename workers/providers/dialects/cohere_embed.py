"""Cohere's embeddings: OpenAI's `/v1/embeddings` as `/v2/embed`, and back. Pure. docs.cohere.com/v2/reference/embed."""

import struct
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from workers.providers.catalog import ResolvedDeployment
from workers.providers.conversation import bad
from workers.providers.dialects.retrieval import count, encoding, inputs, is_image, own

INPUT_TYPE: Final = "search_document"
"""Of a request that does not say what its texts are for, which this API insists on; what LiteLLM sends as well."""
OURS: Final = frozenset({"model", "input", "dimensions", "encoding_format", "embedding_types"})


def embeddings(target: ResolvedDeployment, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body to send. Pictures are data URLs in `input`."""
    found = inputs(asked, "Cohere")
    pictures = [is_image(each) for each in found]
    out: dict[str, Any] = {"model": target.deployment.model, "embedding_types": [kind_of(asked)]}
    if not any(pictures):
        out |= {"texts": found, "input_type": INPUT_TYPE}
    elif all(pictures):
        out |= {"images": found, "input_type": "image"}
    else:
        out |= {"inputs": [{"content": [_content(each)]} for each in found], "input_type": INPUT_TYPE}
    if asked.get("dimensions") is not None:
        out["output_dimension"] = asked["dimensions"]
    return {**out, **own(target, asked, OURS)}


def _content(text: str) -> dict[str, Any]:
    if is_image(text):
        return {"type": "image_url", "image_url": {"url": text}}
    return {"type": "text", "text": text}


def kind_of(asked: Mapping[str, Any]) -> str:
    """Return the one type of embeddings asked for: OpenAI's `encoding_format`, or the API's own `embedding_types`."""
    form, kinds = encoding(asked), asked.get("embedding_types")
    if kinds is None:
        return form
    if not isinstance(kinds, list) or len(kinds) != 1 or not isinstance(kinds[0], str):
        bad("embedding_types", "a list of one type is needed: OpenAI's answer has one embedding an input")
    if form == "base64" and kinds[0] not in {"float", "base64"}:
        bad("encoding_format", f"{kinds[0]} embeddings come as numbers")
    return "base64" if form == "base64" else str(kinds[0])


def embedded(body: Mapping[str, Any], model: str, asked: Mapping[str, Any]) -> tuple[dict[str, Any], object]:
    """Return OpenAI's answer, and what the provider says of usage. Raises KeyError, TypeError and the like."""
    kind, told = kind_of(asked), body["embeddings"]
    found = told.get(kind)
    if found is None and kind == "base64":  # models before version 3
        found = [b64encode(struct.pack(f"<{len(each)}f", *each)).decode() for each in told["float"]]
    data = [
        {"object": "embedding", "index": index, "embedding": _checked(each, kind)} for index, each in enumerate(found)
    ]
    answer = {"object": "list", "model": model, "data": data}
    meta = body.get("meta")
    usage = usage_of(meta) if isinstance(meta, dict) else None
    return ({**answer, "usage": usage}, meta) if usage is not None else (answer, None)


def _checked(values: Any, kind: str) -> Any:  # noqa: ANN401 - numbers or a text
    if kind == "base64":
        if not isinstance(values, str):
            raise TypeError(type(values))
        return values
    if not all(type(number) in {int, float} for number in values):
        raise TypeError(type(values))
    return values


def usage_of(meta: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return OpenAI's usage; None where nothing is told. Tokens are the billed ones; pictures may be billed apart."""
    billed = meta.get("billed_units")
    parts = [count(billed, name) for name in ("input_tokens", "image_tokens")]
    if not any(part is not None for part in (*parts, count(billed, "images"))):
        parts = [count(meta.get("tokens"), "input_tokens")]
        if parts == [None]:
            return None
    tokens = sum(part or 0 for part in parts)
    return {"prompt_tokens": tokens, "total_tokens": tokens}
