"""Tools and structured answers as Converse takes them. Pure.

docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolConfiguration.html, …/userguide/structured-output.html.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from broker.errors import InvalidRequest
from workers.providers.catalog import ResolvedDeployment
from workers.providers.conversation import Choice, Format, bad, calls, messages, permitted, response_format, tool_choice
from workers.providers.dialect import cannot_take
from workers.providers.dialects.bedrock_answer import ANSWER_TOOL
from workers.providers.dialects.bedrock_messages import cache_point
from workers.providers.dialects.bedrock_models import Model

Block = dict[str, Any]

_TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_GROUNDING: Final = {"systemTool": {"name": "nova_grounding"}}
"""Nova's own search of the web: docs.aws.amazon.com/nova/latest/userguide/grounding.html."""
_EARLIER: Final = "A tool that was called earlier in this conversation."
_SAID: Final = "Give the answer with this tool: its input is the answer, as JSON, with every field the answer needs."


def forced_format(model: Model, body: Mapping[str, Any]) -> Format | None:
    """Return the structured output that a forced tool has to stand in for; None where the API has its own way."""
    asked = response_format(body)
    return None if asked is None or (asked.schema is not None and model.structured) else asked


def text_format(model: Model, body: Mapping[str, Any]) -> Block | None:
    """Return `outputConfig.textFormat` where the model takes the schema that is asked for."""
    asked = response_format(body)
    if asked is None or asked.schema is None or not model.structured:
        return None
    definition = {"schema": _json(closed(asked.schema)), "name": asked.name}
    return {"type": "json_schema", "structure": {"jsonSchema": definition}}


def _json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:
        raise InvalidRequest(
            f"response_format: it cannot be written as JSON: {error}", param="response_format"
        ) from None


def closed(schema: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return a schema whose objects say that they have no other properties, which structured outputs insist on."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: value if name in {"enum", "const", "default"} else closed(value) for name, value in schema.items()}
    if found.get("type") == "object" or (isinstance(schema.get("properties"), dict) and "type" not in found):
        found.setdefault("additionalProperties", False)
    return found


def tool_config(
    target: ResolvedDeployment, model: Model, asked: Mapping[str, Any], *, uses: bool
) -> tuple[Block | None, Block]:
    """Return `toolConfig`, and Claude's own fields of a tool choice; None and nothing where no tool is needed.

    `uses` says whether the conversation has calls or results in it: Converse then insists on tools, so that a caller's
    `none` can only leave them out where there are none. Claude since 4.5 is told `none` in its own words.
    """
    choice, forced = tool_choice(asked), forced_format(model, asked)
    offered = list(_offered(model, asked))
    if choice is not None and choice.kind == "none" and not uses:
        offered = []
    closed_to_tools = choice is not None and choice.kind == "none"
    if not offered and uses:
        offered = _used(asked)
        closed_to_tools = forced is None
    if asked.get("web_search_options") is not None:
        if model.name.startswith("amazon.nova"):
            offered.append(_GROUNDING)
        else:
            cannot_take(target, "web_search_options", "on Bedrock only Nova searches the web")
    if forced is not None:
        return _forced(model, forced, offered, choice), {}
    if not offered:
        _one_at_a_time(target, model, asked)
        return None, {}
    config: Block = {"tools": offered}
    if closed_to_tools:
        return config, {"tool_choice": {"type": "none"}} if model.choosy else {}
    _choose(model, config, choice)
    own: Block = {}
    if _one_at_a_time(target, model, asked):
        own = {
            "tool_choice": {**({} if "toolChoice" in config else {"type": "auto"}), "disable_parallel_tool_use": True}
        }
    return config, own


def _one_at_a_time(target: ResolvedDeployment, model: Model, asked: Mapping[str, Any]) -> bool:
    parallel = asked.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        bad("parallel_tool_calls", "true or false is needed")
    if parallel is not False or not asked.get("tools"):
        return False
    if not model.choosy:
        cannot_take(target, "parallel_tool_calls", "on Bedrock only Claude since 4.5 can be held to one call at a time")
    return model.choosy


def _choose(model: Model, config: Block, choice: Choice | None) -> None:
    """Add the choice. Left to the model it is the API's own default, which not every model lets one say."""
    if choice is None or choice.kind == "auto":
        return
    if choice.kind == "required":
        config["toolChoice"] = {"any": {}}
        return
    if model.names_tool:
        config["toolChoice"] = {"tool": {"name": choice.name}}
    else:
        # It has to call one, and this is the only one.
        config.update(tools=[tool for tool in config["tools"] if _is(tool, choice.name)], toolChoice={"any": {}})


def _is(tool: Block, name: str) -> bool:
    return bool(tool.get("toolSpec", {}).get("name") == name)


def _forced(model: Model, asked: Format, offered: list[Block], choice: Choice | None) -> Block:
    """Return the tools with the one that stands in for the answer; it is the only one where no other may be called."""
    schema = dict(asked.schema) if asked.schema is not None else {"type": "object", "additionalProperties": True}
    spec = {"name": ANSWER_TOOL, "description": _SAID, "inputSchema": {"json": schema}}
    alone = not offered or (choice is not None and choice.kind == "none")
    every = [*offered, {"toolSpec": spec}]
    if alone and model.names_tool:
        return {"tools": every, "toolChoice": {"tool": {"name": ANSWER_TOOL}}}
    return {"tools": [{"toolSpec": spec}] if alone else every, "toolChoice": {"any": {}}}


def _offered(model: Model, asked: Mapping[str, Any]) -> Iterator[Block]:
    for index, tool in enumerate(permitted(asked)):
        param = f"tools[{index}].function"
        if not _TOOL_NAME.fullmatch(tool.name):
            bad(f"{param}.name", "up to 64 letters, digits, _ and - are needed")
        schema = {"type": "object", **tool.parameters} if tool.parameters.get("type") is None else tool.parameters
        spec: Block = {"name": tool.name, "inputSchema": {"json": dict(schema)}}
        if tool.description:
            spec["description"] = tool.description
        if tool.strict and model.structured:
            spec["strict"] = True
            spec["inputSchema"] = {"json": closed(schema)}
        yield {"toolSpec": spec}
        yield from cache_point(model, tool.raw, tool.raw["function"])


def _used(asked: Mapping[str, Any]) -> list[Block]:
    """Return the tools that the conversation speaks of, where the caller no longer offers any."""
    names: dict[str, None] = {}
    for index, message in enumerate(messages(asked)):
        if message["role"] == "assistant":
            names.update((call.name, None) for call in calls(message, f"messages[{index}]"))
    schema = {"json": {"type": "object"}}
    return [
        {"toolSpec": {"name": name, "description": _EARLIER, "inputSchema": schema}}
        for name in names or {"earlier_tool": None}
    ]
