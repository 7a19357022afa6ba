"""Vertex AI's Gemini models and its text embeddings.

Sources: cloud.google.com/vertex-ai/generative-ai/docs/reference/rest
(projects.locations.publishers.models: generateContent, streamGenerateContent, predict) and
…/model-reference/text-embeddings-api.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from broker.simulate import samples
from broker.simulate.answers import Answer, Wanted
from broker.simulate.api import Body, Failure, Job, Refused, Sent, bearer, route
from broker.simulate.gemini_api import GEMINI, embed, fail, generate
from broker.simulate.gemini_shapes import TASKS
from broker.simulate.samples import tokens_of
from broker.simulate.shapes import TEXT, Shape, boolean, integer, listed, one_of, struct, text

PROJECT: Final = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]|\d+")
LOCATION: Final = re.compile(r"global|us|eu|[a-z]+-[a-z]+\d+")
INSTANCE: Final = struct({"content": text(1), "task_type": one_of(*TASKS), "title": TEXT}, "content")
PREDICT: Final[Mapping[str, Shape]] = {
    "instances": listed(INSTANCE, 1, 250),
    "parameters": struct({"autoTruncate": boolean, "outputDimensionality": integer(1, 3072)}),
}
ONE_AT_A_TIME: Final = re.compile(r"gemini-embedding-001")


def vertex_fail(refused: Refused) -> Failure:
    """Write an error: like Gemini's, but a wrong token is a 401 and a prompt too long names no count."""
    failure = fail(refused)
    if refused.reason != "auth":
        return failure
    told: dict[str, Any] = {"code": 401, "message": refused.message, "status": "UNAUTHENTICATED"}
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_TYPE_UNSUPPORTED",
            "domain": "googleapis.com", "metadata": {"service": "aiplatform.googleapis.com"}}  # fmt: skip
    return Failure(401, {"error": {**told, "details": [info]}})


VERTEX: Final = replace(
    GEMINI,
    name="vertex",
    fail=vertex_fail,
    words={
        **GEMINI.words,
        "auth": "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other "
        "valid authentication credential.",
        "rate": "Resource exhausted. Please try again later.",
        "model": "Publisher Model `publishers/google/models/{model}` was not found or your project does not have "
        "access to it.",
    },
)


def authorize(sent: Sent) -> None:
    """Refuse a call without a token, or at a project or location that cannot be one."""
    if bearer(sent) is None:
        raise Refused("Request is missing required authentication credential. Expected OAuth 2 access token.", "auth")
    if not PROJECT.fullmatch(sent.names["project"]):
        raise Refused(f"Invalid resource field value in the request: projects/{sent.names['project']}")
    if not LOCATION.fullmatch(sent.names["location"]):
        raise Refused(f"Invalid resource field value in the request: locations/{sent.names['location']}")


def predict(sent: Sent) -> Job:
    """Check texts that are to be embedded."""
    body: Body = sent.body()
    struct(PREDICT, "instances")(body, ())
    instances, model = body["instances"], sent.names["model"]
    if len(instances) > 1 and ONE_AT_A_TIME.fullmatch(model):
        raise Refused("The number of instances in the request exceeds the limit of 1.", param="instances")
    count = (body.get("parameters") or {}).get("outputDimensionality") or 8
    wanted = Wanted(model, "".join(instance["content"] for instance in instances), generates=False)

    def whole(answer: Answer) -> dict[str, Any]:
        del answer
        predictions = []
        for index, instance in enumerate(instances):
            told = {"token_count": tokens_of(instance["content"]), "truncated": False}
            predictions.append({"embeddings": {"values": samples.vector(count, index), "statistics": told}})
        return {"predictions": predictions, "metadata": {"billableCharacterCount": len(wanted.prompt)}}

    return Job(wanted, whole)


def call(sent: Sent) -> Job:
    """Check whatever method of a model was called."""
    model, _, verb = sent.names["call"].rpartition(":")
    named = replace(sent, names={**sent.names, "model": model, "verb": verb})
    if verb in {"generateContent", "streamGenerateContent"}:
        return generate(named)
    if verb == "predict":
        return predict(named)
    if verb == "embedContent":
        return embed(named)
    raise Refused(f"no method is named {verb}", "path")


ROUTES: Final = tuple(
    route(
        VERTEX,
        f"/{version}/projects/{{project}}/locations/{{location}}/publishers/google/models/{{call}}",
        authorize,
        call,
    )
    for version in ("v1", "v1beta1")
)
