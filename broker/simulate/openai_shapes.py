"""What OpenAI's chat completions take.

Sources: platform.openai.com/docs/api-reference/chat/create and the types of
the `openai` package (`types/chat/*_param.py`), against which a test holds the names.
"""

import re
from collections.abc import Mapping
from typing import Final

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
    texts_by_name,
)

IMAGE_URL: Final = re.compile(r"data:image/(?:png|jpe?g|gif|webp);base64,(?P<data>.*)", re.DOTALL)
NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
TIERS: Final = ("auto", "default", "flex", "scale", "priority", "fast")


def image_url(value: object, place: Place) -> None:
    """Take a web address, or a data URL of a picture whose base64 is good."""
    TEXT(value, place)
    url = str(value)
    if url.startswith("data:"):
        found = IMAGE_URL.fullmatch(url)
        if found is None:
            raise Wrong("form", place, "a base64-encoded image of the formats png, jpeg, gif, webp")
        base64_text(found["data"], place)
    elif not url.startswith(("http://", "https://")):
        raise Wrong("form", place, "a valid URL")


def name(value: object, place: Place) -> None:
    """Take the name of a function."""
    TEXT(value, place)
    if not NAME.fullmatch(str(value)):
        raise Wrong("form", place, "a string that matches the pattern '^[a-zA-Z0-9_-]+$'")


def audio_format(value: object, place: Place) -> None:
    """Take `wav` or `mp3`."""
    one_of("wav", "mp3")(value, place)


BREAK: Final = {"prompt_cache_breakpoint": struct({"mode": one_of("explicit"), "ttl": one_of("30m", "12h")}, "mode")}
TEXT_PART: Final = struct({"type": TEXT, "text": TEXT, **BREAK}, "text")
PARTS: Final[Mapping[str, Shape]] = {
    "text": TEXT_PART,
    "image_url": struct(
        {
            "type": TEXT,
            "image_url": struct({"url": image_url, "detail": one_of("auto", "low", "high", "original")}, "url"),
            **BREAK,
        },
        "image_url",
    ),
    "input_audio": struct(
        {"type": TEXT, "input_audio": struct({"data": base64_text, "format": audio_format}, "data", "format"), **BREAK},
        "input_audio",
    ),
    "file": struct(
        {"type": TEXT, "file": struct({"file_data": TEXT, "file_id": TEXT, "filename": TEXT}), **BREAK}, "file"
    ),
}
TEXTS: Final = either(TEXT, listed(tagged("type", {"text": TEXT_PART}), least=1))
CALL: Final = tagged(
    "type",
    {
        "function": struct(
            {"type": TEXT, "id": TEXT, "function": struct({"name": name, "arguments": TEXT}, "name", "arguments")},
            "id",
            "function",
        ),
        "custom": struct(
            {"type": TEXT, "id": TEXT, "custom": struct({"name": name, "input": TEXT}, "name", "input")}, "id"
        ),
    },
)
REFUSAL_PART: Final = struct({"type": TEXT, "refusal": TEXT}, "refusal")
MESSAGE: Final = tagged(
    "role",
    {
        "system": struct({"role": TEXT, "content": TEXTS, "name": TEXT}, "content"),
        "developer": struct({"role": TEXT, "content": TEXTS, "name": TEXT}, "content"),
        "user": struct(
            {"role": TEXT, "content": either(TEXT, listed(tagged("type", PARTS), least=1)), "name": TEXT}, "content"
        ),
        "assistant": struct(
            {
                "role": TEXT,
                "content": either(TEXT, listed(tagged("type", {"text": TEXT_PART, "refusal": REFUSAL_PART}), least=1)),
                "name": TEXT,
                "refusal": TEXT,
                "tool_calls": listed(CALL, least=1),
                "function_call": struct({"name": name, "arguments": TEXT}, "name", "arguments"),
                "audio": struct({"id": TEXT}, "id"),
                "annotations": listed(mapping),  # of an answer that is sent back as it came
            }
        ),
        "tool": struct({"role": TEXT, "content": TEXTS, "tool_call_id": TEXT}, "content", "tool_call_id"),
        "function": struct({"role": TEXT, "content": TEXT, "name": name}, "name"),
    },
)
FUNCTION: Final = struct({"name": name, "description": TEXT, "parameters": mapping, "strict": boolean}, "name")
TOOL: Final = tagged(
    "type",
    {
        "function": struct({"type": TEXT, "function": FUNCTION}, "function"),
        "custom": struct({"type": TEXT, "custom": mapping}, "custom"),
    },
)
NAMED: Final = struct({"type": TEXT, "function": struct({"name": name}, "name")}, "function")
ALLOWED: Final = struct({"mode": one_of("auto", "required"), "tools": listed(mapping, least=1)}, "mode", "tools")
CHOICE: Final = either(
    one_of("none", "auto", "required"),
    tagged(
        "type",
        {
            "function": NAMED,
            "custom": struct({"type": TEXT, "custom": mapping}, "custom"),
            "allowed_tools": struct({"type": TEXT, "allowed_tools": ALLOWED}, "allowed_tools"),
        },
    ),
)
JSON_SCHEMA: Final = struct({"name": name, "description": TEXT, "schema": mapping, "strict": boolean}, "name", "schema")
FORMAT: Final = tagged(
    "type",
    {
        "text": struct({"type": TEXT}),
        "json_object": struct({"type": TEXT}),
        "json_schema": struct({"type": TEXT, "json_schema": JSON_SCHEMA}, "json_schema"),
    },
)
BIAS: Final = mapping
CHAT: Final[Mapping[str, Shape]] = {
    "model": FILLED,
    "messages": listed(MESSAGE, least=1),
    "audio": struct(
        {"format": one_of("wav", "aac", "mp3", "flac", "opus", "pcm16"), "voice": anything}, "format", "voice"
    ),
    "frequency_penalty": number(-2, 2),
    "function_call": anything,
    "functions": listed(FUNCTION, 1, 128),
    "logit_bias": BIAS,
    "logprobs": boolean,
    "max_completion_tokens": integer(1),
    "max_tokens": integer(1),
    "metadata": texts_by_name,
    "modalities": listed(one_of("text", "audio"), least=1),
    "moderation": mapping,
    "n": integer(1, 128),
    "parallel_tool_calls": boolean,
    "prediction": struct({"type": one_of("content"), "content": TEXTS}, "type", "content"),
    "presence_penalty": number(-2, 2),
    "prompt_cache_key": TEXT,
    "prompt_cache_options": mapping,
    "prompt_cache_retention": one_of("in_memory", "in-memory", "24h"),
    "reasoning_effort": one_of(*EFFORTS),
    "response_format": FORMAT,
    "safety_identifier": TEXT,
    "seed": integer(),
    "service_tier": one_of(*TIERS),
    "stop": either(TEXT, listed(TEXT, 1, 4)),
    "store": boolean,
    "stream": boolean,
    "stream_options": struct({"include_usage": boolean, "include_obfuscation": boolean}),
    "temperature": number(0, 2),
    "tool_choice": CHOICE,
    "tools": listed(TOOL, 1, 128),
    "top_logprobs": integer(0, 20),
    "top_p": number(0, 1),
    "user": text(),
    "verbosity": one_of("low", "medium", "high"),
    "web_search_options": mapping,
}
"""Field → what it may be."""
REQUEST: Final = struct(CHAT, "model", "messages")
EMBEDDINGS: Final[Mapping[str, Shape]] = {
    "model": FILLED,
    "input": either(
        FILLED, listed(FILLED, 1, 2048), listed(integer(0), 1, 2048), listed(listed(integer(0), 1, 8192), 1, 2048)
    ),
    "dimensions": integer(1, 3072),
    "encoding_format": one_of("float", "base64"),
    "user": TEXT,
}
