"""Functions as OpenAI's bodies had them before tools: `functions` and `function_call`, written as tools and read back.

platform.openai.com/docs/api-reference/chat (deprecated parameters). Pure.
"""

from collections.abc import Mapping
from typing import Any, Final

from workers.providers.conversation import bad

OLD: Final = ("functions", "function_call")


def is_legacy(body: Mapping[str, Any]) -> bool:
    """Whether the caller expects `function_call` in the answer."""
    return bool(body.get("functions"))


def modern(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body with tools in place of functions, in its messages too; the same one where it has none.

    A call had no id: a result follows its call, and names it. One call at a time was all there was.
    """
    messages = body.get("messages")
    if isinstance(messages, list) and any(
        isinstance(each, dict) and (each.get("role") == "function" or each.get("function_call")) for each in messages
    ):
        body = {**body, "messages": _messages(messages)}
    if not any(body.get(name) is not None for name in OLD):
        return body
    out = {name: value for name, value in body.items() if name not in OLD}
    functions, choice = body.get("functions"), body.get("function_call")
    if functions is not None:
        if not isinstance(functions, list):
            bad("functions", "a list is needed")
        out.setdefault("tools", [{"type": "function", "function": each} for each in functions])
    if choice is not None:
        named = isinstance(choice, dict)
        out.setdefault("tool_choice", {"type": "function", "function": choice} if named else choice)
    return out


def _messages(messages: list[Any]) -> list[Any]:
    out: list[Any] = []
    last: dict[str, str] = {}
    """Function → the id made up for its last call."""
    for index, message in enumerate(messages):
        call = message.get("function_call") if isinstance(message, dict) else None
        if isinstance(call, dict) and not message.get("tool_calls"):
            identity = last[str(call.get("name"))] = f"call_{index}"
            kept = {field: value for field, value in message.items() if field != "function_call"}
            out.append({**kept, "tool_calls": [{"id": identity, "type": "function", "function": call}]})
        elif isinstance(message, dict) and message.get("role") == "function" and str(message.get("name")) in last:
            identity = last[str(message["name"])]
            out.append({"role": "tool", "tool_call_id": identity, "content": message.get("content")})
        else:
            out.append(message)
    return out


def as_function_call(told: dict[str, Any]) -> dict[str, Any]:
    """Return a message or a delta with its first tool call as a `function_call`; others are left out."""
    calls = told.get("tool_calls")
    if not calls:
        return told
    kept = {name: value for name, value in told.items() if name != "tool_calls"}
    first = next((call for call in calls if call.get("index", 0) == 0), None)
    return kept if first is None else {**kept, "function_call": first["function"]}


def finish(reason: str | None) -> str | None:
    """Return the finish reason of an answer that calls a function the old way."""
    return "function_call" if reason == "tool_calls" else reason
