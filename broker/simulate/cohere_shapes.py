"""What Cohere's chat, embed and rerank take.

Sources: docs.cohere.com/v2/reference and the signatures of the `cohere` package's `V2Client`, against which a test
holds the names.
"""

from collections.abc import Mapping
from typing import Final

from broker.simulate.openai_shapes import CALL, image_url
from broker.simulate.openai_shapes import name as function_name
from broker.simulate.shapes import (
    FILLED,
    TEXT,
    Shape,
    boolean,
    either,
    integer,
    listed,
    mapping,
    number,
    one_of,
    struct,
    tagged,
)

TEXT_PART: Final = struct({"type": TEXT, "text": TEXT}, "text")
PICTURE: Final = struct(
    {"type": TEXT, "image_url": struct({"url": image_url, "detail": one_of("auto", "low", "high")}, "url")}, "image_url"
)
DOCUMENT: Final = struct({"data": either(TEXT, mapping), "id": TEXT}, "data")
TEXTS: Final = either(TEXT, listed(tagged("type", {"text": TEXT_PART})))
MESSAGE: Final = tagged(
    "role",
    {
        "system": struct({"role": TEXT, "content": TEXTS}, "content"),
        "user": struct(
            {"role": TEXT, "content": either(TEXT, listed(tagged("type", {"text": TEXT_PART, "image_url": PICTURE})))},
            "content",
        ),
        "assistant": struct(
            {
                "role": TEXT,
                "content": either(
                    TEXT,
                    listed(
                        tagged(
                            "type",
                            {"text": TEXT_PART, "thinking": struct({"type": TEXT, "thinking": TEXT}, "thinking")},
                        )
                    ),
                ),
                "tool_calls": listed(CALL),
                "tool_plan": TEXT,
                "citations": listed(mapping),
            }
        ),
        "tool": struct(
            {
                "role": TEXT,
                "tool_call_id": TEXT,
                "content": either(
                    TEXT,
                    listed(
                        tagged(
                            "type",
                            {"text": TEXT_PART, "document": struct({"type": TEXT, "document": DOCUMENT}, "document")},
                        )
                    ),
                ),
            },
            *("tool_call_id", "content"),
        ),
    },
)
FUNCTION: Final = struct({"name": function_name, "description": TEXT, "parameters": mapping}, "name", "parameters")
CHAT: Final[Mapping[str, Shape]] = {
    "model": FILLED,
    "messages": listed(MESSAGE, least=1),
    "tools": listed(struct({"type": one_of("function"), "function": FUNCTION}, "type", "function")),
    "strict_tools": boolean,
    "documents": listed(either(TEXT, DOCUMENT)),
    "citation_options": struct({"mode": one_of("FAST", "ACCURATE", "OFF", "ENABLED", "DISABLED")}),
    "response_format": tagged(
        "type",
        {"text": struct({"type": TEXT}), "json_object": struct({"type": TEXT, "json_schema": mapping})},
    ),
    "safety_mode": one_of("CONTEXTUAL", "STRICT", "OFF", "NONE"),
    "max_tokens": integer(0),
    "stop_sequences": listed(TEXT, most=5),
    "temperature": number(0, 1),
    "seed": integer(0),
    "frequency_penalty": number(0, 1),
    "presence_penalty": number(0, 1),
    "k": integer(0, 500),
    "p": number(0.01, 0.99),
    "logprobs": boolean,
    "tool_choice": one_of("REQUIRED", "NONE"),
    "thinking": struct({"type": one_of("enabled", "disabled"), "token_budget": integer(1)}, "type"),
    "priority": integer(0, 999),
    "stream": boolean,
}
KINDS: Final = ("float", "int8", "uint8", "binary", "ubinary", "base64")
EMBED_PART: Final = tagged("type", {"text": TEXT_PART, "image_url": PICTURE})
EMBED: Final[Mapping[str, Shape]] = {
    "model": FILLED,
    "input_type": one_of("search_document", "search_query", "classification", "clustering", "image"),
    "texts": listed(TEXT, 1, 96),
    "images": listed(image_url, 1, 1),
    "inputs": listed(struct({"content": listed(EMBED_PART, 1)}, "content"), 1, 96),
    "max_tokens": integer(1),
    "output_dimension": one_of(256, 512, 1024, 1536),
    "embedding_types": listed(one_of(*KINDS)),
    "truncate": one_of("NONE", "START", "END"),
    "priority": integer(0, 999),
}
RERANK: Final[Mapping[str, Shape]] = {
    "model": FILLED,
    "query": FILLED,
    "documents": listed(TEXT, 1, 10_000),
    "top_n": integer(1),
    "max_tokens_per_doc": integer(1),
    "relevant_spans": mapping,
    "priority": integer(0, 999),
}
