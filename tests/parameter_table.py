"""What becomes of each OpenAI parameter at each provider, found by asking the dialects; the table of the README.

`python -m tests.parameter_table` prints it, `--write` puts it into README.md between its marks.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import SecretStr

from broker.config import Aws, Azure, Deployment, Vertex
from broker.errors import InvalidRequest
from schemas.request import CHAT
from workers.providers.catalog import ResolvedDeployment, resolve
from workers.providers.registry import DIALECTS

README: Final = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- parameters -->\n", "<!-- /parameters -->\n"

AS_IS, MAPPED, EMULATED, LEFT_OUT, REFUSED = "as is", "mapped", "emulated", "left out", "refused"
FETCHED = "fetched"
"""By `media.allowed_hosts`, before the dialect sees it."""
STOOD_IN_FOR = ("response_format", "tool_choice")
"""What a change of the offered functions can stand in for."""

PROVIDERS: Final[Mapping[str, dict[str, Any]]] = {
    "openai": {"model": "gpt-4o"},
    "azure": {"model": "gpt-4o", "api_base": "https://x.openai.azure.com", "azure": Azure(api_version="2024-10-21")},
    "mistral": {"model": "mistral-large-latest"},
    "groq": {"model": "llama-3.3-70b-versatile"},
    "anthropic": {"model": "claude-opus-4-6"},
    "gemini": {"model": "gemini-2.5-pro"},
    "vertex_ai": {"model": "gemini-2.5-pro", "vertex": Vertex(project="p", location="europe-west1")},
    "cohere": {"model": "command-a-03-2025"},
    "bedrock": {"model": "anthropic.claude-opus-4-6-v1", "aws": Aws(region="eu-west-1")},
}
"""A deployment of each provider of the table; those that speak OpenAI's API and are not here take everything as is."""

TOOL: Final = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
SCHEMA: Final = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}
PNG: Final = "iVBORw0KGgo="
PDF: Final = {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PNG}"}


def _says(*parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, *parts]}]}


NAMED: Final = {"type": "function", "function": {"name": "f"}}
STRICT: Final = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
SAMPLES: Final[Mapping[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "max_tokens": ({}, {"max_tokens": 64}),
    "max_completion_tokens": ({}, {"max_completion_tokens": 64}),
    "temperature": ({}, {"temperature": 0.5}),
    "top_p": ({}, {"top_p": 0.5}),
    "n": ({}, {"n": 2}),
    "stop": ({}, {"stop": ["END"]}),
    "seed": ({}, {"seed": 7}),
    "presence_penalty": ({}, {"presence_penalty": 0.5}),
    "frequency_penalty": ({}, {"frequency_penalty": 0.5}),
    "logit_bias": ({}, {"logit_bias": {"50256": -100}}),
    "logprobs": ({}, {"logprobs": True}),
    "top_logprobs": ({"logprobs": True}, {"top_logprobs": 2}),
    "tools": ({}, {"tools": [TOOL]}),
    "tool_choice: none": ({"tools": [TOOL]}, {"tool_choice": "none"}),
    "tool_choice: required": ({"tools": [TOOL]}, {"tool_choice": "required"}),
    "tool_choice: a function": ({"tools": [TOOL]}, {"tool_choice": NAMED}),
    "parallel_tool_calls: false": ({"tools": [TOOL]}, {"parallel_tool_calls": False}),
    "functions": ({}, {"functions": [TOOL["function"]]}),
    "response_format: json_object": ({}, {"response_format": {"type": "json_object"}}),
    "response_format: json_schema": ({}, {"response_format": STRICT}),
    "reasoning_effort": ({}, {"reasoning_effort": "low"}),
    "verbosity": ({}, {"verbosity": "low"}),
    "service_tier": ({}, {"service_tier": "flex"}),
    "prediction": ({}, {"prediction": {"type": "content", "content": "x"}}),
    "modalities, audio": ({}, {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}),
    "web_search_options": ({}, {"web_search_options": {"search_context_size": "low"}}),
    "user": ({}, {"user": "u1"}),
    "metadata": ({}, {"metadata": {"a": "b"}}),
    "store": ({}, {"store": True}),
    "prompt_cache_key": ({}, {"prompt_cache_key": "k"}),
    "safety_identifier": ({}, {"safety_identifier": "s"}),
    "image by URL": (_says(), _says({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})),
    "image as data": (_says(), _says({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}})),
    "input_audio": (_says(), _says({"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}})),
    "file": (_says(), _says({"type": "file", "file": PDF})),
    "a parameter of its own": ({}, {"top_k": 40}),
}  # fmt: skip
"""Row → what is asked beside it, and the parameter itself."""


def target(provider: str, **fields: Any) -> ResolvedDeployment:
    """Return the deployment of a provider of the table."""
    values = {"name": "a/0", "alias": "a", "provider": provider, "api_key": SecretStr("k"), **PROVIDERS[provider]}
    return resolve(Deployment(**{**values, **fields}))


def sent(provider: str, asked: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the body that goes upstream. Raises `InvalidRequest`."""
    resolved = target(provider, **fields)
    dialect = DIALECTS[resolved.provider.dialect]
    body = {"messages": [{"role": "user", "content": "Hi"}], **asked}
    found: dict[str, Any] = orjson.loads(dialect.outbound(resolved, CHAT, body, streams=False).body)
    return found


def becomes(provider: str, row: str) -> str:
    """Say what becomes of a parameter."""
    if row == "image by URL" and target(provider).provider.inlines_media:
        return FETCHED
    beside, asked = SAMPLES[row]
    try:
        without = sent(provider, beside)
        found = sent(provider, {**beside, **asked})
    except InvalidRequest as error:
        if error.param is None:
            raise
        return REFUSED
    if found == without:
        return LEFT_OUT
    if all(found.get(name) == value for name, value in asked.items()):
        return AS_IS
    return EMULATED if row.startswith(STOOD_IN_FOR) and _tools(found) != _tools(without) else MAPPED


def _tools(body: Mapping[str, Any]) -> object:
    config = body.get("toolConfig")
    return body.get("tools") or (config.get("tools") if isinstance(config, Mapping) else None) or []


def table() -> str:
    """Return the table in Markdown."""
    lines = [
        "| parameter | " + " | ".join(f"`{name}`" for name in PROVIDERS) + " |",
        "|---" * (len(PROVIDERS) + 1) + "|",
    ]
    lines += [f"| {row} | " + " | ".join(becomes(name, row) for name in PROVIDERS) + " |" for row in SAMPLES]
    return "\n".join(lines) + "\n"


def in_readme(text: str) -> str:
    """Return the table that stands in a README."""
    found = re.search(re.escape(BEGIN) + "(.*?)" + re.escape(END), text, re.DOTALL)
    return found.group(1) if found else ""


def main() -> None:
    """Print the table, or write it into the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put it into README.md between its marks")
    found = table()
    if parser.parse_args().write:
        text = README.read_text()
        README.write_text(text.replace(BEGIN + in_readme(text) + END, BEGIN + found + END))
    else:
        print(found, end="")  # noqa: T201 - what the command is for


if __name__ == "__main__":
    main()
