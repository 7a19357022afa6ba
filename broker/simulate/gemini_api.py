"""Gemini's generateContent and batchEmbedContents, simulated. Sources: ai.google.dev/api."""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from broker.simulate import samples
from broker.simulate.api import Body, Refused, Wanted, between, need, only, refuse
from broker.simulate.behaviour import tokens_of

KNOWN: Final = frozenset(
    {"contents", "systemInstruction", "tools", "toolConfig", "safetySettings", "generationConfig", "cachedContent"}
)
CONFIG: Final = frozenset(
    {
        "temperature", "topP", "topK", "maxOutputTokens", "stopSequences", "candidateCount", "seed", "presencePenalty",
        "frequencyPenalty", "responseLogprobs", "logprobs", "responseMimeType", "responseSchema", "responseJsonSchema",
        "thinkingConfig", "responseModalities", "speechConfig", "mediaResolution", "enableEnhancedCivicAnswers",
    }
)  # fmt: skip
PARTS: Final = frozenset({"text", "inlineData", "fileData", "functionCall", "functionResponse"})
STATUSES: Final = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
                   429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE",
                   504: "DEADLINE_EXCEEDED"}  # fmt: skip


def authorized(headers: Mapping[str, str]) -> None:
    """Refuse a call without a key."""
    if not headers.get("x-goog-api-key"):
        raise Refused(403, "Method doesn't allow unregistered callers.", STATUSES[403])


def generate(body: Body, model: str) -> Wanted:
    """Check a request and say what it wants."""
    only(body, KNOWN)
    turns, config = need(body, "contents", list), body.get("generationConfig") or {}
    only(config, CONFIG, "generationConfig.")
    between(config, "temperature", 0, 2)
    between(config, "topP", 0, 1)
    if not turns:
        refuse("contents is not specified", "contents")
    prompt = [_parts(body["systemInstruction"], "systemInstruction.")] if body.get("systemInstruction") else []
    for index, turn in enumerate(turns):
        where = f"contents[{index}]."
        if not isinstance(turn, dict) or turn.get("role") not in {"user", "model"}:
            refuse(f"{where}role: Please use a valid role: user, model.", f"{where}role")
        prompt.append(_parts(turn, where))
    schema = config.get("responseJsonSchema") or config.get("responseSchema")
    if schema is not None and config.get("responseMimeType") != "application/json":
        refuse("generationConfig.responseMimeType: application/json is needed beside a schema")
    most = config.get("maxOutputTokens")
    return Wanted(model, "".join(prompt), most, tool=_forced(body), schema=schema)


def _parts(content: object, where: str) -> str:
    parts = need(content if isinstance(content, dict) else {}, "parts", list, where)
    for index, part in enumerate(parts):
        if not isinstance(part, dict) or len(part.keys() & PARTS) != 1:
            refuse(f"{where}parts[{index}].data: exactly one field of data is required", f"{where}parts[{index}]")
        if "functionResponse" in part:
            need(part["functionResponse"], "response", dict, f"{where}parts[{index}].functionResponse.")
    return "".join(str(part.get("text", "")) for part in parts)


def _forced(body: Body) -> tuple[str, Mapping[str, Any]] | None:
    offered: dict[str, Mapping[str, Any]] = {}
    for tool in body.get("tools") or []:
        for function in tool.get("functionDeclarations") or []:
            name = need(function, "name", str, "tools.functionDeclarations.")
            offered[name] = function.get("parametersJsonSchema") or function.get("parameters") or {}
    config = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    if config.get("mode") != "ANY":
        return None
    name = next(iter(config.get("allowedFunctionNames") or offered), None)
    if name not in offered:
        refuse("toolConfig: allowedFunctionNames names no declared function", "toolConfig")
    return name, offered[name]


def answer(wanted: Wanted, output: int) -> dict[str, Any]:
    """Return an answer of `output` tokens."""
    told = min(output, wanted.most or output)
    parts: list[dict[str, Any]] = [{"text": samples.text(told)}]
    if wanted.schema is not None:
        parts = [{"text": orjson.dumps(samples.fitting(wanted.schema)).decode()}]
    if wanted.tool is not None:
        name, schema = wanted.tool
        parts = [{"functionCall": {"name": name, "args": samples.fitting({"type": "object", **schema})}}]
    return _whole(wanted, parts, told, "MAX_TOKENS" if told < output else "STOP", f"r{uuid.uuid4().hex[:16]}")


def _whole(wanted: Wanted, parts: list[dict[str, Any]], told: int, finish: str | None, identity: str) -> dict[str, Any]:
    prompt = tokens_of(wanted.prompt)
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    usage = {"promptTokenCount": prompt, "candidatesTokenCount": told, "totalTokenCount": prompt + told}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": wanted.model, "responseId": identity}


def stream(wanted: Wanted, output: int) -> Iterator[bytes]:
    """Yield the events of a streamed answer."""
    whole = answer(wanted, output)
    parts, finish = whole["candidates"][0]["content"]["parts"], whole["candidates"][0]["finishReason"]
    cut = [
        [{"text": piece}] for part in parts for piece in samples.pieces(part.get("text", ""), output) if "text" in part
    ] or [parts]
    for number, some in enumerate(cut, 1):
        told = min(number, whole["usageMetadata"]["candidatesTokenCount"])
        last = number == len(cut)
        event = _whole(wanted, some, told, finish if last else None, whole["responseId"])
        yield b"data: %s\r\n\r\n" % orjson.dumps({**event, "usageMetadata": whole["usageMetadata"]} if last else event)


def embeddings(body: Body, model: str) -> tuple[Wanted, dict[str, Any]]:
    """Check a batch of embeddings and answer it."""
    requests = need(body, "requests", list)
    texts = [_parts(need(each, "content", dict, "requests."), "requests.content.") for each in requests]
    count = (requests[0].get("outputDimensionality") if requests else None) or 8
    values = [round(1 / (place + 1), 6) for place in range(count)]
    return Wanted(model, "".join(texts), texts=len(texts)), {"embeddings": [{"values": values} for _ in texts]}


def failure(refused: Refused, wait: float = 0.0) -> dict[str, Any]:
    """Return the body of an error; a limit tells in its details when to come back."""
    told: dict[str, Any] = {"code": refused.status, "message": refused.message,
                            "status": STATUSES.get(refused.status, "UNKNOWN")}  # fmt: skip
    if wait > 0:
        info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{max(1, round(wait))}s"}
        told["details"] = [info]
    return {"error": told}
