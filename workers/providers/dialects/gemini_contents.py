"""Gemini's contents: an OpenAI conversation as turns of parts, and the functions it may call. Pure.

ai.google.dev/api/generate-content and ai.google.dev/api/caching (Content, Part, Tool, FunctionCallingConfig).
"""

import mimetypes
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from workers.providers.catalog import ResolvedDeployment
from workers.providers.conversation import (
    MEDIA,
    SYSTEM,
    Media,
    bad,
    calls,
    joined,
    media,
    messages,
    parts,
    said,
    text_of,
    tool_choice,
    tools,
)
from workers.providers.dialect import cannot_take
from workers.providers.dialects.gemini_models import signs_calls

Part = dict[str, Any]

UNSIGNED: Final = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
"""`skip_thought_signature_validator`: for a call that another model made (ai.google.dev/…/thought-signatures, FAQ)."""
NATIVE: Final = frozenset(
    {"googleSearch", "googleSearchRetrieval", "googleMaps", "codeExecution", "urlContext", "fileSearch", "computerUse"}
    | {"functionDeclarations", "enterpriseWebSearch", "mcpServers", "retrieval"}
)
"""Kinds of Google's own tools, which pass as they are."""


def contents(target: ResolvedDeployment, body: Mapping[str, Any]) -> tuple[list[Part], list[dict[str, Any]]]:
    """Return the parts of the system instruction, and the turns; those of one role in a row become one."""
    system: list[Part] = []
    turns: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for index, message in enumerate(messages(body)):
        param, role = f"messages[{index}]", message["role"]
        if role in SYSTEM:
            text = joined(message.get("content"), f"{param}.content")
            system += [{"text": text}] if text else []
        elif role == "user":
            _add(turns, "user", _content(target, message, param))
        elif role == "assistant":
            names |= {call.id: call.name for call in calls(message, param)}
            _add(turns, "model", _model(target, message, param))
        elif role in {"tool", "function"}:
            _add(turns, "user", [_result(target, message, param, names)])
        else:
            bad(f"{param}.role", f"no role is named {role}")
    if not turns:
        bad("messages", "a message of the user is needed beside the system's")
    return system, turns


def _add(turns: list[dict[str, Any]], role: str, found: list[Part]) -> None:
    if not found:
        return
    # Results of calls are a turn of their own, with as many parts as there were calls.
    alike = turns and ("functionResponse" in turns[-1]["parts"][-1]) == ("functionResponse" in found[0])
    if alike and turns[-1]["role"] == role:
        turns[-1]["parts"] += found
    else:
        turns.append({"role": role, "parts": found})


def _content(target: ResolvedDeployment, message: Mapping[str, Any], param: str) -> list[Part]:
    found: list[Part] = []
    for index, part in enumerate(parts(message.get("content"), f"{param}.content")):
        place = f"{param}.content[{index}]"
        if part["type"] in {"text", "refusal"}:
            text = text_of(part, place)
            found += [{"text": text}] if text else []
        elif part["type"] in MEDIA:
            found.append(_medium(target, media(part, place, elsewhere=True)))
        else:
            cannot_take(target, place, f"Gemini takes no part of type {part['type']}")
    return found


def _medium(target: ResolvedDeployment, held: Media) -> Part:
    """Return the bytes, or where Gemini finds them: https URLs it fetches itself, files it keeps go by their URI."""
    if not held.url and not held.file_id:
        return {"inlineData": {"mimeType": held.media_type, "data": held.data}}
    uri = held.url or held.file_id
    if uri.startswith("files/"):
        uri = f"{target.base_url}/{uri}"
    kind = held.media_type or mimetypes.guess_type(urlsplit(uri).path)[0]
    return {"fileData": {"fileUri": uri, **({"mimeType": kind} if kind else {})}}


def _signature(source: Mapping[str, Any]) -> object:
    """Return the thought signature that Google's OpenAI endpoint and LiteLLM put beside a call or a message."""
    extra, fields = source.get("extra_content"), source.get("provider_specific_fields")
    google = extra.get("google") if isinstance(extra, dict) else None
    told = google.get("thought_signature") if isinstance(google, dict) else None
    return told or (fields.get("thought_signature") if isinstance(fields, dict) else None)


def _signed(part: Part, source: Mapping[str, Any]) -> Part:
    signature = _signature(source)
    return {**part, "thoughtSignature": signature} if isinstance(signature, str) else part


def _known(target: ResolvedDeployment, identity: str) -> dict[str, str]:
    """Return the field of a call's id, which models before Gemini 3 refuse: LiteLLM's finding, on both of its APIs."""
    return {"id": identity} if signs_calls(target.deployment.model) else {}


def _model(target: ResolvedDeployment, message: Mapping[str, Any], param: str) -> list[Part]:
    text = "".join(text for text, _ in said(message, param))
    text_part = _signed({"text": text}, message)
    # A signature can come with no text; it is given back as it came.
    found = [text_part] if text or len(text_part) > 1 else []
    found += _images(message, param)
    for index, call in enumerate(calls(message, param)):
        function = {**_known(target, call.id), "name": call.name, "args": dict(call.arguments)}
        part = _signed({"functionCall": function}, call.raw)
        if index == 0 and signs_calls(target.deployment.model):
            part.setdefault("thoughtSignature", UNSIGNED)
        found.append(part)
    return found


def _images(message: Mapping[str, Any], param: str) -> list[Part]:
    """Return the images that the model made, which a later turn may speak of."""
    listed = message.get("images")
    found = []
    for index, image in enumerate(listed if isinstance(listed, list) else []):
        place = f"{param}.images[{index}]"
        if not isinstance(image, dict) or image.get("type") != "image_url":
            bad(place, "a part of type image_url is needed")
        held = media(image, place)
        if held.data:
            found.append(_signed({"inlineData": {"mimeType": held.media_type, "data": held.data}}, image))
    return found


def _result(target: ResolvedDeployment, message: Mapping[str, Any], param: str, names: Mapping[str, str]) -> Part:
    identity = message.get("tool_call_id")
    if not isinstance(identity, str) or identity not in names:
        bad(f"{param}.tool_call_id", "the id of a call that stands before it is needed")
    told = parts(message.get("content"), f"{param}.content")
    files = [
        _medium(target, media(part, f"{param}.content[{index}]", elsewhere=True))
        for index, part in enumerate(told)
        if part["type"] in MEDIA
    ]
    if files and not signs_calls(target.deployment.model):
        cannot_take(target, f"{param}.content", f"{target.deployment.model} takes no files in the result of a function")
        files = []
    text = joined([part for part in told if part["type"] not in MEDIA], f"{param}.content")
    result: Part = {**_known(target, identity), "name": names[identity], "response": _response(text, message)}
    return {"functionResponse": {**result, "parts": files} if files else result}


def _response(text: str, message: Mapping[str, Any]) -> dict[str, Any]:
    try:
        told = orjson.loads(text)
    except orjson.JSONDecodeError:
        told = text
    if message.get("is_error") is True:
        return {"error": told}
    return told if isinstance(told, dict) else {"result": told}


def offered(target: ResolvedDeployment, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the functions the model may call, as the one tool that declares them, and Google's own tools."""
    listed = body.get("tools")
    native = [tool for tool in listed if _is_native(tool)] if isinstance(listed, list) else []
    rest = {**body, "tools": [tool for tool in listed if not _is_native(tool)]} if native and listed else body
    declared = []
    for tool in tools(rest):
        function: dict[str, Any] = {"name": tool.name, "parametersJsonSchema": dict(tool.parameters)}
        if tool.description:
            function["description"] = tool.description
        declared.append(function)
    search = _search(target, body)
    return [*([{"functionDeclarations": declared}] if declared else []), *native, *search]


def _is_native(tool: object) -> bool:
    return isinstance(tool, dict) and "function" not in tool and bool(NATIVE & tool.keys())


def _search(target: ResolvedDeployment, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return Google's search where `web_search_options` ask for one; how much it reads it decides itself."""
    asked = body.get("web_search_options")
    if asked is None:
        return []
    if not isinstance(asked, dict):
        bad("web_search_options", "an object is needed")
    for name in asked.keys() - {"search_context_size"}:
        cannot_take(target, f"web_search_options.{name}", "Google's search takes no such option")
    return [{"googleSearch": {}}]


def choice(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the calling mode; None where it is left to the API's default."""
    asked = tool_choice(body)
    if asked is None or not body.get("tools"):
        return None
    modes = {"auto": "VALIDATED" if asked.allowed else "AUTO", "none": "NONE", "required": "ANY", "function": "ANY"}
    config: dict[str, Any] = {"mode": modes[asked.kind]}
    names = [asked.name] if asked.kind == "function" else list(asked.allowed)
    return {"functionCallingConfig": {**config, "allowedFunctionNames": names} if names else config}
