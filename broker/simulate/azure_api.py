"""Azure OpenAI: deployments with an api-version, and the newer `/openai/v1`.

Sources: learn.microsoft.com/azure/ai-foundry/openai/reference, …/api-version-lifecycle, …/concepts/content-filter,
…/how-to/quota ("rate limits"), …/how-to/managed-identity (Entra tokens).
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from broker.simulate.answers import Answer
from broker.simulate.api import Failure, Job, Limits, Refused, Sent, bearer, route
from broker.simulate.openai_chat import chat, embedding
from broker.simulate.openai_responses import responses
from broker.simulate.openai_text import completions
from broker.simulate.openai_words import OPENAI, limit_headers, wait_headers
from broker.simulate.openai_words import fail as openai_fail

VERSION: Final = re.compile(r"20\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?:-preview)?")
FIRST_VERSIONS: Final = frozenset({"v1", "preview", "latest"})
"""What `api-version` may be at `/openai/v1`, where it may also be left out."""
DEPLOYMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SAFE: Final = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}
DENIED: Final = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
    "active subscription and use a correct regional API endpoint for your resource."
)


def fail(refused: Refused) -> Failure:
    """Write an error: Azure's own have a code and a message, those of the model are OpenAI's."""
    status = 503 if refused.reason == "overloaded" else refused.status
    if refused.reason == "policy":
        filtered = {**SAFE, "violence": {"filtered": True, "severity": "medium"}}
        inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": filtered}
        told = {"message": refused.message, "type": None, "param": "prompt", "code": "content_filter", "status": 400}
        return Failure(400, {"error": {**told, "innererror": inner}})
    own = {"auth": "401", "rate": "429", "path": "404", "model": "DeploymentNotFound", "quota": "insufficient_quota",
           "permission": "403", "unavailable": "503", "overloaded": "503"}  # fmt: skip
    if refused.reason not in own:
        return openai_fail(refused)
    message = refused.message
    if refused.reason == "rate" and refused.wait > 0:
        message = (
            "Requests to the OpenAI operation have exceeded the call rate limit of your current pricing tier. Please "
            f"retry after {math.ceil(refused.wait)} seconds."
        )
    return Failure(status, {"error": {"code": own[refused.reason], "message": message}}, wait_headers(refused))


def limits(told: Limits) -> Mapping[str, str]:
    """Tell what is left: limits and what remains, no resets."""
    return {name: value for name, value in limit_headers(told).items() if "reset" not in name}


AZURE: Final = replace(
    OPENAI,
    name="azure",
    fail=fail,
    limits=limits,
    identify=lambda identity: {"apim-request-id": identity, "x-ms-region": "Simulated", "x-request-id": identity},
    words={
        **OPENAI.words,
        "auth": DENIED,
        "model": "The API deployment for this resource does not exist. If you created the deployment within the last 5 "
        "minutes, please wait a moment and try again.",
        "policy": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
        "Please modify your prompt and retry.",
    },
)


def _authorize(sent: Sent) -> None:
    if not sent.headers.get("api-key") and bearer(sent) is None:
        raise Refused(DENIED, "auth")


def authorize_deployment(sent: Sent) -> None:
    """Refuse a call without a key or a token, or without an api-version."""
    _authorize(sent)
    version = sent.query.get("api-version")
    if version is None:
        raise Refused("Resource not found", "path")
    if not VERSION.fullmatch(version):
        raise Refused(f"HTTP request failed: API version '{version}' is not supported.", param="api-version")
    if not DEPLOYMENT.fullmatch(sent.names["deployment"]):
        raise Refused(AZURE.words["model"], "model")


def authorize_first(sent: Sent) -> None:
    """Refuse a call without a key or a token, or with an api-version that is not of this path."""
    _authorize(sent)
    version = sent.query.get("api-version")
    if version is not None and version not in FIRST_VERSIONS:
        raise Refused("API version not supported", param="api-version")


def _deployed(sent: Sent) -> Sent:
    """Name the deployment as the model: the path tells it, the body need not."""
    body = sent.body()
    return replace(sent, raw=orjson.dumps({**body, "model": sent.names["deployment"]}))


def _rated(job: Job) -> Job:
    """Say beside an answer what the content filter thinks of it."""

    def whole(answer: Answer) -> object:
        told = job.whole(answer)
        if not isinstance(told, dict) or "choices" not in told:
            return told
        rated = [{**choice, "content_filter_results": SAFE} for choice in told["choices"]]
        prompt = [{"prompt_index": 0, "content_filter_results": SAFE}]
        return {**told, "choices": rated, "prompt_filter_results": prompt}

    def events(answer: Answer) -> Any:  # noqa: ANN401 - an iterator of bytes, as the job's own
        """Open the stream as Azure does: a chunk without choices that rates the prompt."""
        opened = {"id": "", "object": "", "created": 0, "model": "", "choices": [],
                  "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}]}  # fmt: skip
        yield b"data: %s\n\n" % orjson.dumps(opened)
        if job.events is not None:
            yield from job.events(answer)

    return replace(job, whole=whole, events=None if job.events is None else events)


def _chat(sent: Sent) -> Job:
    return _rated(chat(sent, sent.body()))


def _embedding(sent: Sent) -> Job:
    return embedding(sent, sent.body())


CALLS: Final[Mapping[str, Callable[[Sent], Job]]] = {
    "chat/completions": _chat,
    "completions": lambda sent: _rated(completions(sent)),
    "embeddings": _embedding,
}


def _of_deployment(call: Callable[[Sent], Job]) -> Callable[[Sent], Job]:
    return lambda sent: call(_deployed(sent))


ROUTES: Final = (
    *(
        route(AZURE, f"/openai/deployments/{{deployment}}/{path}", authorize_deployment, _of_deployment(call))
        for path, call in CALLS.items()
    ),
    *(route(AZURE, f"/openai/v1/{path}", authorize_first, call) for path, call in CALLS.items()),
    route(AZURE, "/openai/v1/responses", authorize_first, responses),
)
