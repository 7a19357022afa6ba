"""Gemini's generateContent and embeddings.

Sources: ai.google.dev/api/generate-content, …/api/embeddings,
…/gemini-api/docs/thought-signatures, …/troubleshooting, and cloud.google.com/apis/design/errors for the error's form.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from broker.simulate import samples
from broker.simulate.answers import Answer, Ending, Tools, Wanted
from broker.simulate.api import Api, Body, Failure, Job, Refused, Sent, bearer, no_headers, refuse, route
from broker.simulate.gemini_shapes import BATCH, EMBEDDING, REQUEST, camel, padded
from broker.simulate.shapes import Wrong, indexed, kind_of

STATUSES: Final = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
                   405: "UNIMPLEMENTED", 408: "DEADLINE_EXCEEDED", 409: "ABORTED", 429: "RESOURCE_EXHAUSTED",
                   499: "CANCELLED", 500: "INTERNAL", 501: "UNIMPLEMENTED", 503: "UNAVAILABLE",
                   504: "DEADLINE_EXCEEDED"}  # fmt: skip
FINISHES: Final = {Ending.STOP: "STOP", Ending.SEQUENCE: "STOP", Ending.LENGTH: "MAX_TOKENS", Ending.CALLS: "STOP",
                   Ending.REFUSAL: "SAFETY", Ending.FILTERED: "PROHIBITED_CONTENT"}  # fmt: skip
LEVELS: Final = {"minimal": 0, "low": 8, "medium": 16, "high": 32, "xhigh": 64}
SIGNS: Final = re.compile(r"gemini-(?:[3-9]|\d\d)")
"""Models that want the signatures of their calls back (thought-signatures, "Model behavior")."""
UNSIGNED: Final = frozenset({"skip_thought_signature_validator", "context_engineering_is_the_way_to_go"})
"""Signatures the documentation allows for calls that no model made."""
RPC: Final = "type.googleapis.com/google.rpc."


def phrase(wrong: Wrong) -> Refused:
    """Word a broken rule as protobuf's JSON parser or the service does."""
    place = indexed(wrong.place)
    proto = re.sub(r"[A-Z]", lambda found: "_" + found[0].lower(), indexed(wrong.place[:-1]))
    last = wrong.place[-1] if wrong.place else ""
    match wrong.rule:
        case "unknown":
            at = f" at '{proto}'" if proto else ""
            told = f'Invalid JSON payload received. Unknown name "{last}"{at}: Cannot find field.'
        case "type":
            kind = {"string": "STRING", "integer": "INT32", "decimal": "FLOAT", "boolean": "BOOL"}.get(
                str(wrong.expected), "MESSAGE"
            )
            told = f"Invalid value at '{place}' (TYPE_{kind}), {kind_of(wrong.got)}"
        case "missing" | "few":
            told = f"* GenerateContentRequest.{place}: {place} is not specified"
        case "value" if last == "role":
            told = "Please use a valid role: user, model."
        case "value":
            told = f"Invalid value at '{place}', \"{wrong.got}\""
        case "low" | "high":
            least = "at least" if wrong.rule == "low" else "at most"
            told = f"* GenerateContentRequest.{place}: {last} must be {least} {wrong.expected:g}"
        case _:
            told = f"* GenerateContentRequest.{place}: {wrong.expected}"
    return Refused(told, param=place)


def fail(refused: Refused) -> Failure:
    """Write an error; a limit tells in its details when to come back."""
    status = {"overloaded": 503, "auth": 400, "permission": 403}.get(refused.reason, refused.status)
    told: dict[str, Any] = {"code": status, "message": refused.message,
                            "status": refused.code or STATUSES.get(status, "UNKNOWN")}  # fmt: skip
    details: list[dict[str, Any]] = []
    if refused.reason == "auth":
        details.append({"@type": f"{RPC}ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"})
    if refused.param is not None:
        violation = {"field": refused.param, "description": refused.message}
        details.append({"@type": f"{RPC}BadRequest", "fieldViolations": [violation]})
    if refused.reason in {"rate", "quota"}:
        quota = {"quotaMetric": "generativelanguage.googleapis.com/generate_content_requests",
                 "quotaId": "GenerateRequestsPerMinutePerProjectPerModel" if refused.reason == "rate"
                 else "GenerateRequestsPerDayPerProjectPerModel"}  # fmt: skip
        details.append({"@type": f"{RPC}QuotaFailure", "violations": [quota]})
    if refused.wait > 0:
        details.append({"@type": f"{RPC}RetryInfo", "retryDelay": f"{refused.wait:.9f}".rstrip("0").rstrip(".") + "s"})
    if details:
        told["details"] = details
    return Failure(status, {"error": told})


def context(tokens: int, window: int) -> Refused:
    """Word a prompt that is too long."""
    return Refused(
        f"The input token count ({tokens}) exceeds the maximum number of tokens allowed ({window}).", "context"
    )


GEMINI: Final = Api(
    name="gemini",
    phrase=phrase,
    fail=fail,
    limits=no_headers,
    context=context,
    error_event=lambda failure: b"data: %s\r\n\r\n" % orjson.dumps(failure.body),
    policy_is_an_answer=True,
    words={
        "auth": "API key not valid. Please pass a valid API key.",
        "quota": "You exceeded your current quota, please check your plan and billing details.",
        "rate": "Resource has been exhausted (e.g. check quota).",
        "model": "models/{model} is not found for API version v1beta, or is not supported for generateContent.",
        "overloaded": "The model is overloaded. Please try again later.",
        "unavailable": "The model is overloaded. Please try again later.",
        "server": "An internal error has occurred. Please retry or report in "
        "https://developers.generativeai.google/guide/troubleshooting",
    },
)


def authorize(sent: Sent) -> None:
    """Refuse a call without a key."""
    if not (sent.headers.get("x-goog-api-key") or sent.query.get("key") or bearer(sent)):
        raise Refused(
            "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or "
            "other form of API consumer identity to call this API.",
            "permission",
        )


def generate(sent: Sent) -> Job:
    """Check a request."""
    body: Body = camel(sent.body())
    REQUEST(body, ())
    turns, config = body.get("contents") or [], body.get("generationConfig") or {}
    if not turns:
        refuse("* GenerateContentRequest.contents: contents is not specified", "contents")
    model, verb = sent.names["model"], sent.names["verb"]
    schema = config.get("responseJsonSchema") or config.get("responseSchema")
    if schema is not None and config.get("responseMimeType") not in {"application/json", "text/x.enum"}:
        refuse("For controlled generation, generationConfig.responseMimeType must be application/json.",
               "generationConfig.responseMimeType")  # fmt: skip
    if config.get("logprobs") is not None and not config.get("responseLogprobs"):
        refuse("generationConfig.logprobs: responseLogprobs must be true.", "generationConfig.logprobs")
    if schema is None and config.get("responseMimeType") == "application/json":
        schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    _calls_are_answered(turns)
    _signatures(turns, model)
    system = body.get("systemInstruction") or {"parts": []}
    wanted = Wanted(
        model=model,
        prompt="".join(_text(turn) for turn in [system, *turns]),
        most=config.get("maxOutputTokens"),
        streams=verb == "streamGenerateContent",
        tools=_tools(body),
        schema=schema,
        choices=config.get("candidateCount") or 1,
        stop=config.get("stopSequences") or (),
        reasoning=_thinking(config),
    )
    top = (config.get("logprobs") or 1) if config.get("responseLogprobs") else None
    shown = (config.get("thinkingConfig") or {}).get("includeThoughts") is True
    lined = sent.query.get("alt") == "sse"
    return Job(
        wanted,
        lambda answer: _whole(answer, _candidates(answer, top, shown=shown)),
        lambda answer: stream(answer, top, shown=shown, lined=lined),
        stream_media="text/event-stream" if lined else "application/json; charset=UTF-8",
    )


def _text(content: Body) -> str:
    parts = content["parts"]
    return "".join(
        str(part.get("text") or (part.get("functionResponse") or {}).get("response") or "") for part in parts
    )


def _calls_are_answered(turns: list[Body]) -> None:
    """Refuse calls that have not as many responses in the turn that follows."""
    for index, turn in enumerate(turns):
        calls = sum("functionCall" in part for part in turn["parts"])
        follows = turns[index + 1]["parts"] if index + 1 < len(turns) else []
        answers = sum("functionResponse" in part for part in follows)
        if calls and calls != answers:
            refuse(
                "Please ensure that the number of function response parts is equal to the number of function call "
                "parts of the function call turn.",
                "contents",
            )


def _signatures(turns: list[Body], model: str) -> None:
    """Refuse a changed signature, and a missing one where the model wants it back."""
    last_asked = max(
        (i for i, t in enumerate(turns) if t.get("role") != "model" and "text" in t["parts"][-1]), default=0
    )
    for index, turn in enumerate(turns):
        first = True
        for part in turn["parts"]:
            signed, call = part.get("thoughtSignature"), part.get("functionCall")
            if signed not in {None, *UNSIGNED} and not samples.is_signed(_signed(part), padded(signed)):
                refuse("Corrupted thought signature.", f"contents[{index}].parts")
            if call is not None and first and signed is None and index > last_asked and SIGNS.match(model):
                refuse(
                    "Function call is missing a thought_signature in functionCall parts. This is required for tools "
                    f"to work correctly. Function call `default_api:{call['name']}`, position {index + 1}.",
                    f"contents[{index}].parts",
                )
            first = first and call is None


def _signed(part: Body) -> str:
    call = part.get("functionCall")
    return (
        orjson.dumps([call["name"], call.get("args") or {}], option=orjson.OPT_SORT_KEYS).decode() if call else "text"
    )


def _thinking(config: Body) -> int:
    thinking = config.get("thinkingConfig") or {}
    budget, level = thinking.get("thinkingBudget"), thinking.get("thinkingLevel")
    if budget is not None and level is not None:
        refuse("You can only set one of thinking budget and thinking level.", "generationConfig.thinkingConfig")
    if level is not None:
        return LEVELS.get(level.lower(), 16)
    if budget is None:
        return 16 if thinking.get("includeThoughts") else 0
    return 16 if budget < 0 else min(64, budget // 4)


def _tools(body: Body) -> Tools:
    offered: dict[str, Mapping[str, Any]] = {}
    for tool in body.get("tools") or []:
        for function in tool.get("functionDeclarations") or []:
            if function["name"] in offered:
                refuse(f"Duplicate function declaration found: {function['name']}", "tools")
            offered[function["name"]] = function.get("parametersJsonSchema") or function.get("parameters") or {}
    config = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    mode, allowed = config.get("mode") or "AUTO", config.get("allowedFunctionNames") or []
    if allowed and mode not in {"ANY", "VALIDATED"}:
        refuse("allowed_function_names should only be set when the function calling mode is ANY.", "toolConfig")
    if unknown := [name for name in allowed if name not in offered]:
        refuse(f"toolConfig: allowed_function_names names no declared function: {unknown}", "toolConfig")
    if mode == "NONE":
        return Tools()
    if mode == "ANY":
        if not offered:
            refuse("Function calling mode is set to ANY without function declarations.", "toolConfig")
        return Tools(offered, tuple(allowed or offered))
    last = body["contents"][-1]
    asked = "" if any("functionResponse" in part for part in last["parts"]) else _text(last)
    return Tools(offered, (), asked_in=asked)


def _parts(answer: Answer, text: str, *, shown: bool) -> list[dict[str, Any]]:
    thought = [{"text": answer.thought, "thought": True}] if answer.thought and shown else []
    if not answer.calls:
        return [*thought, {"text": text}] if text else thought
    parts: list[dict[str, Any]] = []
    for number, call in enumerate(answer.calls):
        part: dict[str, Any] = {"functionCall": {"name": call.name, "args": call.arguments}}
        if number == 0 and (answer.thought or SIGNS.match(answer.wanted.model)):
            part["thoughtSignature"] = samples.signature(_signed(part))
        parts.append(part)
    return [*thought, *parts]


def _candidates(answer: Answer, top: int | None, *, shown: bool) -> list[dict[str, Any]]:
    candidates = []
    for index, text in enumerate(answer.texts):
        candidate: dict[str, Any] = {"index": index, "finishReason": FINISHES[answer.ending]}
        if answer.ending is not Ending.REFUSAL:
            candidate["content"] = {"parts": _parts(answer, text, shown=shown), "role": "model"}
        if top is not None:
            candidate["avgLogprobs"] = -0.1
            one = [{"token": token, "tokenId": at, "logProbability": -0.1}
                   for at, token in enumerate(samples.token_texts(text))]  # fmt: skip
            ranked = [{"candidates": [each] * top} for each in one]
            candidate["logprobsResult"] = {"chosenCandidates": one, "topCandidates": ranked}
        candidates.append(candidate)
    return candidates


def _whole(answer: Answer, candidates: list[dict[str, Any]]) -> dict[str, Any]:
    prompt, thought = answer.prompt_tokens, answer.reasoning_tokens
    blocked = answer.ending is Ending.FILTERED
    told = 0 if blocked else answer.output_tokens - thought
    usage: dict[str, Any] = {
        "promptTokenCount": prompt, "candidatesTokenCount": told, "totalTokenCount": prompt + told + thought,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
    }  # fmt: skip
    if thought:
        usage["thoughtsTokenCount"] = thought
    if answer.plan.cached:
        usage["cachedContentTokenCount"] = answer.plan.cached
    head = {"usageMetadata": usage, "modelVersion": answer.wanted.model, "responseId": answer.plan.identity}
    if blocked:
        return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **head}
    return {"candidates": candidates, **head}


def stream(answer: Answer, top: int | None, *, shown: bool, lined: bool) -> Iterator[bytes]:
    """Yield the events of a streamed answer; one JSON array where `alt=sse` was not asked for."""
    events = list(_events(answer, _whole(answer, _candidates(answer, top, shown=shown))))
    for number, event in enumerate(events):
        if lined:
            yield b"data: %s\r\n\r\n" % orjson.dumps(event)
        else:
            yield (b"[" if number == 0 else b",\r\n") + orjson.dumps(event)
    if not lined:
        yield b"]"


def _events(answer: Answer, whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    candidates = whole.get("candidates") or []
    early = {name: whole[name] for name in ("modelVersion", "responseId")}
    counted = {"promptTokenCount": answer.prompt_tokens, "totalTokenCount": answer.prompt_tokens}
    for candidate in candidates:
        parts = (candidate.get("content") or {}).get("parts") or []
        for part in parts:
            pieces = [{**part, "text": piece} for piece in answer.pieces(part["text"])] if "text" in part else [part]
            for piece in pieces:
                content = {"content": {"parts": [piece], "role": "model"}, "index": candidate["index"]}
                yield {**early, "candidates": [content], "usageMetadata": counted}
    ends = [
        {**candidate, **({"content": {"parts": [{"text": ""}], "role": "model"}} if "content" in candidate else {})}
        for candidate in candidates
    ]
    yield {**whole, "candidates": ends} if candidates else whole


def embed(sent: Sent) -> Job:
    """Check one content or a batch that is to be embedded."""
    body: Body = camel(sent.body())
    several = sent.names["verb"] == "batchEmbedContents"
    (BATCH if several else EMBEDDING)(body, ())
    requests: list[Body] = body["requests"] if several else [body]
    model = sent.names["model"]
    for index, request in enumerate(requests):
        if several and request["model"] not in {f"models/{model}", model}:
            refuse(f"* BatchEmbedContentsRequest.requests[{index}].model: must be models/{model}", "requests.model")
        if request.get("title") is not None and request.get("taskType") != "RETRIEVAL_DOCUMENT":
            refuse("* EmbedContentRequest.title: only with taskType RETRIEVAL_DOCUMENT", "title")
    wanted = Wanted(model, "".join(_text(request["content"]) for request in requests), generates=False)

    def whole(answer: Answer) -> dict[str, Any]:
        del answer
        made = [
            {"values": samples.vector(request.get("outputDimensionality") or 8, index)}
            for index, request in enumerate(requests)
        ]
        return {"embeddings": made} if several else {"embedding": made[0]}

    return Job(wanted, whole)


def call(sent: Sent) -> Job:
    """Check whatever method of a model was called."""
    model, _, verb = sent.names["call"].rpartition(":")
    named = replace(sent, names={"model": model, "verb": verb})
    if verb in {"generateContent", "streamGenerateContent"}:
        return generate(named)
    if verb in {"embedContent", "batchEmbedContents"}:
        return embed(named)
    raise Refused(f"no method is named {verb}", "path")


ROUTES: Final = (
    route(GEMINI, "/v1beta/models/{call}", authorize, call),
    route(GEMINI, "/v1/models/{call}", authorize, call),
    route(GEMINI, "/v1beta/tunedModels/{call}", authorize, call),
)
