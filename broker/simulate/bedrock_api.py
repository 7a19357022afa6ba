"""AWS Bedrock's runtime: Converse, ConverseStream, and InvokeModel of the Titan and Cohere embeddings.

Sources: docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, …_ConverseStream.html,
…/CommonErrors.html, docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html,
…/model-parameters-embed.html, and botocore's service model.
"""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from broker.simulate import samples
from broker.simulate.answers import REFUSAL, Answer, Ending, Tools, Wanted
from broker.simulate.api import Api, Body, Failure, Job, Refused, Sent, no_headers, refuse, route
from broker.simulate.bedrock_shapes import check
from broker.simulate.bedrock_sign import authorize
from broker.simulate.cohere_api import embedded
from broker.simulate.cohere_shapes import EMBED
from broker.simulate.eventstream import MEDIA, message
from broker.simulate.shapes import Shape, Wrong, boolean, dotted, listed, one_of, struct, text

NAMES: Final = {400: "ValidationException", 403: "AccessDeniedException", 404: "ResourceNotFoundException",
                408: "ModelTimeoutException", 424: "ModelErrorException", 429: "ThrottlingException",
                500: "InternalServerException", 503: "ServiceUnavailableException"}  # fmt: skip
STATUSES: Final = {"auth": 403, "permission": 403, "quota": 400, "overloaded": 503, "timeout": 408}
STOPS: Final = {Ending.STOP: "end_turn", Ending.SEQUENCE: "stop_sequence", Ending.LENGTH: "max_tokens",
                Ending.CALLS: "tool_use", Ending.REFUSAL: "content_filtered",
                Ending.FILTERED: "guardrail_intervened"}  # fmt: skip
MOST_THOUGHT: Final = 16
SCHEMA_NAMESPACE: Final = ":http://internal.amazon.com/coral/com.amazon.bedrock/"
"""What services put behind the name of an error; clients cut it off at the colon."""


def phrase(wrong: Wrong) -> Refused:
    """Word a broken rule."""
    place = dotted(wrong.place)
    rules = {
        "missing": "Member must not be null",
        "low": f"Member must have value greater than or equal to {wrong.expected}",
        "high": f"Member must have value less than or equal to {wrong.expected}",
        "few": f"Member must have length greater than or equal to {wrong.expected}",
        "many": f"Member must have length less than or equal to {wrong.expected}",
    }
    if wrong.rule == "unknown":
        return Refused(f"Malformed input request: #: extraneous key [{place}] is not permitted, please reformat your "
                       "input and try again.", param=place)  # fmt: skip
    if wrong.rule == "value":
        rule = f"Member must satisfy enum value set: [{', '.join(map(str, wrong.expected))}]"
    else:
        rule = rules.get(wrong.rule, f"Member must be {wrong.expected}")
    told = f"1 validation error detected: Value at '{place}' failed to satisfy constraint: {rule}"
    return Refused(told, param=place)


def fail(refused: Refused) -> Failure:
    """Write an error: its name stands in a header, the body holds the message alone."""
    status = STATUSES.get(refused.reason, refused.status)
    status = 503 if status == 529 else status  # noqa: PLR2004 - Anthropic's own status
    kinds = {"auth": "UnrecognizedClientException", "quota": "ServiceQuotaExceededException"}
    other = "InternalServerException" if status >= 500 else "ValidationException"  # noqa: PLR2004 - servers' errors
    kind = refused.kind or kinds.get(refused.reason) or NAMES.get(status, other)
    return Failure(status, {"message": refused.message}, {"x-amzn-errortype": kind + SCHEMA_NAMESPACE})


def _error_event(failure: Failure) -> bytes:
    """Write an exception into the stream: `:exception-type` names the member of the output."""
    kind = failure.headers["x-amzn-errortype"].partition(":")[0]
    headers = {":exception-type": kind[0].lower() + kind[1:], ":content-type": "application/json",
               ":message-type": "exception"}  # fmt: skip
    return message(headers, orjson.dumps(failure.body))


BEDROCK: Final = Api(
    name="bedrock",
    phrase=phrase,
    fail=fail,
    limits=no_headers,
    context=lambda tokens, window: Refused(
        f"Input is too long for requested model. ({tokens} tokens, {window} at most)", "context"
    ),
    error_event=_error_event,
    policy_is_an_answer=True,
    identify=lambda identity: {"x-amzn-requestid": str(uuid.UUID(identity.ljust(32, "0")))},
    words={
        "auth": "The security token included in the request is invalid.",
        "quota": "Your account has reached a service quota: too many tokens per day, please wait before trying again.",
        "rate": "Too many requests, please wait before trying again.",
        "model": "Could not resolve the foundation model from the provided model identifier: {model}",
        "overloaded": "Bedrock is unable to process your request.",
        "unavailable": "Bedrock is unable to process your request.",
        "server": "The system encountered an unexpected error during processing. Try your request again.",
    },
)


def converse(sent: Sent) -> Job:
    """Check a conversation; the last segment of the path tells whether it is streamed."""
    body: Body = sent.body()
    streams = sent.path.endswith("-stream")
    check("ConverseStream" if streams else "Converse", body)
    turns = body.get("messages") or []
    if not turns:
        refuse("A conversation must start with a user message. Try again with a conversation that starts with a user "
               "message.", "messages")  # fmt: skip
    texts: list[str] = []
    marks: list[int] = []
    for block in body.get("system") or []:
        _add(block, texts, marks)
    _turns(turns, texts, marks)
    config = body.get("inferenceConfig") or {}
    extra = body.get("additionalModelRequestFields") or {}
    thinking = extra.get("thinking") or {} if isinstance(extra, dict) else {}
    form = ((body.get("outputConfig") or {}).get("textFormat") or {}).get("structure") or {}
    schema = _schema(form)
    wanted = Wanted(
        model=sent.names["model"],
        prompt="".join(texts),
        most=config.get("maxTokens"),
        streams=streams,
        tools=_tools(body),
        schema=schema,
        stop=config.get("stopSequences") or (),
        reasoning=MOST_THOUGHT if thinking.get("type") in {"enabled", "adaptive"} else 0,
        marks=marks,
    )
    return Job(wanted, lambda answer: _whole(answer, body), lambda answer: _stream(answer, body), stream_media=MEDIA)


def _schema(form: Body) -> Mapping[str, Any] | None:
    if not form:
        return None
    try:
        schema = orjson.loads(form["jsonSchema"]["schema"])
    except orjson.JSONDecodeError:
        refuse("The value at outputConfig.textFormat.structure.jsonSchema.schema is not valid JSON.", "outputConfig")
    return dict(schema)


def _add(block: Body, texts: list[str], marks: list[int]) -> None:
    if "cachePoint" in block:
        marks.append(sum(map(len, texts)))
        return
    content = (block.get("toolResult") or {}).get("content") or []
    texts.append(
        str(block.get("text", "")) + "".join(str(each.get("text") or each.get("json") or "") for each in content)
    )


def _turns(turns: list[Body], texts: list[str], marks: list[int]) -> None:
    if turns[0]["role"] != "user":
        refuse("A conversation must start with a user message. Try again with a conversation that starts with a user "
               "message.", "messages")  # fmt: skip
    open_calls: set[str] = set()
    for index, turn in enumerate(turns):
        if index and turns[index - 1]["role"] == turn["role"]:
            refuse("A conversation must alternate between user and assistant roles. Make sure the conversation "
                   "alternates between user and assistant roles and try again.", f"messages.{index}.role")  # fmt: skip
        if not turn["content"]:
            refuse(f"The content field in the Message object at messages.{index} is empty. Add a ContentBlock object "
                   "to the content field and try again.", f"messages.{index}.content")  # fmt: skip
        answered = {block["toolResult"]["toolUseId"] for block in turn["content"] if "toolResult" in block}
        if turn["role"] == "user":
            if missing := sorted(open_calls - answered):
                refuse(f"Expected toolResult blocks at messages.{index}.content for the following Ids: "
                       f"{', '.join(missing)}", f"messages.{index}.content")  # fmt: skip
            if answered - open_calls:
                refuse("The number of toolResult blocks at messages."
                       f"{index}.content exceeds the number of toolUse blocks of previous turn.",
                       f"messages.{index}.content")  # fmt: skip
            open_calls = set()
        for number, block in enumerate(turn["content"]):
            _block(block, f"messages.{index}.content.{number}")
            if "toolUse" in block:
                open_calls.add(block["toolUse"]["toolUseId"])
            _add(block, texts, marks)


def _block(block: Body, where: str) -> None:
    if "text" in block and not block["text"].strip():
        refuse(f"The text field in the ContentBlock object at {where} is blank. Add text to the text field, and try "
               "again.", where)  # fmt: skip
    thought = (block.get("reasoningContent") or {}).get("reasoningText")
    if thought is not None and not samples.is_signed(thought["text"], thought.get("signature")):
        refuse(f"{where}: Invalid `signature` in `thinking` block", where)


def _tools(body: Body) -> Tools:
    config = body.get("toolConfig") or {}
    specs = [tool["toolSpec"] for tool in config.get("tools") or [] if "toolSpec" in tool]
    offered = {spec["name"]: (spec.get("inputSchema") or {}).get("json") or {} for spec in specs}
    turns = body.get("messages") or [{"content": []}]
    uses = any("toolUse" in block or "toolResult" in block for turn in turns for block in turn["content"])
    if uses and not config:
        refuse("The toolConfig field must be defined when using toolUse and toolResult content blocks.", "toolConfig")
    choice = config.get("toolChoice") or {"auto": {}}
    if "any" in choice:
        return Tools(offered, tuple(offered))
    if "tool" in choice:
        if choice["tool"]["name"] not in offered:
            refuse(
                f"The tool {choice['tool']['name']} of toolChoice is not in toolConfig.tools.", "toolConfig.toolChoice"
            )
        return Tools(offered, (choice["tool"]["name"],), parallel=False)
    last = turns[-1]["content"]
    asked = (
        "" if any("toolResult" in block for block in last) else "".join(str(block.get("text", "")) for block in last)
    )
    return Tools(offered, asked_in=asked)


def _content(answer: Answer) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    if answer.thought:
        signed = {"text": answer.thought, "signature": samples.signature(answer.thought)}
        content.append({"reasoningContent": {"reasoningText": signed}})
    if answer.calls:
        content += [
            {"toolUse": {"toolUseId": f"tooluse_{call.identity}", "name": call.name, "input": call.arguments}}
            for call in answer.calls
        ]
    else:
        refuses = answer.ending in {Ending.REFUSAL, Ending.FILTERED}
        content.append({"text": REFUSAL if refuses else answer.text})
    return content


def _usage(answer: Answer) -> dict[str, int]:
    plan, told = answer.plan, answer.output_tokens
    fresh = max(0, answer.prompt_tokens - plan.cached - plan.written)
    return {"inputTokens": fresh, "outputTokens": told, "totalTokens": answer.prompt_tokens + told,
            "cacheReadInputTokens": plan.cached, "cacheWriteInputTokens": plan.written}  # fmt: skip


def _more(body: Body) -> dict[str, Any]:
    tier = body.get("serviceTier")
    return {"metrics": {"latencyMs": 1}, **({"serviceTier": tier} if tier else {})}


def _whole(answer: Answer, body: Body) -> dict[str, Any]:
    told = {"message": {"role": "assistant", "content": _content(answer)}}
    return {"output": told, "stopReason": STOPS[answer.ending], "usage": _usage(answer), **_more(body)}


def _stream(answer: Answer, body: Body) -> Iterator[bytes]:
    def event(kind: str, **fields: object) -> bytes:
        headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
        # The real service pads its events with `p`, so that their lengths do not tell what they hold.
        return message(headers, orjson.dumps({**fields, "p": "abcdefghijkl"}))

    yield event("messageStart", role="assistant")
    for index, block in enumerate(_content(answer)):
        if "toolUse" in block:
            use = block["toolUse"]
            start = {"toolUse": {"toolUseId": use["toolUseId"], "name": use["name"]}}
            yield event("contentBlockStart", contentBlockIndex=index, start=start)
        for delta in _deltas(answer, block):
            yield event("contentBlockDelta", contentBlockIndex=index, delta=delta)
        yield event("contentBlockStop", contentBlockIndex=index)
    yield event("messageStop", stopReason=STOPS[answer.ending])
    yield event("metadata", usage=_usage(answer), **_more(body))


def _deltas(answer: Answer, block: Body) -> Iterator[dict[str, Any]]:
    if "text" in block:
        for piece in answer.pieces(block["text"]):
            yield {"text": piece}
    elif "reasoningContent" in block:
        thought = block["reasoningContent"]["reasoningText"]
        for piece in answer.pieces(thought["text"]):
            yield {"reasoningContent": {"text": piece}}
        yield {"reasoningContent": {"signature": thought["signature"]}}
    else:
        raw = orjson.dumps(block["toolUse"]["input"]).decode()
        for piece in samples.pieces(raw, 4):
            yield {"toolUse": {"input": piece}}


TITAN: Final[Mapping[str, Shape]] = {
    "inputText": text(1, 50_000),
    "dimensions": one_of(256, 512, 1024),
    "normalize": boolean,
    "embeddingTypes": listed(one_of("float", "binary"), 1),
}
TITAN_FIRST: Final[Mapping[str, Shape]] = {"inputText": text(1, 50_000)}
COHERE: Final = {
    **EMBED,
    "texts": listed(text(1, 2048), 1, 128),
    "truncate": one_of("NONE", "START", "END", "LEFT", "RIGHT"),
}
"""The same as Cohere's own, but the model stands in the path."""
COHERE_SAID: Final = {name: shape for name, shape in COHERE.items() if name not in {"model", "priority"}}


def invoke(sent: Sent) -> Job:
    """Check the body of a model that is called in its own words: here those that embed."""
    body, model = sent.body(), sent.names["model"]
    if "titan-embed-text" in model:
        return _titan(body, model)
    if "cohere.embed" in model:
        return _cohere(body, model)
    raise Refused("The simulator invokes Titan and Cohere embeddings only; other models are served by Converse.")


def _titan(body: Body, model: str) -> Job:
    second = "v2" in model
    struct(TITAN if second else TITAN_FIRST, "inputText")(body, ())
    wanted = Wanted(model, body["inputText"], generates=False)

    def whole(answer: Answer) -> dict[str, Any]:
        numbers = samples.vector(body.get("dimensions") or (1024 if second else 1536))
        told: dict[str, Any] = {"embedding": numbers, "inputTextTokenCount": answer.prompt_tokens}
        if second:
            made = {"float": numbers, "binary": [int(value > 0.5) for value in numbers]}  # noqa: PLR2004 - a half
            told["embeddingsByType"] = {kind: made[kind] for kind in body.get("embeddingTypes") or ["float"]}
        return told

    return Job(wanted, whole, headers=_counted)


def _cohere(body: Body, model: str) -> Job:
    struct(COHERE_SAID, "input_type")(body, ())
    if sum(bool(body.get(name)) for name in ("texts", "images", "inputs")) != 1:
        refuse("Malformed input request: exactly one of texts, images or inputs is required", "texts")
    items = body.get("texts") or body.get("images") or body.get("inputs") or []
    wanted = Wanted(model, "".join(map(str, items)), generates=False)
    kinds = body.get("embedding_types")

    def whole(answer: Answer) -> dict[str, Any]:
        made = embedded(len(items), body.get("output_dimension") or 8, kinds or ["float"])
        told: dict[str, Any] = {"id": answer.plan.identity, "texts": body.get("texts") or [],
                                "response_type": "embeddings_by_type" if kinds else "embeddings_floats"}  # fmt: skip
        return {**told, "embeddings": made if kinds else made["float"]}

    return Job(wanted, whole, headers=_counted)


def _counted(answer: Answer) -> dict[str, str]:
    """Tell the tokens in headers: InvokeModel's bodies are the models' own, and not all of them count."""
    return {
        "x-amzn-bedrock-input-token-count": str(answer.prompt_tokens),
        "x-amzn-bedrock-output-token-count": "0",
        "x-amzn-bedrock-invocation-latency": "1",
    }


ROUTES: Final = (
    route(BEDROCK, "/model/{model}/converse", authorize, converse),
    route(BEDROCK, "/model/{model}/converse-stream", authorize, converse),
    route(BEDROCK, "/model/{model}/invoke", authorize, invoke),
)
