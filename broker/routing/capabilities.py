"""What the model of a deployment can do: what its configuration says, else what is known of the model, else unknown.

Reads its own data file once, when first asked, and nothing else. Imports configuration models only.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from broker.config import Capabilities, Deployment

ABILITIES: Final = {
    "supports_function_calling": "tools",
    "supports_parallel_function_calling": "parallel_tools",
    "supports_vision": "vision",
    "supports_pdf_input": "pdf",
    "supports_audio_input": "audio_in",
    "supports_audio_output": "audio_out",
    "supports_video_input": "video",
    "supports_response_schema": "json_schema",
    "supports_reasoning": "reasoning",
    "supports_web_search": "web_search",
}
"""LiteLLM's name of an ability → the short one, in the data file and in what is printed."""

UNKNOWN: Final = Capabilities()

TRIMS: Final = frozenset({"openrouter", "ollama", "ollama_chat"})
"""Providers that cut what is too long instead of refusing it (openrouter.ai/docs, message transforms; docs.ollama.com,
`num_ctx`): a window that is merely known says nothing of them."""

LONGER_WINDOWS: Final = "anthropic-beta"
"""Header with which Anthropic's models take or write more than by default (docs, "Beta headers"): `context-1m-…`."""

_FAMILIES: Final = {
    "bedrock_converse": "bedrock",
    "cohere_chat": "cohere",
    "azure_text": "azure",
    "text-completion-openai": "openai",
    "vertex_ai_beta": "vertex_ai",
    "ollama_chat": "ollama",
    "ai21_chat": "ai21",
}

_MAKERS: Final = ("openai", "anthropic", "gemini", "vertex_ai", "bedrock", "cohere", "mistral")
"""Where a `base_model` without a provider is looked for, in LiteLLM's order of names without one."""

_SNAPSHOT: Final = re.compile(r"[-@](?:20\d{2}-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01]))(?=$|-v\d)")
_GEMINI_STABLE: Final = re.compile(r"(?<=^gemini-)(.*)-00\d$")
_BEDROCK_HEAD: Final = re.compile(r"^(?:(?:converse|invoke|converse_like)/)?(?:[a-z]{2}(?:-[a-z]+)+-\d/)?")
_BEDROCK_REGION: Final = re.compile(r"^(?:us-gov|us|eu|apac|au|jp|ca|sa|me|af|global)\.(?=[a-z0-9-]+\.)")
_BEDROCK_THROUGHPUT: Final = re.compile(r"(?<=:\d):[0-9a-z]+$")
"""`…-v1:0:200k`, a model bought by throughput."""


def family(provider: str) -> str:
    """Return the provider under whose name models stand in the data: `vertex_ai-language-models` is `vertex_ai`."""
    if provider.startswith("vertex_ai-"):
        return "vertex_ai"
    if provider.startswith("fireworks_ai-"):
        return "fireworks_ai"
    return _FAMILIES.get(provider, provider)


def capabilities(deployment: Deployment) -> Capabilities:
    """Return what the deployment's model can do; what `model_info` states goes before what is known of the model."""
    found = known(deployment)
    if deployment.model_info is None:
        return found
    return found.model_copy(update=deployment.model_info.model_dump(exclude_none=True))


def known(deployment: Deployment) -> Capabilities:
    """Return what the data say of the deployment's model.

    Nothing is known of a model whose name is the user's own: an Azure deployment, an ARN, whatever an OpenAI-compatible
    server at an address of its own calls its model. `base_model` says which model it is.
    """
    if deployment.base_model:
        found = _base_model(deployment.provider, deployment.base_model)
    elif _names_its_own(deployment):
        found = None
    else:
        found = look_up(deployment.provider, deployment.model)
    if found is None:
        return UNKNOWN
    if deployment.provider in TRIMS or any(name.lower() == LONGER_WINDOWS for name in deployment.headers):
        return found.model_copy(update={"max_input_tokens": None, "max_output_tokens": None})
    return found


def look_up(provider: str, model: str) -> Capabilities | None:
    """Return what is known of a provider's model: by its name, or by that of the model it is a dated snapshot of.

    `model` may be Bedrock's with a region before it (`us.anthropic.…`, `us-east-1/anthropic.…`). None: not known.
    """
    models = _table().get(family(provider))
    if models is None:
        return None
    for name in _spellings(family(provider), model.lower()):
        if name in models:
            return _read(models[name])
    return None


def _base_model(provider: str, base_model: str) -> Capabilities | None:
    head, _, tail = base_model.partition("/")
    if tail and family(head) in _table():
        named = look_up(head, tail)
        if named is not None:
            return named
    found = (look_up(each, base_model) for each in (provider, *_MAKERS))
    return next((each for each in found if each is not None), None)


def _names_its_own(deployment: Deployment) -> bool:
    provider = family(deployment.provider)
    if provider in {"azure", "azure_ai"}:
        return True
    if provider != "openai" or deployment.api_base is None:
        return False
    try:
        host = urlsplit(deployment.api_base.strip()).hostname or ""
    except ValueError:
        return True
    return host != "openai.com" and not host.endswith(".openai.com")


def _spellings(provider: str, model: str) -> Iterator[str]:
    """Yield the names under which the model may stand in the data, the most exact first."""
    names = [model]
    if provider == "bedrock":
        bare = _BEDROCK_HEAD.sub("", model)
        names += [bare, _BEDROCK_REGION.sub("", bare)]
        names.append(_BEDROCK_THROUGHPUT.sub("", names[-1]))
    if provider == "gemini":
        names.append(model.removeprefix("models/"))
    for name in dict.fromkeys(names):
        yield name
        undated = _SNAPSHOT.sub("", name)
        if undated != name:
            yield undated
        if provider in {"gemini", "vertex_ai"}:
            yield _GEMINI_STABLE.sub(r"\1", name)


@cache
def _table() -> Mapping[str, Mapping[str, str]]:
    """Return provider → model → its line of facts."""
    data = orjson.loads(files("broker.routing").joinpath("model_table.json").read_bytes())
    table: dict[str, dict[str, str]] = {}
    for facts, providers in data["models"].items():
        for provider, names in providers.items():
            table.setdefault(provider, {}).update(dict.fromkeys(names.split(), facts))
    return table


@cache
def _read(facts: str) -> Capabilities:
    """Read a line of facts: `chat in=128000 out=16384 +tools -vision`."""
    mode, *words = facts.split()
    values: dict[str, Any] = {} if mode == "?" else {"mode": mode}
    for word in words:
        if word.startswith("in="):
            values["max_input_tokens"] = int(word[3:])
        elif word.startswith("out="):
            values["max_output_tokens"] = int(word[4:])
        else:
            values[_LONG[word[1:]]] = word.startswith("+")
    return Capabilities(**values)


_LONG: Final = {short: name for name, short in ABILITIES.items()}
