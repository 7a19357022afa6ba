"""Gemini's contents: an OpenAI conversation as turns of parts, and the functions it may call. Pure.

ai.google.dev/api/generate-content and ai.google.dev/api/caching (Content, Part, Tool, FunctionCallingConfig).
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from workers.providers.catalog import ResolvedDeployment
from workers.providers.conversation import (
    SYSTEM,
    bad,
    calls,
    joined,
    media,
    messages,
    parts,
    text_of,
    tool_choice,
    tools,
)
from workers.providers.dialect import cannot_take

Part = dict[str, Any]

WITHOUT_IDS: Final = ("gemini-1", "gemini-2", "gemma")
"""Beginnings of models that refuse the id of a call: LiteLLM's finding, on AI Studio and Vertex alike."""


def contents(target: ResolvedDeployment, body: Mapping[str, Any]) -> tuple[list[Part], list[dict[str, Any]]]:
    """Return the parts of the system instruction, and the turns; those of one role in a row become one."""
    system: list[Part] = []
    turns: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    ids = not target.deployment.model.startswith(WITHOUT_IDS)
    for index, message in enumerate(messages(body)):
        param, role = f"messages[{index}]", message["role"]
        if role in SYSTEM:
            text = joined(message.get("content"), f"{param}.content")
            system += [{"text": text}] if text else []
        elif role == "user":
            _add(turns, "user", _content(target, message, param))
        elif role == "assistant":
            names |= {call.id: call.name for call in calls(message, param)}
            _add(turns, "model", _model(message, param, ids=ids))
        elif role in {"tool", "function"}:
            _add(turns, "user", [_result(message, param, names, ids=ids)])
        else:
            bad(f"{param}.role", f"no role is named {role}")
    if not turns:
        bad("messages", "a message of the user is needed beside the system's")
    return system, turns


def _add(turns: list[dict[str, Any]], role: str, found: list[Part]) -> None:
    if not found:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1]["parts"] += found
    else:
        turns.append({"role": role, "parts": found})


def _content(target: ResolvedDeployment, message: Mapping[str, Any], param: str) -> list[Part]:
    found: list[Part] = []
    for index, part in enumerate(parts(message.get("content"), f"{param}.content")):
        place = f"{param}.content[{index}]"
        if part["type"] == "text":
            found.append({"text": text_of(part, place)})
        elif part["type"] in {"image_url", "input_audio", "file"}:
            held = media(part, place)
            if held.url:
                cannot_take(target, f"{place}.image_url.url", "Gemini takes the bytes of an image, as a data URL")
            else:
                found.append({"inlineData": {"mimeType": held.media_type, "data": held.data}})
        else:
            cannot_take(target, place, f"Gemini takes no part of type {part['type']}")
    return found


def _signature(source: Mapping[str, Any]) -> object:
    """Return the thought signature that Google's OpenAI endpoint and LiteLLM put beside a call or a message."""
    extra, fields = source.get("extra_content"), source.get("provider_specific_fields")
    google = extra.get("google") if isinstance(extra, dict) else None
    told = google.get("thought_signature") if isinstance(google, dict) else None
    return told or (fields.get("thought_signature") if isinstance(fields, dict) else None)


def _signed(part: Part, source: Mapping[str, Any]) -> Part:
    signature = _signature(source)
    return {**part, "thoughtSignature": signature} if isinstance(signature, str) else part


def _model(message: Mapping[str, Any], param: str, *, ids: bool) -> list[Part]:
    text = joined(message.get("content"), f"{param}.content")
    found = [_signed({"text": text}, message)] if text else []
    for call in calls(message, param):
        function = {**({"id": call.id} if ids else {}), "name": call.name, "args": dict(call.arguments)}
        found.append(_signed({"functionCall": function}, call.raw))
    return found


def _result(message: Mapping[str, Any], param: str, names: Mapping[str, str], *, ids: bool) -> Part:
    identity = message.get("tool_call_id")
    if not isinstance(identity, str) or identity not in names:
        bad(f"{param}.tool_call_id", "the id of a call that stands before it is needed")
    text = joined(message.get("content"), f"{param}.content")
    try:
        told = orjson.loads(text)
    except orjson.JSONDecodeError:
        told = text
    response = told if isinstance(told, dict) else {"result": told}
    known = {"id": identity} if ids else {}
    return {"functionResponse": {**known, "name": names[identity], "response": response}}


def offered(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the functions the model may call, as the one tool that declares them."""
    declared = []
    for tool in tools(body):
        function: dict[str, Any] = {"name": tool.name, "parametersJsonSchema": dict(tool.parameters)}
        if tool.description:
            function["description"] = tool.description
        declared.append(function)
    return [{"functionDeclarations": declared}] if declared else []


def choice(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the calling mode; None where it is left to the API's default."""
    asked = tool_choice(body)
    if asked is None or not body.get("tools"):
        return None
    modes = {"auto": "AUTO", "none": "NONE", "required": "ANY", "function": "ANY"}
    config: dict[str, Any] = {"mode": modes[asked.kind]}
    if asked.kind == "function":
        config["allowedFunctionNames"] = [asked.name]
    return {"functionCallingConfig": config}
