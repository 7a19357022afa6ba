"""Converse's messages: an OpenAI conversation as system blocks and alternating turns. Pure.

docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and the service model of botocore.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from workers.providers.catalog import ResolvedDeployment
from workers.providers.conversation import SYSTEM, bad, calls, messages, only_text, parts, text_of
from workers.providers.dialect import cannot_take
from workers.providers.dialects.bedrock_media import Names, block_of
from workers.providers.dialects.bedrock_models import Model

Block = dict[str, Any]

_TOOL_ID: Final = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_TTLS: Final = frozenset({"5m", "1h"})
_QUALIFIERS: Final = frozenset({"grounding_source", "query", "guard_content"})


def conversation(target: ResolvedDeployment, model: Model, body: Mapping[str, Any]) -> tuple[list[Block], list[Block]]:
    """Return the system blocks and the turns. Turns of one role that follow each other become one.

    Results of tools go first in their turn, which Claude insists on; a cache point stays behind its block.
    """
    system: list[Block] = []
    turns: list[tuple[str, list[list[Block]]]] = []
    names = Names()
    for index, message in enumerate(messages(body)):
        param, role = f"messages[{index}]", message["role"]
        if role in SYSTEM:
            for group in _system(model, message, param):
                system += group
            continue
        if role == "user":
            groups = _content(target, model, names, message, param)
        elif role == "assistant":
            groups = _assistant(target, model, message, param)
        elif role in {"tool", "function"}:
            groups = [_result(target, model, names, message, param)]
        else:
            bad(f"{param}.role", f"no role is named {role}")
        _add(turns, "assistant" if role == "assistant" else "user", groups)
    if not turns:
        bad("messages", "a message of the user is needed beside the system's")
    return system, [{"role": role, "content": _ordered(groups)} for role, groups in turns]


def _add(turns: list[tuple[str, list[list[Block]]]], role: str, groups: list[list[Block]]) -> None:
    if not groups:
        return
    if turns and turns[-1][0] == role:
        turns[-1][1].extend(groups)
    else:
        turns.append((role, list(groups)))


def _ordered(groups: list[list[Block]]) -> list[Block]:
    return [block for group in sorted(groups, key=lambda group: "toolResult" not in group[0]) for block in group]


def cache_point(model: Model, *sources: object) -> list[Block]:
    """Return the block that asks for a cache up to here, where one of the sources has a marker and the model caches.

    A marker is a hint; a model that does not cache is asked without it.
    """
    for source in sources:
        marker = source.get("cache_control") if isinstance(source, dict) else None
        if isinstance(marker, dict) and model.caches:
            point = {"type": "default"}
            ttl = marker.get("ttl")
            if model.keeps and isinstance(ttl, str) and ttl in _TTLS:
                point["ttl"] = ttl
            return [{"cachePoint": point}]
    return []


def _last_marked(model: Model, groups: list[list[Block]], message: Mapping[str, Any]) -> list[list[Block]]:
    """Apply a marker of the message itself to its last block, unless that has one."""
    if groups and "cachePoint" not in groups[-1][-1]:
        groups[-1] += cache_point(model, message)
    return groups


def _system(model: Model, message: Mapping[str, Any], param: str) -> list[list[Block]]:
    groups = []
    for index, part in enumerate(parts(message.get("content"), f"{param}.content")):
        place = f"{param}.content[{index}]"
        if part["type"] == "guarded_text":
            groups.append([_guarded(part, place), *cache_point(model, part)])
        elif (text := only_text(part, place)).strip():
            groups.append([{"text": text}, *cache_point(model, part)])
    return _last_marked(model, groups, message)


def _content(
    target: ResolvedDeployment, model: Model, names: Names, message: Mapping[str, Any], param: str
) -> list[list[Block]]:
    groups = []
    for index, part in enumerate(parts(message.get("content"), f"{param}.content")):
        block = _part(target, names, part, f"{param}.content[{index}]")
        if block is not None:
            groups.append([block, *cache_point(model, part)])
    return _last_marked(model, groups, message)


def _part(target: ResolvedDeployment, names: Names, part: Mapping[str, Any], param: str) -> Block | None:
    kind = part["type"]
    if kind in {"text", "input_text"}:
        text = text_of(part, param)
        return {"text": text} if text.strip() else None  # a blank block is refused
    if kind == "guarded_text":
        return _guarded(part, param)
    if kind in {"image_url", "video_url", "input_audio", "file"}:
        return block_of(target, part, param, names)
    cannot_take(target, param, f"Bedrock takes no part of type {kind}")
    return None


def _guarded(part: Mapping[str, Any], param: str) -> Block:
    """Return a text that the guardrail alone is to look at (`guarded_text`, as LiteLLM's users write it)."""
    guarded: Block = {"text": text_of(part, param)}
    qualifiers = part.get("qualifiers")
    if qualifiers is not None:
        if not isinstance(qualifiers, list) or not all(
            isinstance(each, str) and each in _QUALIFIERS for each in qualifiers
        ):
            bad(f"{param}.qualifiers", f"a list of {', '.join(sorted(_QUALIFIERS))} is needed")
        guarded["qualifiers"] = qualifiers
    return {"guardContent": {"text": guarded}}


def _assistant(target: ResolvedDeployment, model: Model, message: Mapping[str, Any], param: str) -> list[list[Block]]:
    groups = [[block] for block in _thoughts(model, message, param)]
    for index, part in enumerate(parts(message.get("content"), f"{param}.content")):
        place = f"{param}.content[{index}]"
        if part["type"] not in {"text", "refusal", "input_text"}:
            cannot_take(target, place, f"Bedrock takes no part of type {part['type']} from the assistant")
        elif (text := text_of(part, place)).strip():
            groups.append([{"text": text}, *cache_point(model, part)])
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal.strip():
        groups.append([{"text": refusal}])
    for call in calls(message, param):
        use = {"toolUseId": tool_id(call.id), "name": call.name, "input": dict(call.arguments)}
        groups.append([{"toolUse": use}, *cache_point(model, call.raw)])
    return _last_marked(model, groups, message)


def _thoughts(model: Model, message: Mapping[str, Any], param: str) -> list[Block]:
    """Return the thinking blocks as they came, first in their turn, where the model takes them back.

    Claude refuses thoughts without the signature that it gave them: those of another provider are left out.
    """
    found = message.get("thinking_blocks")
    if found is None:
        return []
    if not isinstance(found, list):
        bad(f"{param}.thinking_blocks", "a list of thinking and redacted_thinking blocks is needed")
    blocks = [_thought(model, each, f"{param}.thinking_blocks[{index}]") for index, each in enumerate(found)]
    return [block for block in blocks if block is not None]


def _thought(model: Model, block: object, param: str) -> Block | None:
    kind = block.get("type") if isinstance(block, dict) else None
    if isinstance(block, dict) and kind == "thinking" and isinstance(block.get("thinking"), str):
        text: Block = {"text": block["thinking"]}
        signature = block.get("signature")
        if isinstance(signature, str) and signature:
            text["signature"] = signature
        elif model.family == "anthropic":
            return None
        return {"reasoningContent": {"reasoningText": text}} if model.thoughts else None
    if isinstance(block, dict) and kind == "redacted_thinking" and isinstance(block.get("data"), str):
        return {"reasoningContent": {"redactedContent": block["data"]}} if model.thoughts else None
    return bad(param, "a thinking or a redacted_thinking block is needed")


def _result(
    target: ResolvedDeployment, model: Model, names: Names, message: Mapping[str, Any], param: str
) -> list[Block]:
    identity = message.get("tool_call_id")
    if not isinstance(identity, str) or not identity:
        bad(f"{param}.tool_call_id", "the id of the call is needed")
    content = message.get("content")
    inner = [
        block
        for index, part in enumerate(parts(content, f"{param}.content"))
        if (block := _part(target, names, part, f"{param}.content[{index}]")) is not None
    ]
    if any(block.keys() & {"guardContent", "audio"} for block in inner):
        bad(f"{param}.content", "a tool's result is text, images, documents and videos")
    # A blank text is refused, and nothing at all is no result: it is an empty object.
    result = {"toolUseId": tool_id(identity), "content": inner or [{"json": {}}]}
    marks = content if isinstance(content, list) else []
    return [{"toolResult": result}, *cache_point(model, message, *reversed(marks))]


def tool_id(identity: str) -> str:
    """Return a call's id as Converse takes it; one of another provider that does not fit becomes one that does."""
    if _TOOL_ID.fullmatch(identity):
        return identity
    return "call_" + hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]
