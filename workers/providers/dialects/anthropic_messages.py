"""Anthropic's messages: an OpenAI conversation as system blocks and alternating turns, and their tools. Pure.

platform.claude.com/docs/en/api/messages, and the request types of the official SDK (`MessageCreateParams`).
"""

import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final

from workers.providers.catalog import ResolvedDeployment
from workers.providers.conversation import (
    SYSTEM,
    Media,
    bad,
    calls,
    media,
    messages,
    parts,
    permitted,
    said,
    text_of,
    texts,
    tool_choice,
)
from workers.providers.dialect import cannot_take

Block = dict[str, Any]
IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
"""Image types that a base64 source may have."""
_TEXTS: Final = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})
"""Texts beside those of `text/…`."""
_NATIVE: Final = re.compile(r"_20\d{6}$")
"""Types of Anthropic's own tools end with a date."""
_SEARCHES: Final = {"low": 1, "medium": 5, "high": 10}
"""`max_uses` by `search_context_size`: the numbers LiteLLM's users know."""
_PLACE: Final = ("city", "region", "country", "timezone")


def conversation(target: ResolvedDeployment, body: Mapping[str, Any]) -> tuple[list[Block], list[Block]]:
    """Return the system blocks and the turns. Turns of one role that follow each other become one."""
    system: list[Block] = []
    turns: list[Block] = []
    for index, message in enumerate(messages(body)):
        param = f"messages[{index}]"
        role = message["role"]
        if role in SYSTEM:
            system += _texts(message, param)
        elif role == "user":
            _add(turns, "user", _content(target, message, param))
        elif role == "assistant":
            _add(turns, "assistant", _assistant(message, param))
        elif role in {"tool", "function"}:
            _add(turns, "user", [_result(target, message, param)])
        else:
            bad(f"{param}.role", f"no role is named {role}")
    for turn in turns:
        if turn["role"] == "user":
            # Results of tools have to stand before everything else of their turn.
            turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    if not turns:
        bad("messages", "a message of the user is needed beside the system's")
    last = turns[-1]["content"][-1]
    if turns[-1]["role"] == "assistant" and last["type"] == "text":
        last["text"] = last["text"].rstrip()  # a beginning of the answer that ends with white space is refused
    return system, turns


def _add(turns: list[Block], role: str, blocks: list[Block]) -> None:
    if not blocks:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": blocks})


def _marked(block: Block, source: Mapping[str, Any]) -> Block:
    """Keep the marker that asks for a cache up to here."""
    marker = source.get("cache_control")
    return {**block, "cache_control": marker} if isinstance(marker, dict) else block


def _texts(message: Mapping[str, Any], param: str) -> list[Block]:
    blocks = []
    for text, part in texts(message, param):
        if text.strip():  # a blank block is refused
            blocks.append(_marked({"type": "text", "text": text}, part))
    return _last_marked(blocks, message)


def _last_marked(blocks: list[Block], message: Mapping[str, Any]) -> list[Block]:
    """Apply a marker of the message itself to its last block."""
    if blocks and isinstance(message.get("cache_control"), dict):
        blocks[-1] = _marked(blocks[-1], message)
    return blocks


def _content(target: ResolvedDeployment, message: Mapping[str, Any], param: str) -> list[Block]:
    blocks = []
    for index, part in enumerate(parts(message.get("content"), f"{param}.content")):
        block = _part(target, part, f"{param}.content[{index}]")
        if block is not None:
            blocks.append(_marked(block, part))
    return _last_marked(blocks, message)


def _part(target: ResolvedDeployment, part: Mapping[str, Any], param: str) -> Block | None:
    kind = part["type"]
    if kind == "text":
        text = text_of(part, param)
        return {"type": "text", "text": text} if text.strip() else None  # a blank block is refused
    if kind in {"image_url", "file"}:
        found = media(part, param, elsewhere=True)
        if kind == "image_url" or found.media_type.startswith("image/"):
            return {"type": "image", "source": _image(found, param)}
        return _document(found, part, param)
    cannot_take(target, param, f"Anthropic takes no part of type {kind}")
    return None


def _image(found: Media, param: str) -> Block:
    if found.url:
        return {"type": "url", "url": found.url}
    if found.file_id:
        return {"type": "file", "file_id": found.file_id}
    if found.media_type not in IMAGES:
        bad(f"{param}.image_url.url", f"Anthropic takes JPEG, PNG, GIF and WebP, not {found.media_type}")
    return {"type": "base64", "media_type": found.media_type, "data": found.data}


def _document(found: Media, part: Mapping[str, Any], param: str) -> Block:
    block: Block = {"type": "document", "source": _source(found, param)}
    if found.name:
        block["title"] = found.name
    # What Anthropic knows of a document beside its bytes goes by its own names.
    return {**block, **{name: part[name] for name in ("citations", "context") if part.get(name) is not None}}


def _source(found: Media, param: str) -> Block:
    if found.url:
        return {"type": "url", "url": found.url}
    if found.file_id:
        return {"type": "file", "file_id": found.file_id}
    if found.media_type == "application/pdf":
        return {"type": "base64", "media_type": found.media_type, "data": found.data}
    if not found.media_type.startswith("text/") and found.media_type not in _TEXTS:
        bad(f"{param}.file", f"Anthropic takes PDF files, texts and images, not {found.media_type}")
    try:
        return {"type": "text", "media_type": "text/plain", "data": b64decode(found.data).decode()}
    except UnicodeDecodeError:
        bad(f"{param}.file", "the text is not in UTF-8")


def _assistant(message: Mapping[str, Any], param: str) -> list[Block]:
    blocks = _thoughts(message, param)
    for text, part in said(message, param):
        if text.strip():
            blocks.append(_marked({"type": "text", "text": text}, part))
    for call in calls(message, param):
        block = {"type": "tool_use", "id": _identity(call.id), "name": call.name, "input": dict(call.arguments)}
        blocks.append(_marked(block, call.raw))
    return _last_marked(blocks, message)


def _identity(identity: str) -> str:
    """Return the id of a call as the API takes it: another provider may have made it of other characters."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", identity)


def _thoughts(message: Mapping[str, Any], param: str) -> list[Block]:
    """Return the thinking blocks as they came, signatures included: they go first, or the turn is refused.

    Thoughts without a signature are those of another provider, and left out: the API takes none but its own.
    """
    found = message.get("thinking_blocks")
    if found is None:
        return []
    if not isinstance(found, list) or not all(
        isinstance(block, dict) and block.get("type") in {"thinking", "redacted_thinking"} for block in found
    ):
        bad(f"{param}.thinking_blocks", "a list of thinking and redacted_thinking blocks is needed")
    return [
        dict(block)
        for block in found
        if block["type"] == "redacted_thinking" or isinstance(block.get("signature"), str)
    ]


def _result(target: ResolvedDeployment, message: Mapping[str, Any], param: str) -> Block:
    identity = message.get("tool_call_id")
    if not isinstance(identity, str) or not identity:
        bad(f"{param}.tool_call_id", "the id of the call is needed")
    block: Block = {"type": "tool_result", "tool_use_id": _identity(identity)}
    if message.get("is_error") is True:
        block["is_error"] = True
    content = message.get("content")
    if isinstance(content, str):
        if content:
            block["content"] = content
    else:
        inner = [
            found
            for index, part in enumerate(parts(content, f"{param}.content"))
            if (found := _part(target, part, f"{param}.content[{index}]")) is not None
        ]
        if inner:
            block["content"] = inner
    return _marked(block, message)


def offered(body: Mapping[str, Any]) -> list[Block]:
    """Return the tools the model may use, Anthropic's own as they are, without those that `tool_choice` rules out."""
    listed = body.get("tools")
    native = [tool for tool in listed if _is_native(tool)] if isinstance(listed, list) else []
    rest = {**body, "tools": [tool for tool in listed if not _is_native(tool)]} if native and listed else body
    found = []
    for tool in permitted(rest):
        block: Block = {"name": tool.name, "input_schema": _schema(tool.parameters)}
        if tool.description:
            block["description"] = tool.description
        if tool.strict:
            block["strict"] = True
        found.append(_marked(_marked(block, tool.raw), tool.raw["function"]))
    return [*found, *native]


def _is_native(tool: object) -> bool:
    kind = tool.get("type") if isinstance(tool, dict) else None
    return isinstance(kind, str) and bool(_NATIVE.search(kind))


def web_search(target: ResolvedDeployment, body: Mapping[str, Any]) -> Block | None:
    """Return the tool that searches the web, where `web_search_options` ask for it."""
    asked = body.get("web_search_options")
    if asked is None:
        return None
    if not isinstance(asked, dict):
        bad("web_search_options", "an object is needed")
    tool: Block = {"type": "web_search_20250305", "name": "web_search"}
    size, place = asked.get("search_context_size"), asked.get("user_location")
    if isinstance(size, str) and size in _SEARCHES:
        tool["max_uses"] = _SEARCHES[size]
    elif size is not None:
        bad("web_search_options.search_context_size", "low, medium or high is needed")
    if place is not None:
        told = place.get("approximate") if isinstance(place, dict) else None
        if not isinstance(told, dict):
            bad("web_search_options.user_location", "an approximate location is needed")
        known = {name: told[name] for name in _PLACE if isinstance(told.get(name), str)}
        tool["user_location"] = {"type": "approximate", **known}
    for name in asked.keys() - {"search_context_size", "user_location"}:
        cannot_take(target, f"web_search_options.{name}")
    return tool


def _schema(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that says it is of an object, which the API insists on."""
    return {"type": "object", **parameters} if parameters.get("type") in {None, "object"} else dict(parameters)


def choice(body: Mapping[str, Any], *, has_tools: bool) -> Block | None:
    """Return the tool choice; None where it is left to the API's own default."""
    asked = tool_choice(body)
    parallel = body.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        bad("parallel_tool_calls", "true or false is needed")
    if not has_tools:
        return None
    kinds = {"auto": "auto", "none": "none", "required": "any", "function": "tool"}
    found: Block = {"type": kinds[asked.kind] if asked else "auto"}
    if asked and asked.kind == "function":
        found["name"] = asked.name
    if parallel is False and found["type"] != "none":
        found["disable_parallel_tool_use"] = True
    return found if asked or parallel is False else None
