"""Reranking, whoever does it: a body and an answer in Cohere's shape, the one that rerank servers agree on. Pure.

docs.cohere.com/v2/reference/rerank; an answer's documents are as version 1 had them, where they are asked for.
"""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from broker.errors import BadUpstreamResponse
from schemas.request import RERANK
from workers.providers import openai
from workers.providers.base import CallResult, Usage
from workers.providers.catalog import ResolvedDeployment
from workers.providers.conversation import bad
from workers.providers.dialect import cannot_take
from workers.providers.dialects.retrieval import count, own
from workers.providers.openai_stream import written
from workers.providers.usage import estimate
from workers.providers.usage import usage_of as told_usage

OURS: Final = frozenset({"model", "query", "documents", "top_n", "return_documents"})
ABSENT: Final = frozenset({"rank_fields", "max_chunks_per_doc", "max_tokens_per_doc"})
"""Cohere's parameters that others do not have."""


def request(
    target: ResolvedDeployment, asked: Mapping[str, Any], *, top: str, absent: frozenset[str] = ABSENT
) -> dict[str, Any]:
    """Return the body without its documents; `top` is what the provider calls `top_n`, `absent` what it lacks."""
    for name in sorted(asked.keys() & absent):
        cannot_take(target, name)
    query = asked.get("query")
    if not isinstance(query, str) or not query:
        bad("query", "a text is needed")
    out: dict[str, Any] = {"model": target.deployment.model, "query": query}
    if asked.get("top_n") is not None:
        if type(asked["top_n"]) is not int or asked["top_n"] < 1:
            bad("top_n", "a whole number of at least 1 is needed")
        out[top] = asked["top_n"]
    return {**out, **own(target, asked, OURS | absent)}


def documents(asked: Mapping[str, Any]) -> list[str | dict[str, Any]]:
    """Return the documents, each a text or an object."""
    found = asked.get("documents")
    if not isinstance(found, list) or not found:
        bad("documents", "a list of at least one document is needed")
    for index, each in enumerate(found):
        if not isinstance(each, str | dict):
            bad(f"documents[{index}]", "a text or an object is needed")
    return found


def texts(asked: Mapping[str, Any]) -> list[str]:
    """Return the documents as texts, for who takes no objects."""
    found = []
    for index, each in enumerate(documents(asked)):
        text = each.get("text") if isinstance(each, dict) else each
        if not isinstance(text, str):
            bad(f"documents[{index}]", "a text, or an object with a text, is needed")
        found.append(text)
    return found


def result(
    target: ResolvedDeployment,
    asked: Mapping[str, Any],
    body: Mapping[str, Any],
    found: object,
    headers: Mapping[str, str],
) -> CallResult:
    """Return what an answer says, in Cohere's shape; `found` are its ranked documents, wherever they stood.

    Raises `BadUpstreamResponse` where they are none, or are not those of the request.
    """
    if not isinstance(found, list) or not found:
        raise BadUpstreamResponse("the upstream's answer has no ranked results")
    given = documents(asked)
    results = [_ranked(each, given, documents_too=asked.get("return_documents") is True) for each in found]
    usage = usage_of(asked, body)
    identity, meta = body.get("id"), body.get("meta")
    if not isinstance(meta, dict):
        tokens = {"input_tokens": usage.input_tokens}
        meta = {} if usage.estimated else {"billed_units": tokens, "tokens": {**tokens, "output_tokens": 0}}
    shaped: dict[str, Any] = {
        "id": identity if isinstance(identity, str) and identity else str(uuid.uuid4()),
        "results": results,
    }
    shaped |= {"meta": meta} if meta else {}
    read = openai.result(target, RERANK, asked, shaped, written(shaped), headers)
    model = body.get("model")
    return replace(read, usage=usage, model=model if isinstance(model, str) and model else read.model)


def _ranked(told: object, given: list[str | dict[str, Any]], *, documents_too: bool) -> dict[str, Any]:
    index = told.get("index") if isinstance(told, dict) else None
    score = told.get("relevance_score") if isinstance(told, dict) else None
    if not isinstance(told, dict) or type(index) is not int or type(score) not in {int, float}:
        raise BadUpstreamResponse("a ranked result of the upstream's answer has no index or no score")
    if not 0 <= index < len(given):
        raise BadUpstreamResponse("the upstream ranked a document that was not asked about")
    ranked = {name: value for name, value in told.items() if name != "document"}
    if documents_too:
        document = told.get("document", given[index])
        ranked["document"] = {"text": document} if isinstance(document, str) else document
    return ranked


def usage_of(asked: Mapping[str, Any], body: Mapping[str, Any]) -> Usage:
    """Return the tokens where they are told, in `usage` or `meta`, else an estimate; search units stay in its `raw`."""
    found = told_usage(body.get("usage"))
    if found is not None:
        return found
    meta = body.get("meta")
    if not isinstance(meta, dict):
        return estimate(asked, body)
    for name in ("billed_units", "tokens"):
        tokens = count(meta.get(name), "input_tokens")
        if tokens is not None:
            return Usage(input_tokens=tokens, raw=meta)
    return replace(estimate(asked, body), raw=meta)
