"""Cohere's messages: an OpenAI conversation as theirs, and its tools. Pure.

docs.cohere.com/v2/reference/chat, and the v2 types of the official SDK (`ChatMessages`, `ToolV2`).
"""

from collections.abc import Mapping
from typing import Any, Final

from workers.providers.catalog import ResolvedDeployment
from workers.providers.conversation import (
    SYSTEM,
    Choice,
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
"""Image types that a data URL may have: docs.cohere.com/docs/image-inputs."""
DETAILS: Final = frozenset({"auto", "low", "high"})


def conversation(target: ResolvedDeployment, body: Mapping[str, Any]) -> list[Block]:
    """Return the messages. What the system says is one message and goes first, the only place where it is taken."""
    system: list[Block] = []
    turns: list[Block] = []
    for index, message in enumerate(messages(body)):
        param, role = f"messages[{index}]", message["role"]
        if role in SYSTEM:
            system += _texts(message, param)
        elif role == "user":
            _add(turns, "user", _content(target, message, param))
        elif role == "assistant":
            turns += _assistant(target, message, param)
        elif role == "tool":
            turns.append(_result(target, message, param))
        else:
            bad(f"{param}.role", f"no role is named {role}")
    if not turns:
        bad("messages", "a message of the user is needed beside the system's")
    first: list[Block] = []
    _add(first, "system", system)
    return first + turns


def _add(turns: list[Block], role: str, blocks: list[Block]) -> None:
    """Add a message; one without content is refused by the API, and says nothing."""
    if blocks:
        turns.append({"role": role, "content": _plain(blocks)})


def _plain(blocks: list[Block]) -> str | list[Block]:
    """Return a single text as a text, as the documentation's examples have it."""
    return str(blocks[0]["text"]) if len(blocks) == 1 and blocks[0]["type"] == "text" else blocks


def _texts(message: Mapping[str, Any], param: str) -> list[Block]:
    return [{"type": "text", "text": text} for text, _ in texts(message, param) if text]


def _content(target: ResolvedDeployment, message: Mapping[str, Any], param: str) -> list[Block]:
    blocks = []
    for index, part in enumerate(parts(message.get("content"), f"{param}.content")):
        block = _part(target, part, f"{param}.content[{index}]")
        if block is not None:
            blocks.append(block)
    return blocks


def _part(target: ResolvedDeployment, part: Mapping[str, Any], param: str) -> Block | None:
    kind = part["type"]
    if kind == "text":
        text = text_of(part, param)
        return {"type": "text", "text": text} if text else None
    if kind == "image_url":
        return {"type": "image_url", "image_url": _image(part, param)}
    cannot_take(target, param, f"Cohere takes no part of type {kind}")
    return None


def _image(part: Mapping[str, Any], param: str) -> Block:
    found, value = media(part, param), part["image_url"]
    if found.url:
        image = {"url": found.url}
    elif found.media_type in IMAGES:
        image = {"url": f"data:{found.media_type};base64,{found.data}"}
    else:
        bad(f"{param}.image_url.url", f"Cohere takes JPEG, PNG, GIF and WebP, not {found.media_type}")
    detail = value.get("detail") if isinstance(value, dict) else None
    if detail is not None:
        if not isinstance(detail, str) or detail not in DETAILS:
            bad(f"{param}.image_url.detail", "one of auto, low, high is needed")
        image["detail"] = detail
    return image


def _assistant(target: ResolvedDeployment, message: Mapping[str, Any], param: str) -> list[Block]:
    if message.get("audio") is not None:
        cannot_take(target, f"{param}.audio", "Cohere takes no audio")
    told: Block = {"role": "assistant"}
    blocks = _thoughts(message, param)
    blocks += [{"type": "text", "text": text} for text, _ in said(message, param) if text]
    if blocks:
        told["content"] = _plain(blocks)
    plan = message.get("tool_plan")
    if isinstance(plan, str) and plan:
        told["tool_plan"] = plan
    called = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.raw["function"].get("arguments") or "{}"},
        }
        for call in calls(message, param)
    ]
    if called:
        told["tool_calls"] = called
    return [told] if len(told) > 1 else []


def _thoughts(message: Mapping[str, Any], param: str) -> list[Block]:
    """Return what was thought, which has no signature here; other dialects' signed blocks are thoughts as well."""
    thought = message.get("reasoning_content")
    if thought is not None and not isinstance(thought, str):
        bad(f"{param}.reasoning_content", "a text is needed")
    found: list[object] = [thought]
    if thought is None:
        blocks = message.get("thinking_blocks")
        found = [block.get("thinking") for block in blocks if isinstance(block, dict)] if type(blocks) is list else []
    return [{"type": "thinking", "thinking": each} for each in found if isinstance(each, str) and each]


def _result(target: ResolvedDeployment, message: Mapping[str, Any], param: str) -> Block:
    identity, content = message.get("tool_call_id"), message.get("content")
    if not isinstance(identity, str) or not identity:
        bad(f"{param}.tool_call_id", "the id of the call is needed")
    if isinstance(content, str):
        return {"role": "tool", "tool_call_id": identity, "content": content}
    blocks = []
    for index, part in enumerate(parts(content, f"{param}.content")):
        where = f"{param}.content[{index}]"
        if part["type"] == "document":
            blocks.append({"type": "document", "document": _document(part, where)})
        elif part["type"] == "text":
            blocks.append({"type": "text", "text": text_of(part, where)})
        else:
            cannot_take(target, where, f"Cohere takes no part of type {part['type']} in a tool's result")
    return {"role": "tool", "tool_call_id": identity, "content": blocks or ""}


def _document(part: Mapping[str, Any], param: str) -> Block:
    """Return a document as the API has it: `data` is any object, and an `id` is what citations name."""
    document = part.get("document")
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(data, dict):
        bad(f"{param}.document", "an object with data, an object, is needed")
    identity = document.get("id")
    return {"data": data, "id": identity} if isinstance(identity, str) else {"data": data}


def offered(body: Mapping[str, Any], chosen: Choice | None) -> tuple[list[Block], bool]:
    """Return the tools the model may use, and whether one is strict. A tool chosen by name is offered alone."""
    found = permitted(body)
    if chosen is not None and chosen.kind == "function":
        found = [tool for tool in found if tool.name == chosen.name]
    blocks = []
    for tool in found:
        function: Block = {"name": tool.name, "parameters": dict(tool.parameters)}
        if tool.description:
            function["description"] = tool.description
        blocks.append({"type": "function", "function": function})
    return blocks, any(tool.strict for tool in found)


def choice(body: Mapping[str, Any]) -> Choice | None:
    """Return the tool choice; None where it is left to the API's own default."""
    found = tool_choice(body)
    return None if found is None or found.kind == "auto" else found
