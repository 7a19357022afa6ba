"""What Anthropic's Messages take.

Sources: platform.claude.com/docs/en/api/messages and the types of the `anthropic`
package (`types/*_param.py`), against which a test holds the names.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from broker.simulate.shapes import (
    FILLED,
    TEXT,
    Place,
    Shape,
    Wrong,
    anything,
    base64_text,
    boolean,
    either,
    integer,
    listed,
    mapping,
    number,
    one_of,
    struct,
    tagged,
    text,
)

IDENTITY: Final = re.compile(r"[a-zA-Z0-9_-]+")
NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
MOST_MARKERS: Final = 4
PICTURES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")


def _matching(pattern: re.Pattern[str], told: str) -> Shape:
    def check(value: object, place: Place) -> None:
        TEXT(value, place)
        if not pattern.fullmatch(str(value)):
            raise Wrong("form", place, f"String should match pattern '^{told}$'")

    return check


identity = _matching(IDENTITY, "[a-zA-Z0-9_-]+")
name = _matching(NAME, "[a-zA-Z0-9_-]{1,128}")
MARK: Final = struct({"type": one_of("ephemeral"), "ttl": one_of("5m", "1h")}, "type")
URL: Final = struct({"type": TEXT, "url": FILLED}, "url")
FILE: Final = struct({"type": TEXT, "file_id": FILLED}, "file_id")
IMAGE: Final = struct(
    {
        "type": TEXT,
        "source": tagged(
            "type",
            {
                "base64": struct(
                    {"type": TEXT, "media_type": one_of(*PICTURES), "data": base64_text}, "media_type", "data"
                ),
                "url": URL,
                "file": FILE,
            },
        ),
        "cache_control": MARK,
        "transformations": mapping,
    },
    "source",
)
TEXT_BLOCK: Final = struct({"type": TEXT, "text": FILLED, "cache_control": MARK, "citations": listed(mapping)}, "text")
CITATIONS: Final = struct({"enabled": boolean})
INLINE: Final = either(TEXT, listed(tagged("type", {"text": TEXT_BLOCK, "image": IMAGE}), least=1))
DOCUMENT: Final = struct(
    {
        "type": TEXT,
        "source": tagged(
            "type",
            {
                "base64": struct(
                    {"type": TEXT, "media_type": one_of("application/pdf"), "data": base64_text}, "media_type", "data"
                ),
                "text": struct({"type": TEXT, "media_type": one_of("text/plain"), "data": TEXT}, "media_type", "data"),
                "content": struct({"type": TEXT, "content": INLINE}, "content"),
                "url": URL,
                "file": FILE,
            },
        ),
        "cache_control": MARK,
        "citations": CITATIONS,
        "context": TEXT,
        "title": TEXT,
    },
    "source",
)
SEARCH: Final = struct(
    {"type": TEXT, "content": listed(tagged("type", {"text": TEXT_BLOCK}), least=1), "source": TEXT, "title": TEXT,
     "cache_control": MARK, "citations": CITATIONS},
    *("content", "source", "title"),
)  # fmt: skip
RESULT: Final = struct(
    {
        "type": TEXT,
        "tool_use_id": identity,
        "cache_control": MARK,
        "content": either(
            TEXT,
            listed(tagged("type", {"text": TEXT_BLOCK, "image": IMAGE, "document": DOCUMENT, "search_result": SEARCH})),
        ),
        "is_error": boolean,
        "toolset_name": TEXT,
    },
    "tool_use_id",
)
USE: Final = struct(
    {"type": TEXT, "id": identity, "name": name, "input": mapping, "cache_control": MARK, "caller": mapping,
     "toolset_name": TEXT},
    *("id", "name", "input"),
)  # fmt: skip
BLOCKS: Final[Mapping[str, Mapping[str, Shape]]] = {
    "user": {"text": TEXT_BLOCK, "image": IMAGE, "document": DOCUMENT, "tool_result": RESULT, "search_result": SEARCH},
    "assistant": {
        "text": TEXT_BLOCK,
        "tool_use": USE,
        "thinking": struct({"type": TEXT, "thinking": TEXT, "signature": TEXT}, "signature", "thinking"),
        "redacted_thinking": struct({"type": TEXT, "data": TEXT}, "data"),
    },
}
MESSAGE: Final = tagged(
    "role",
    {
        role: struct({"role": TEXT, "content": either(FILLED, listed(tagged("type", blocks), least=1))}, "content")
        for role, blocks in BLOCKS.items()
    },
)
SCHEMA: Final = mapping
OWN_TOOL: Final = struct(
    {
        "type": one_of("custom"), "name": name, "description": TEXT, "input_schema": SCHEMA, "cache_control": MARK,
        "strict": boolean, "defer_loading": boolean, "allowed_callers": listed(TEXT), "eager_input_streaming": boolean,
        "input_examples": listed(mapping),
    },
    *("name", "input_schema"),
)  # fmt: skip
SERVED: Final = re.compile(
    r"(?:web_search|web_fetch|bash|text_editor|code_execution|memory|computer|tool_search_tool)_.*"
)


def tool(value: object, place: Place) -> None:
    """Take a tool of the caller's, or one that the provider runs itself (`web_search_20250305` and so on)."""
    mapping(value, place)
    told: Any = value
    if not SERVED.fullmatch(str(told.get("type") or "custom")):
        OWN_TOOL(value, place)
        kind = told["input_schema"].get("type")
        if kind != "object":
            raise Wrong("value", (*place, "input_schema", "type"), ("object",), kind)


CHOICE: Final = tagged(
    "type",
    {
        "auto": struct({"type": TEXT, "disable_parallel_tool_use": boolean}),
        "any": struct({"type": TEXT, "disable_parallel_tool_use": boolean}),
        "tool": struct({"type": TEXT, "name": TEXT, "disable_parallel_tool_use": boolean}, "name"),
        "none": struct({"type": TEXT}),
    },
)
DISPLAY: Final = one_of("summarized", "omitted")
THINKING: Final = tagged(
    "type",
    {
        "enabled": struct({"type": TEXT, "budget_tokens": integer(1024), "display": DISPLAY}, "budget_tokens"),
        "adaptive": struct({"type": TEXT, "display": DISPLAY}),
        "disabled": struct({"type": TEXT}),
    },
)
OUTPUT: Final = struct(
    {
        "effort": one_of("low", "medium", "high", "xhigh", "max"),
        "format": struct({"type": one_of("json_schema"), "schema": mapping}, "type", "schema"),
    }
)
MESSAGES: Final[Mapping[str, Shape]] = {
    "model": text(1, 256),
    "messages": listed(MESSAGE, 1, 100_000),
    "max_tokens": integer(1),
    "cache_control": MARK,
    "container": anything,
    "diagnostics": mapping,
    "inference_geo": TEXT,
    "metadata": struct({"user_id": text(0, 256)}),
    "output_config": OUTPUT,
    "service_tier": one_of("auto", "standard_only"),
    "speed": one_of("standard", "fast"),
    "stop_sequences": listed(FILLED, most=8191),
    "stream": boolean,
    "system": either(TEXT, listed(tagged("type", {"text": TEXT_BLOCK}))),
    "temperature": number(0, 1),
    "thinking": THINKING,
    "tool_choice": CHOICE,
    "tools": listed(tool),
    "top_k": integer(0),
    "top_p": number(0, 1),
    "user_profile_id": TEXT,
    "workspace_id": TEXT,
}
"""Field → what it may be."""
REQUEST: Final = struct(MESSAGES, "model", "messages", "max_tokens")
