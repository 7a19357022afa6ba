"""OpenAI's chat completions and embeddings, simulated. Sources: platform.openai.com/docs/api-reference."""

import struct
import time
import uuid
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from broker.simulate import samples
from broker.simulate.api import Body, Refused, Wanted, between, need, only, refuse
from broker.simulate.behaviour import tokens_of

CHAT: Final = frozenset(
    {
        "model", "messages", "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs",
        "max_completion_tokens", "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls", "prediction",
        "presence_penalty", "prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "response_format",
        "safety_identifier", "seed", "service_tier", "stop", "store", "stream", "stream_options", "temperature",
        "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity", "web_search_options",
    }
)  # fmt: skip
EMBEDDINGS: Final = frozenset({"model", "input", "dimensions", "encoding_format", "user"})
ROLES: Final = frozenset({"developer", "system", "user", "assistant", "tool", "function"})
NUMBERS: Final = 8
"""Numbers of an embedding whose request says nothing of it."""


def authorized(headers: Mapping[str, str]) -> None:
    """Refuse a call without a key."""
    if not headers.get("authorization", "").startswith("Bearer "):
        raise Refused(401, "You didn't provide an API key.", "invalid_api_key")


def chat(body: Body) -> Wanted:
    """Check a chat request and say what it wants."""
    only(body, CHAT)
    model, messages = need(body, "model", str), need(body, "messages", list)
    if not messages:
        refuse("messages: at least one message is expected", "messages")
    for name, low, high in (("temperature", 0, 2), ("top_p", 0, 1), ("presence_penalty", -2, 2),
                            ("frequency_penalty", -2, 2), ("n", 1, 128), ("top_logprobs", 0, 20)):  # fmt: skip
        between(body, name, low, high)
    prompt, calls = [], set[str]()
    for index, message in enumerate(messages):
        prompt.append(_message(message, f"messages[{index}].", calls))
    most = body.get("max_completion_tokens", body.get("max_tokens"))
    if most is not None and (not isinstance(most, int) or most < 1):
        refuse("max_completion_tokens: a positive integer is expected", "max_completion_tokens")
    return Wanted(model, "".join(prompt), most, body.get("stream") is True, _forced(body), _schema(body))


def _message(message: object, where: str, calls: set[str]) -> str:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        refuse(f"{where}role: a known role is expected", f"{where}role")
    content = message.get("content")
    if message["role"] == "tool" and need(message, "tool_call_id", str, where) not in calls:
        refuse("messages with role 'tool' must be a response to a preceding message with 'tool_calls'", f"{where}role")
    for call in message.get("tool_calls") or []:
        function = need(call, "function", dict, where)
        calls.add(need(call, "id", str, where))
        try:
            orjson.loads(need(function, "arguments", str, where))
        except orjson.JSONDecodeError:
            refuse(f"{where}tool_calls: the arguments are not JSON", f"{where}tool_calls")
    if isinstance(content, str):
        return content
    if content is None:
        if message["role"] != "assistant":
            refuse(f"{where}content: expected a string or an array", f"{where}content")
        return ""
    if not isinstance(content, list) or not all(isinstance(part, dict) and "type" in part for part in content):
        refuse(f"{where}content: expected a string or an array of parts", f"{where}content")
    return "".join(str(part.get("text", "")) for part in content)


def _forced(body: Body) -> tuple[str, Mapping[str, Any]] | None:
    tools = body.get("tools") or []
    offered = {
        need(need(tool, "function", dict, "tools."), "name", str, "tools.function."): tool["function"] for tool in tools
    }
    choice = body.get("tool_choice")
    if choice in {None, "auto", "none"} if isinstance(choice, str | None) else False:
        return None
    name = choice["function"]["name"] if isinstance(choice, dict) else next(iter(offered), None)
    if name not in offered:
        refuse(f"tool_choice: no function is named {name}", "tool_choice")
    return str(name), offered[name].get("parameters") or {}


def _schema(body: Body) -> Mapping[str, Any] | None:
    wanted = body.get("response_format")
    if wanted is None or wanted.get("type") == "text":
        return None
    if wanted.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    schema = need(need(wanted, "json_schema", dict, "response_format."), "schema", dict, "response_format.json_schema.")
    return dict(schema)


def completion(wanted: Wanted, output: int) -> dict[str, Any]:
    """Return an answer of `output` tokens."""
    message: dict[str, Any] = {"role": "assistant", "content": said(wanted, output), "refusal": None}
    finish = "length" if wanted.most is not None and wanted.most < output else "stop"
    if wanted.tool is not None:
        arguments = orjson.dumps(samples.fitting(wanted.tool[1])).decode()
        call = {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function"}
        message |= {
            "content": None,
            "tool_calls": [{**call, "function": {"name": wanted.tool[0], "arguments": arguments}}],
        }
        finish = "tool_calls"
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return {**_head(wanted, "chat.completion"), "choices": [choice], "usage": _usage(wanted, output)}


def said(wanted: Wanted, output: int) -> str:
    """Return the text of an answer: what fits the schema, or so many tokens."""
    if wanted.schema is not None:
        return orjson.dumps(samples.fitting(wanted.schema)).decode()
    return samples.text(min(output, wanted.most or output))


def _head(wanted: Wanted, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": wanted.model}


def _usage(wanted: Wanted, output: int) -> dict[str, Any]:
    prompt, told = tokens_of(wanted.prompt), min(output, wanted.most or output)
    return {"prompt_tokens": prompt, "completion_tokens": told, "total_tokens": prompt + told}


def stream(wanted: Wanted, output: int) -> Iterator[bytes]:
    """Yield the events of a streamed answer."""
    whole = completion(wanted, output)
    head = {**_head(wanted, "chat.completion.chunk"), "id": whole["id"]}
    message, finish = whole["choices"][0]["message"], whole["choices"][0]["finish_reason"]

    def event(delta: Mapping[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return b"data: %s\n\n" % orjson.dumps({**head, "choices": [choice]})

    yield event({"role": "assistant", "content": "" if message["content"] is not None else None})
    for call in message.get("tool_calls", []):
        yield event({"tool_calls": [{"index": 0, **call, "function": {**call["function"], "arguments": ""}}]})
        for piece in samples.pieces(call["function"]["arguments"], 4):
            yield event({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    for piece in samples.pieces(message["content"] or "", output):
        yield event({"content": piece})
    yield event({}, finish)
    if wanted.more.get("usage"):
        yield b"data: %s\n\n" % orjson.dumps({**head, "choices": [], "usage": whole["usage"]})
    yield b"data: [DONE]\n\n"


def embedding(body: Body) -> tuple[Wanted, dict[str, Any]]:
    """Check an embeddings request and answer it."""
    only(body, EMBEDDINGS)
    model, given = need(body, "model", str), body.get("input")
    inputs = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    if not all(isinstance(each, str | list) and each for each in inputs):
        refuse("input: a text, texts or tokens are expected", "input")
    count = body.get("dimensions") or NUMBERS
    values: Any = [round(1 / (place + 1), 6) for place in range(count)]
    if body.get("encoding_format") == "base64":
        values = b64encode(struct.pack(f"<{count}f", *values)).decode()
    wanted = Wanted(model, "".join(str(each) for each in inputs), texts=len(inputs))
    tokens = tokens_of(wanted.prompt)
    data = [{"object": "embedding", "index": index, "embedding": values} for index in range(len(inputs))]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return wanted, {"object": "list", "data": data, "model": model, "usage": usage}


def failure(refused: Refused) -> dict[str, Any]:
    """Return the body of an error."""
    code = {429: "rate_limit_exceeded", 401: "invalid_api_key"}.get(refused.status)
    told = {"message": refused.message, "type": refused.kind, "param": refused.param, "code": code}
    return {"error": told}
