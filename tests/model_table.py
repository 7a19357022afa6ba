"""Makes `broker/routing/model_table.json` anew from LiteLLM's model table and the windows of `genai-prices`.

    python -m tests.model_table model_prices_and_context_window_backup.json > broker/routing/model_table.json

The argument is the file of that name in LiteLLM's package. Facts only: of every model for chat, responses, embeddings
or rerank what it takes at most and what it is said to do or not to do. Names that move (`-latest`) are left out.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from genai_prices.data import providers

from broker.routing.capabilities import ABILITIES, family

MODES: Final = ("chat", "responses", "embedding", "rerank")
CHAT: Final = "/v1/chat/completions"
MODALITIES: Final = {
    "supports_vision": ("supported_modalities", "image"),
    "supports_audio_input": ("supported_modalities", "audio"),
    "supports_video_input": ("supported_modalities", "video"),
    "supports_audio_output": ("supported_output_modalities", "audio"),
}
"""Where nothing is said of an ability itself, a list of modalities without it says that it is missing."""

PACKAGE_NAMES: Final = {
    "cohere": "cohere",
    "fireworks": "fireworks_ai",
    "google": "gemini",
    "moonshotai": "moonshot",
    "together": "together_ai",
    "voyageai": "voyage",
    "x-ai": "xai",
}
"""Providers whose id in `genai-prices` is not LiteLLM's."""

Model = dict[str, Any]

SERVED_OTHERWISE: Final = {
    ("deepseek", "deepseek-reasoner"): ("supports_function_calling", "supports_parallel_function_calling"),
}
"""Abilities a model is said to lack although its API serves what asks for them: with tools the reasoner's requests were
answered by the chat model (api-docs.deepseek.com/updates, 2025-08-21)."""


def of_litellm(table: Mapping[str, Model]) -> Iterator[tuple[str, str, Model]]:
    """Yield provider, name and facts of every model that is kept."""
    for key, said in table.items():
        mode = said.get("mode")
        if mode not in MODES or key.endswith("-latest"):
            continue
        provider, name = family(said["litellm_provider"]), key.lower()
        for head in (said["litellm_provider"], provider):
            name = name.removeprefix(f"{head}/")
        if mode == "responses" and CHAT in said.get("supported_endpoints", [CHAT]):
            mode = "chat"
        facts: Model = {"mode": mode}
        for bound in ("max_input_tokens", "max_output_tokens"):
            if said.get(bound):
                facts[bound] = int(said[bound])
        for ability in ABILITIES.keys() - SERVED_OTHERWISE.get((provider, name), ()):
            known = said.get(ability)
            if known is None and ability in MODALITIES:
                listed, modality = MODALITIES[ability]
                known = modality in said[listed] if listed in said else None
            if known is not None:
                facts[ability] = bool(known)
        yield provider, name, facts


def merged(one: Model, other: Model) -> Model:
    """Return what both say; where they differ, what refuses less."""
    both = {**one, **other}
    for fact in one.keys() & other.keys():
        if fact != "mode":
            both[fact] = max(one[fact], other[fact])
    return both


def with_windows(models: dict[str, dict[str, Model]]) -> None:
    """Add the windows of `genai-prices`.

    Where both know one the larger counts, unless the package's is LiteLLM's input and output together: the same fact.
    """
    for provider in providers:
        if provider.id == "aws":
            continue  # its names are those of regions, each of which would stand before the model's own facts
        known = models[family(PACKAGE_NAMES.get(provider.id, provider.id))]
        for model in provider.models:
            name = model.id.lower()
            if not model.context_window or name.endswith("-latest"):
                continue
            facts = known.setdefault(name, {})
            most, output = facts.get("max_input_tokens", 0), facts.get("max_output_tokens", 0)
            if model.context_window != most + output:
                facts["max_input_tokens"] = max(most, model.context_window)


def profile(facts: Model) -> str:
    """Write facts as one line: `chat in=128000 out=16384 +tools -vision`, the abilities by their short names."""
    words = [facts.get("mode", "?")]
    words += [f"in={facts['max_input_tokens']}"] if "max_input_tokens" in facts else []
    words += [f"out={facts['max_output_tokens']}"] if "max_output_tokens" in facts else []
    words += [("+" if facts[name] else "-") + short for name, short in ABILITIES.items() if name in facts]
    return " ".join(words)


def main(path: str) -> None:
    """Print the table of the file at `path`."""
    table = json.loads(Path(path).read_text(encoding="utf-8"))
    models: dict[str, dict[str, Model]] = defaultdict(dict)
    for provider, name, facts in of_litellm(table):
        models[provider][name] = merged(models[provider].get(name, {}), facts)
    with_windows(models)
    profiles: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for provider, names in models.items():
        for name, facts in names.items():
            if " " not in name:
                profiles[profile(facts)][provider].append(name)
    about = (
        "What models can do, by provider (LiteLLM's names). Each key: kind, most tokens in and out, abilities it has "
        "(+) or lacks (-); what is not said is not known. Facts of LiteLLM 1.110's model table and of genai-prices "
        f"{version('genai-prices')}; made by tests/model_table.py."
    )
    written = {
        key: {provider: " ".join(sorted(names)) for provider, names in sorted(found.items())}
        for key, found in sorted(profiles.items())
    }
    sys.stdout.write(json.dumps({"about": about, "models": written}, indent=0, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
