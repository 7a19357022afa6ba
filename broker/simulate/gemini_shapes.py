"""What Gemini's generateContent takes.

Sources: ai.google.dev/api/generate-content and /api/caching#Content, and the
types of the `google-genai` package (`types.py`), against which a test holds the names.

Like protobuf's JSON, names are taken in camel case and as the proto has them: `camel` makes one of both.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from broker.simulate.shapes import (
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
    text,
    texts_by_name,
)

MEDIA: Final = re.compile(r"(?:image|audio|video|text|application)/[\w.+-]+(?:;.*)?")
NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
FREE: Final = frozenset(
    {"args", "response", "parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema", "labels",
     "partMetadata"}
)  # fmt: skip
"""Fields whose inside is the caller's: their names stay as they are."""
SNAKE: Final = re.compile(r"_([a-z0-9])")


def camel(value: Any, free: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - any JSON, its own recursion
    """Return a body with the proto's own names written in camel case."""
    if isinstance(value, list):
        return [camel(each, free) for each in value]
    if not isinstance(value, dict) or free:
        return value
    named = {_named(str(name)): each for name, each in value.items()}
    return {name: camel(each, name in FREE) for name, each in named.items()}


def _named(name: str) -> str:
    found = SNAKE.sub(lambda found: found[1].upper(), name)
    return found if found in NAMES else name


def proto_bytes(value: object, place: Place) -> None:
    """Take base64 of either alphabet, padded or not, as protobuf's JSON does."""
    TEXT(value, place)
    base64_text(padded(str(value)), place)


def padded(told: str) -> str:
    """Return base64 in the standard alphabet with its padding."""
    return told.replace("-", "+").replace("_", "/").rstrip("=") + "=" * (-len(told.rstrip("=")) % 4)


def media_type(value: object, place: Place) -> None:
    """Take a media type."""
    TEXT(value, place)
    if not MEDIA.fullmatch(str(value)):
        raise Wrong("form", place, f"Unsupported MIME type: {value}")


def name(value: object, place: Place) -> None:
    """Take the name of a function (function-calling, "Function declaration")."""
    TEXT(value, place)
    if not NAME.fullmatch(str(value)):
        raise Wrong("form", place, "Invalid function name. Must start with a letter or an underscore.")


DATA: Final[Mapping[str, Shape]] = {
    "text": TEXT,
    "inlineData": struct({"mimeType": media_type, "data": proto_bytes, "displayName": TEXT}, "mimeType", "data"),
    "fileData": struct({"mimeType": media_type, "fileUri": TEXT, "displayName": TEXT}, "fileUri"),
    "functionCall": struct(
        {"name": name, "args": mapping, "id": TEXT, "partialArgs": anything, "willContinue": boolean}, "name"
    ),
    "functionResponse": struct(
        {"name": name, "response": mapping, "id": TEXT, "parts": anything, "scheduling": TEXT, "willContinue": boolean},
        *("name", "response"),
    ),
    "executableCode": struct({"code": TEXT, "id": TEXT, "language": TEXT}, "code", "language"),
    "codeExecutionResult": struct({"id": TEXT, "outcome": TEXT, "output": TEXT}, "outcome"),
    "toolCall": mapping,
    "toolResponse": mapping,
}
"""What a part holds: exactly one of them."""
BESIDE: Final[Mapping[str, Shape]] = {
    "thought": boolean, "thoughtSignature": proto_bytes, "videoMetadata": mapping, "mediaResolution": mapping,
    "partMetadata": mapping, "audioMetadata": mapping, "audioTranscription": mapping, "documentMetadata": mapping,
    "mediaProcessing": anything, "speechMetadata": mapping, "spreadsheetMetadata": mapping,
}  # fmt: skip
_FIELDS: Final = struct({**DATA, **BESIDE})


def part(value: object, place: Place) -> None:
    """Take a part that holds exactly one kind of data."""
    _FIELDS(value, place)
    told: Any = value
    if sum(told.get(name) is not None for name in DATA) != 1:
        raise Wrong("form", (*place, "data"), "required oneof field 'data' must have one initialized field")


CONTENT: Final = struct({"role": one_of("user", "model"), "parts": listed(part, least=1)}, "parts")
SYSTEM: Final = struct({"role": TEXT, "parts": listed(part, least=1)}, "parts")
EMBEDDED: Final = struct({"role": TEXT, "parts": listed(part, least=1)}, "parts")
FUNCTION: Final = struct(
    {"name": name, "description": TEXT, "parameters": mapping, "parametersJsonSchema": anything, "response": mapping,
     "responseJsonSchema": anything, "behavior": TEXT},
    "name",
)  # fmt: skip
SERVED: Final = (
    "codeExecution", "computerUse", "enterpriseWebSearch", "exaAiSearch", "fileSearch", "googleMaps", "googleSearch",
    "googleSearchRetrieval", "mcpServers", "parallelAiSearch", "retrieval", "urlContext",
)  # fmt: skip
TOOL: Final = struct({"functionDeclarations": listed(FUNCTION), **dict.fromkeys(SERVED, anything)})
CALLING: Final = struct(
    {
        "mode": one_of("MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"),
        "allowedFunctionNames": listed(TEXT),
        "streamFunctionCallArguments": boolean,
    }
)
TOOLS: Final = struct(
    {"functionCallingConfig": CALLING, "retrievalConfig": mapping, "includeServerSideToolInvocations": boolean}
)
SAFETY: Final = struct(
    {
        "category": text(1),
        "threshold": one_of(
            "HARM_BLOCK_THRESHOLD_UNSPECIFIED", "BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH",
            "BLOCK_NONE", "OFF",
        ),
        "method": TEXT,
    },
    *("category", "threshold"),
)  # fmt: skip
THINKING: Final = struct(
    {
        "includeThoughts": boolean,
        "thinkingBudget": integer(-1, 32_768),
        "thinkingLevel": one_of("THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH",
                                "minimal", "low", "medium", "high", "xhigh"),
    }
)  # fmt: skip
CONFIG: Final[Mapping[str, Shape]] = {
    "audioTimestamp": boolean,
    "audioTranscriptionConfig": mapping,
    "candidateCount": integer(1, 8),
    "enableAffectiveDialog": boolean,
    "enableEnhancedCivicAnswers": boolean,
    "frequencyPenalty": number(-2, 2),
    "imageConfig": mapping,
    "logprobs": integer(0, 20),
    "maxOutputTokens": integer(1),
    "mediaResolution": TEXT,
    "modelSelectionConfig": mapping,
    "presencePenalty": number(-2, 2),
    "responseFormat": anything,
    "responseJsonSchema": anything,
    "responseLogprobs": boolean,
    "responseMimeType": one_of("text/plain", "application/json", "text/x.enum"),
    "responseModalities": listed(one_of("MODALITY_UNSPECIFIED", "TEXT", "IMAGE", "AUDIO", "VIDEO")),
    "responseSchema": mapping,
    "routingConfig": mapping,
    "seed": integer(),
    "speechConfig": mapping,
    "stopSequences": listed(text(1), most=5),
    "temperature": number(0, 2),
    "thinkingConfig": THINKING,
    "topK": number(1),
    "topP": number(0, 1),
    "translationConfig": mapping,
}
GENERATE: Final[Mapping[str, Shape]] = {
    "contents": either(listed(CONTENT)),
    "systemInstruction": SYSTEM,
    "tools": listed(TOOL),
    "toolConfig": TOOLS,
    "safetySettings": listed(SAFETY),
    "generationConfig": struct(CONFIG),
    "cachedContent": TEXT,
    "labels": texts_by_name,
    "serviceTier": TEXT,
    "store": boolean,
    "modelArmorConfig": mapping,
    "model": TEXT,
}
"""Field → what it may be; `labels` and `modelArmorConfig` are Vertex's."""
REQUEST: Final = struct(GENERATE)
TASKS: Final = (
    "TASK_TYPE_UNSPECIFIED", "RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "SEMANTIC_SIMILARITY", "CLASSIFICATION",
    "CLUSTERING", "QUESTION_ANSWERING", "FACT_VERIFICATION", "CODE_RETRIEVAL_QUERY",
)  # fmt: skip
EMBED: Final[Mapping[str, Shape]] = {
    "model": TEXT,
    "content": EMBEDDED,
    "taskType": one_of(*TASKS),
    "title": TEXT,
    "outputDimensionality": integer(1, 3072),
    "embedContentConfig": mapping,
}
EMBEDDING: Final = struct(EMBED, "content")
BATCH: Final = struct({"requests": listed(struct(EMBED, "content", "model"), 1, 100)}, "requests")
NAMES: Final = frozenset(
    {
        *DATA, *BESIDE, *CONFIG, *GENERATE, *EMBED, *SERVED, "mimeType", "displayName", "fileUri",
        "functionDeclarations",
        "functionCallingConfig", "allowedFunctionNames", "retrievalConfig", "parametersJsonSchema", "includeThoughts",
        "thinkingBudget", "thinkingLevel", "responseJsonSchema", "streamFunctionCallArguments", "willContinue",
        "includeServerSideToolInvocations", "partialArgs",
    }
)  # fmt: skip
"""What may be written with underscores too."""
