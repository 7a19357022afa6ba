"""Reads an OpenAI chat body piece by piece, for dialects that write it anew. Pure; every fault is an `InvalidRequest`.

Field names and shapes are those of platform.openai.com/docs/api-reference/chat; `param` of an error is the path of the
field, as OpenAI writes it (`messages[2].content[0].image_url`).
"""

import binascii
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn

import orjson

from broker.errors import InvalidRequest

SYSTEM: Final = frozenset({"system", "developer"})


def bad(param: str, what: str) -> NoReturn:
    """Refuse the body for what stands at `param`."""
    raise InvalidRequest(f"{param}: {what}", param=param)


@dataclass(frozen=True, slots=True)
class Media:
    """An image, a sound or a file: `data` is base64, or it stands at `url`, or the provider keeps it as `file_id`.

    `media_type` is empty where nobody says what stands elsewhere.
    """

    media_type: str = ""
    data: str = ""
    url: str = ""
    name: str = ""
    file_id: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call of the assistant; `arguments` are parsed."""

    id: str
    name: str
    arguments: Mapping[str, Any]
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool
    raw: Mapping[str, Any]


def messages(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the conversation, each message an object with a role."""
    found = body.get("messages")
    if not isinstance(found, list) or not found:
        bad("messages", "a list of at least one message is needed")
    for index, message in enumerate(found):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            bad(f"messages[{index}]", "an object with a role is needed")
    return found


def parts(content: object, param: str) -> list[Mapping[str, Any]]:
    """Return a message's content as typed parts; a text is one part, nothing is none."""
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        bad(param, "a text or a list of parts is needed")
    for index, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            bad(f"{param}[{index}]", "an object with a type is needed")
    return content


def text_of(part: Mapping[str, Any], param: str) -> str:
    """Return the text of a text part, or of a refusal."""
    value = part.get("text", part.get("refusal"))
    if not isinstance(value, str):
        bad(f"{param}.text", "a text is needed")
    return value


def joined(content: object, param: str) -> str:
    """Return content that has to be text alone, its parts joined."""
    return "".join(only_text(part, f"{param}[{index}]") for index, part in enumerate(parts(content, param)))


def only_text(part: Mapping[str, Any], param: str) -> str:
    """Return the text of a part that has to be one."""
    if part["type"] not in TEXTS:
        bad(param, f"only text can stand here, not {part['type']}")
    return text_of(part, param)


def texts(message: Mapping[str, Any], param: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each text of a message whose content has to be text alone, with the part it is of."""
    content = message.get("content")
    for index, part in enumerate(parts(content, f"{param}.content")):
        yield only_text(part, f"{param}.content[{index}]"), part


def said(message: Mapping[str, Any], param: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each text of the assistant's message as `texts` does, a refusal that stands beside its content last."""
    yield from texts(message, param)
    refusal = message.get("refusal")
    if isinstance(refusal, str):
        yield refusal, {}
    elif refusal is not None:
        bad(f"{param}.refusal", "a text is needed")


TEXTS: Final = frozenset({"text", "refusal", "input_text"})
"""Types of parts that are text."""
MEDIA: Final = frozenset({"image_url", "input_audio", "file", "audio_url", "video_url"})
"""Types of parts that `media` reads; the last two are those of servers that take sound and film by URL (vLLM)."""


def media(part: Mapping[str, Any], param: str, *, elsewhere: bool = False) -> Media:
    """Return the image, sound or file of a part whose type is one of `MEDIA`.

    `elsewhere`: the provider takes files by URL, and those it keeps by their id; they are refused without.
    """
    kind = part["type"]
    value = part.get(kind)
    if kind.endswith("_url"):
        url = value.get("url") if isinstance(value, dict) else value
        if not isinstance(url, str) or not url:
            bad(f"{param}.{kind}", "an object with a url is needed")
        found = _of_url(url, f"{param}.{kind}.url")
        return found if found.data else replace(found, media_type=_told(value))
    if not isinstance(value, dict):
        bad(f"{param}.{kind}", "an object is needed")
    if kind == "input_audio":
        data, form = value.get("data"), value.get("format")
        if not isinstance(data, str) or not isinstance(form, str):
            bad(f"{param}.input_audio", "data (base64) and format are needed")
        return Media(f"audio/{form}", _base64(data, f"{param}.input_audio.data"))
    return _file(value, param, elsewhere=elsewhere)


def _told(value: object) -> str:
    """Return the media type that a body written for LiteLLM says beside a URL or an id."""
    form = value.get("format") if isinstance(value, dict) else None
    return form if isinstance(form, str) else ""


def _file(value: Mapping[str, Any], param: str, *, elsewhere: bool) -> Media:
    named, data, identity = value.get("filename"), value.get("file_data"), value.get("file_id")
    name = named if isinstance(named, str) else ""
    if elsewhere and isinstance(identity, str) and identity and not data:
        if identity.startswith(("http://", "https://")):
            return Media(_told(value), url=identity, name=name)
        return Media(_told(value), name=name, file_id=identity)
    if not isinstance(data, str) or not data:
        bad(f"{param}.file.file_data", "the file's bytes in base64 are needed; an id is of one provider only")
    if data.startswith("data:") or (elsewhere and data.startswith(("http://", "https://"))):
        found = _of_url(data, f"{param}.file.file_data")
        return replace(found, media_type=found.media_type or _told(value), name=name)
    return Media("application/pdf", _base64(data, f"{param}.file.file_data"), name=name)


def _of_url(url: str, param: str) -> Media:
    if not url.startswith("data:"):
        if not url.startswith(("http://", "https://")):
            bad(param, "an http, https or data URL is needed")
        return Media(url=url)
    head, comma, data = url[len("data:") :].partition(",")
    media_type, *flags = head.split(";")
    if not comma or "base64" not in flags:
        bad(param, "a data URL needs `;base64,` before its data")
    return Media(media_type or "application/octet-stream", _base64(data, param))


def _base64(data: str, param: str) -> str:
    try:
        b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        bad(param, "this is not base64")
    return data


def calls(message: Mapping[str, Any], param: str) -> list[Call]:
    """Return the tool calls of an assistant's message."""
    found = message.get("tool_calls")
    if found is None:
        return []
    if not isinstance(found, list):
        bad(f"{param}.tool_calls", "a list is needed")
    return [_call(each, f"{param}.tool_calls[{index}]") for index, each in enumerate(found)]


def _call(value: object, param: str) -> Call:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(function, dict):
        bad(f"{param}.function", "an object is needed")
    name, raw, identity = function.get("name"), function.get("arguments"), value.get("id")
    if not isinstance(name, str) or not name:
        bad(f"{param}.function.name", "a text is needed")
    if not isinstance(identity, str) or not identity:
        bad(f"{param}.id", "a text is needed")
    if raw is None or raw == "":
        return Call(identity, name, {}, value)
    if not isinstance(raw, str):
        bad(f"{param}.function.arguments", "JSON as text is needed")
    try:
        arguments = orjson.loads(raw)
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        bad(f"{param}.function.arguments", "this is not the JSON of an object")
    return Call(identity, name, arguments, value)


def tools(body: Mapping[str, Any]) -> list[Tool]:
    """Return the functions offered; other kinds of tools are refused."""
    found = body.get("tools")
    if found is None:
        return []
    if not isinstance(found, list):
        bad("tools", "a list is needed")
    return [_tool(each, f"tools[{index}]") for index, each in enumerate(found)]


def _tool(value: object, param: str) -> Tool:
    if not isinstance(value, dict) or value.get("type", "function") != "function":
        bad(f"{param}.type", "only functions can be offered to this provider")
    function = value.get("function")
    if not isinstance(function, dict):
        bad(f"{param}.function", "an object is needed")
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not name:
        bad(f"{param}.function.name", "a text is needed")
    if parameters is not None and not isinstance(parameters, dict):
        bad(f"{param}.function.parameters", "a JSON schema is needed")
    description = function.get("description")
    return Tool(
        name,
        description if isinstance(description, str) else "",
        parameters or {"type": "object", "properties": {}},
        function.get("strict") is True,
        value,
    )


@dataclass(frozen=True, slots=True)
class Choice:
    """What `tool_choice` asks for: `auto`, `none`, `required`, or `function` and its name.

    `allowed` are the names of the only functions that may be called; empty where all may.
    """

    kind: str
    name: str = ""
    allowed: tuple[str, ...] = ()


def tool_choice(body: Mapping[str, Any]) -> Choice | None:
    """Return the tool choice; None where the caller made none. What has to be called has to be offered."""
    found = _tool_choice(body.get("tool_choice"))
    if found is None or (found.kind in {"auto", "none"} and not found.allowed):
        return found
    listed = body.get("tools")
    if not listed and (found.kind == "function" or body.get("web_search_options") is None):
        bad("tool_choice", "it needs tools to choose from")
    offered = {_function_name(tool) or tool.get("name") for tool in listed or () if isinstance(tool, dict)}
    for name in (found.name, *found.allowed) if isinstance(listed, list) else ():
        if name and name not in offered:
            bad("tool_choice", f"no tool is named {name}")
    return found


def _tool_choice(value: object) -> Choice | None:
    if value is None:
        return None
    if value in {"auto", "none", "required"} if isinstance(value, str) else False:
        return Choice(str(value))
    if isinstance(value, dict) and value.get("type") == "allowed_tools":
        return _allowed(value.get("allowed_tools"))
    name = _function_name(value)
    if name is None:
        bad("tool_choice", "auto, none, required or a function by its name is needed")
    return Choice("function", name)


def _function_name(value: object) -> str | None:
    function = value.get("function") if isinstance(value, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) and name else None


def _allowed(value: object) -> Choice:
    mode, listed = (value.get("mode"), value.get("tools")) if isinstance(value, dict) else (None, None)
    names = [_function_name(each) for each in listed] if isinstance(listed, list) else []
    found = tuple(name for name in names if name is not None)
    if mode not in {"auto", "required"} or not found or len(found) != len(names):
        bad("tool_choice.allowed_tools", "a mode of auto or required, and functions by their names are needed")
    return Choice(str(mode), allowed=found)


def permitted(body: Mapping[str, Any]) -> list[Tool]:
    """Return the functions offered that `tool_choice` does not rule out, for APIs that cannot be told which."""
    asked = tool_choice(body)
    return [tool for tool in tools(body) if asked is None or not asked.allowed or tool.name in asked.allowed]


@dataclass(frozen=True, slots=True)
class Format:
    """What `response_format` asks for: any JSON object where `schema` is None."""

    name: str
    schema: Mapping[str, Any] | None
    strict: bool = False


def response_format(body: Mapping[str, Any]) -> Format | None:
    """Return the structured output asked for; None where it is text."""
    value = body.get("response_format")
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return Format("json", None)
    told = value.get("json_schema") if isinstance(value, dict) else None
    if kind != "json_schema" or not isinstance(told, dict) or not isinstance(told.get("schema"), dict):
        bad("response_format", "text, json_object, or json_schema with a schema is needed")
    name = told.get("name")
    return Format(name if isinstance(name, str) else "answer", told["schema"], told.get("strict") is True)


def stops(body: Mapping[str, Any]) -> list[str]:
    """Return the stop sequences."""
    value = body.get("stop")
    if value is None:
        return []
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        bad("stop", "a text or a list of texts is needed")
    return [each for each in found if each]  # an empty one stops nothing


def most_tokens(body: Mapping[str, Any]) -> int | None:
    """Return the bound on the output; `max_completion_tokens` goes before `max_tokens`."""
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is not None:
            if type(value) is not int or value < 1:
                bad(name, "a whole number of at least 1 is needed")
            return value
    return None


def without(body: Mapping[str, Any], known: Sequence[str] | frozenset[str]) -> Iterator[tuple[str, Any]]:
    """Yield the parameters that are not in `known`: a provider's own, which pass through by name."""
    return ((name, value) for name, value in body.items() if name not in known)
