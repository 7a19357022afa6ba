"""Rankings by Jina and by Voyage: the same path, two bodies.

Sources: api.jina.ai/redoc (`/v1/rerank`) and
docs.voyageai.com/reference/reranker-api, …/docs/error-codes.

Both have a path of their own (`/jina/v1/rerank`, `/voyage/v1/rerank`); at `/v1/rerank` the model tells whose it is.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from broker.simulate import samples
from broker.simulate.answers import Answer, Wanted
from broker.simulate.api import Api, Body, Failure, Job, Limits, Refused, Route, Sent, bearer, route, sse
from broker.simulate.samples import tokens_of
from broker.simulate.shapes import (
    FILLED,
    TEXT,
    Shape,
    Wrong,
    boolean,
    dotted,
    either,
    integer,
    listed,
    mapping,
    struct,
)

JINA_RERANK: Final[Mapping[str, Shape]] = {
    "model": FILLED,
    "query": either(FILLED, struct({"text": TEXT, "image": TEXT})),
    "documents": either(listed(either(TEXT, struct({"text": TEXT, "image": TEXT})), 1, 2048), mapping),
    "top_n": integer(1),
    "return_documents": boolean,
    "max_doc_length": integer(1, 10_240),
    "max_query_length": integer(1),
    "truncation": boolean,
}
VOYAGE_RERANK: Final[Mapping[str, Shape]] = {
    "model": FILLED,
    "query": FILLED,
    "documents": listed(FILLED, 1, 1000),
    "top_k": integer(1),
    "return_documents": boolean,
    "truncation": boolean,
}


def _told(wrong: Wrong) -> str:
    return {
        "unknown": "Extra inputs are not permitted",
        "missing": "Field required",
        "type": f"Input should be a valid {wrong.expected}",
        "low": f"Input should be greater than or equal to {wrong.expected}",
        "high": f"Input should be less than or equal to {wrong.expected}",
        "few": f"List should have at least {wrong.expected} item after validation, not 0",
        "many": f"List should have at most {wrong.expected} items after validation",
    }.get(wrong.rule, "Input should have at least 1 character")


def jina_phrase(wrong: Wrong) -> Refused:
    """Word a broken rule; FastAPI's status for it is 422."""
    return Refused(_told(wrong), param=dotted(wrong.place), status=422, code=wrong.rule)


def jina_fail(refused: Refused) -> Failure:
    """Write an error: a list of places where the request is wrong, else a text."""
    status = {"quota": 402, "overloaded": 503}.get(refused.reason, refused.status)
    detail: object = refused.message
    if status == 422 and refused.param is not None:  # noqa: PLR2004 - FastAPI's status of a wrong body
        kinds = {"unknown": "extra_forbidden", "missing": "missing"}
        place = ["body", *(int(step) if step.isdigit() else step for step in refused.param.split("."))]
        detail = [{"type": kinds.get(str(refused.code), "value_error"), "loc": place, "msg": refused.message}]
    headers = {"retry-after": str(math.ceil(refused.wait))} if refused.wait > 0 else {}
    return Failure(status, {"detail": detail}, headers)


def voyage_phrase(wrong: Wrong) -> Refused:
    """Word a broken rule; Voyage's status for it is 400."""
    place = dotted(wrong.place)
    if wrong.rule == "unknown":
        return Refused(f"Argument '{place}' is not supported by our API", param=place)
    return Refused(f"Value for '{place}' is not valid: {_told(wrong)}", param=place)


def voyage_fail(refused: Refused) -> Failure:
    """Write an error: a text."""
    status = {"quota": 429, "overloaded": 503}.get(refused.reason, refused.status)
    return Failure(status, {"detail": refused.message})


def jina_limits(limits: Limits) -> Mapping[str, str]:
    """Tell what is left of the requests."""
    if limits.rpm is None:
        return {}
    return {"x-ratelimit-limit": str(limits.rpm), "x-ratelimit-remaining": str(limits.requests_left)}


def context(tokens: int, window: int) -> Refused:
    """Word a query and documents that are too long."""
    return Refused(
        f"The request has {tokens} tokens after truncation, more than the context length of {window}.", "context"
    )


JINA: Final = Api(
    name="jina",
    phrase=jina_phrase,
    fail=jina_fail,
    limits=jina_limits,
    context=context,
    error_event=lambda failure: sse(failure.body),
    words={
        "auth": "Invalid API key, please get a new one from https://jina.ai.",
        "quota": "Insufficient balance, please recharge your API key.",
        "rate": "Rate limit exceeded.",
        "model": "Model '{model}' not found.",
    },
)
VOYAGE: Final = replace(
    JINA,
    name="voyage",
    phrase=voyage_phrase,
    fail=voyage_fail,
    limits=lambda _: {},
    words={
        "auth": "Provided API key is invalid.",
        "quota": "You have not yet added your payment method in the billing page and will have reduced rate limits.",
        "rate": "You have exceeded your rate limit, please wait and try again later.",
        "model": "Model {model} is not supported.",
    },
)


def authorize(sent: Sent) -> None:
    """Refuse a call without a key."""
    if bearer(sent) is None:
        raise Refused("Not authenticated: an API key is needed as a bearer token.", "auth")


def _words(value: object) -> str:
    return str(value.get("text") or "") if isinstance(value, dict) else str(value)


def _ranked(body: Body) -> list[dict[str, Any]]:
    query = _words(body["query"])
    scored = [
        {"index": index, "relevance_score": samples.relevance(query, _words(told)), "document": told}
        for index, told in enumerate(body["documents"])
    ]
    return sorted(scored, key=lambda each: -each["relevance_score"])


def _wanted(body: Body) -> Wanted:
    return Wanted(body["model"], _words(body["query"]) + "".join(map(_words, body["documents"])), generates=False)


def jina_rerank(sent: Sent) -> Job:
    """Check a request to Jina; documents come back unless they are declined."""
    body: Body = sent.body()
    struct(JINA_RERANK, "model", "query", "documents")(body, ())

    def whole(answer: Answer) -> dict[str, Any]:
        results = _ranked(body)[: body.get("top_n")]
        for each in results:
            told = each.pop("document")
            if body.get("return_documents") is not False:
                each["document"] = {"text": _words(told)}
        return {"model": body["model"], "object": "list", "usage": {"total_tokens": answer.prompt_tokens},
                "results": results}  # fmt: skip

    return Job(_wanted(body), whole)


def voyage_rerank(sent: Sent) -> Job:
    """Check a request to Voyage; documents come back where they are asked for."""
    body: Body = sent.body()
    struct(VOYAGE_RERANK, "model", "query", "documents")(body, ())

    def whole(answer: Answer) -> dict[str, Any]:
        del answer
        data = _ranked(body)[: body.get("top_k")]
        if body.get("return_documents") is not True:
            data = [{name: each[name] for name in ("index", "relevance_score")} for each in data]
        # Billed is the query once with each document (docs.voyageai.com/docs/faq).
        query = tokens_of(body["query"])
        total = sum(query + tokens_of(told) for told in body["documents"])
        return {"object": "list", "data": data, "model": body["model"], "usage": {"total_tokens": total}}

    return Job(_wanted(body), whole)


JINA_ROUTE: Final = route(JINA, "/jina/v1/rerank", authorize, jina_rerank)
VOYAGE_ROUTE: Final = route(VOYAGE, "/voyage/v1/rerank", authorize, voyage_rerank)


def _whose(sent: Sent) -> Route:
    """Tell by the model: `rerank-2.5` and so on are Voyage's."""
    return VOYAGE_ROUTE if b'"rerank-' in sent.raw else JINA_ROUTE


ROUTES: Final = (
    JINA_ROUTE,
    VOYAGE_ROUTE,
    replace(route(JINA, "/v1/rerank", authorize, jina_rerank), whose=_whose),
)
