"""Which keys of LiteLLM's file are known, and which of them we act on. Reads its own data file, nothing else."""

from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

import yaml

from broker.config.clouds import PARAMETERS
from broker.config.models import Capabilities, Pool, Prices
from broker.config.problems import likeness

ALIAS_LENGTH: Final = 200
"""Of an alias (wire contract); Kafka allows 249 characters for the whole topic name."""

TOP_ACTED: Final = frozenset(
    {"model_list", "router_settings", "litellm_settings", "general_settings", "environment_variables"}
    | {"credential_list", "include"}
    | {"aliases", "kafka", "redis", "clickhouse", "workers", "server", "media", "keys", "tenants", "prices"}
    | {"providers"}
)
"""LiteLLM's sections, its two of convenience, and ours."""

ENTRY_ACTED: Final = frozenset(
    {"model_name", "litellm_params", "params", "model_info", "rpm", "tpm", "itpm", "otpm", "rpd", "tpd"}
)

ENTRY_NESTED: Final = frozenset({"litellm_params", "params", "model_info"})

PARAMS_ACTED: Final = frozenset(
    {"model", "custom_llm_provider", "api_key", "api_base", "base_url", "organization", "extra_headers", "extra_body"}
    | {"rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "max_parallel_requests", "timeout", "stream_timeout"}
    | {"weight", "order", "tags", "base_model"}
    | {"drop_params", "additional_drop_params", "allowed_openai_params", "litellm_credential_name"}
    | {"region"}
    | set(Prices.model_fields)
)
"""Without those of a request (`body`), of the deployment's own cloud, and prices of `price_names`: acted on as well."""

CREDENTIAL_ACTED: Final = frozenset({"api_key", "api_base", "base_url", "organization"}) | PARAMETERS

INFO_ACTED: Final = frozenset(
    {"id", "base_model", "rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "max_tokens"}
    | set(Prices.model_fields)
    | set(Capabilities.model_fields)
)
"""Without the prices of `price_names`, which are acted on as well."""

ALIAS_FIELDS: Final = (
    "num_retries",
    "timeout",
    "deadline",
    "cooldown_time",
    "allowed_fails",
    "enable_pre_call_checks",
)
"""Policy that the file and `Alias` call by the same name."""

FALLBACK_KINDS: Final = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")

ROUTER_ACTED: Final = frozenset(
    {*ALIAS_FIELDS, *FALLBACK_KINDS, "default_fallbacks", "routing_strategy", "model_group_alias"}
    | {"stream_timeout", "disable_cooldowns", "default_max_parallel_requests"}
)

LITELLM_ACTED: Final = ROUTER_ACTED | {"request_timeout", "drop_params", "additional_drop_params"}
"""LiteLLM takes most router settings in both sections."""

SAME_POLICY: Final = {"request_timeout": "timeout"}

DEPLOYMENT_DEFAULTS: Final = {
    "stream_timeout": "stream_timeout",
    "default_max_parallel_requests": "max_parallel_requests",
    "drop_params": "drop_params",
    "additional_drop_params": "additional_drop_params",
}
"""Policy key to the field of every deployment that does not say otherwise."""

GENERAL_ACTED: Final = frozenset({"master_key", "signing_key"})

ALIAS_ACTED: Final = frozenset({*ALIAS_FIELDS, *FALLBACK_KINDS, "routing_strategy", "on_unknown", "fail_open"})
"""What our section `aliases` may set for one alias."""

ALIAS_WORDS: Final = {"strategy": "routing_strategy"}

POOL_ACTED: Final = frozenset(Pool.model_fields) - {"name"}

STRATEGIES_KNOWN: Final = frozenset({"provider-budget-routing", "lowest-tpm-rpm", "priority", "auto", "adaptive"})
"""Ways of routing LiteLLM knows and we do not; `simple-shuffle` takes their place."""

TOO_LIKE: Final = 0.8
"""Likeness (difflib, 0–1) above which a free key of model_info passes for a mistyped one."""


class Variables(NamedTuple):
    """Environment variables a provider's own tools read, the first that is set wins."""

    key: tuple[str, ...]
    base: tuple[str, ...] = ()


PROVIDER_VARIABLES: Final[Mapping[str, Variables]] = {
    "openai": Variables(("OPENAI_API_KEY",), ("OPENAI_BASE_URL", "OPENAI_API_BASE")),
    "azure": Variables(("AZURE_API_KEY", "AZURE_OPENAI_API_KEY"), ("AZURE_API_BASE",)),
    "bedrock": Variables(("AWS_BEARER_TOKEN_BEDROCK",)),
    "bedrock_converse": Variables(("AWS_BEARER_TOKEN_BEDROCK",)),
    "azure_ai": Variables(("AZURE_AI_API_KEY",), ("AZURE_AI_API_BASE",)),
    "anthropic": Variables(("ANTHROPIC_API_KEY",), ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL")),
    "gemini": Variables(("GEMINI_API_KEY", "GOOGLE_API_KEY")),
    "cohere": Variables(("COHERE_API_KEY", "CO_API_KEY"), ("COHERE_API_BASE",)),
    "cohere_chat": Variables(("COHERE_API_KEY", "CO_API_KEY"), ("COHERE_API_BASE",)),
    "mistral": Variables(("MISTRAL_API_KEY",), ("MISTRAL_API_BASE",)),
    "groq": Variables(("GROQ_API_KEY",), ("GROQ_API_BASE",)),
    "deepseek": Variables(("DEEPSEEK_API_KEY",), ("DEEPSEEK_API_BASE",)),
    "xai": Variables(("XAI_API_KEY",), ("XAI_API_BASE",)),
    "openrouter": Variables(("OPENROUTER_API_KEY", "OR_API_KEY"), ("OPENROUTER_API_BASE",)),
    "together_ai": Variables(("TOGETHERAI_API_KEY", "TOGETHER_API_KEY", "TOGETHER_AI_API_KEY")),
    "fireworks_ai": Variables(("FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY"), ("FIREWORKS_API_BASE",)),
    "perplexity": Variables(("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"), ("PERPLEXITY_API_BASE",)),
    "cerebras": Variables(("CEREBRAS_API_KEY",), ("CEREBRAS_API_BASE",)),
    "sambanova": Variables(("SAMBANOVA_API_KEY",), ("SAMBANOVA_API_BASE",)),
    "nvidia_nim": Variables(("NVIDIA_NIM_API_KEY",), ("NVIDIA_NIM_API_BASE",)),
    "deepinfra": Variables(("DEEPINFRA_API_KEY",), ("DEEPINFRA_API_BASE",)),
    "hyperbolic": Variables(("HYPERBOLIC_API_KEY",), ("HYPERBOLIC_API_BASE",)),
    "novita": Variables(("NOVITA_API_KEY",)),
    "nebius": Variables(("NEBIUS_API_KEY",), ("NEBIUS_API_BASE",)),
    "moonshot": Variables(("MOONSHOT_API_KEY",), ("MOONSHOT_API_BASE",)),
    "dashscope": Variables(("DASHSCOPE_API_KEY",), ("DASHSCOPE_API_BASE",)),
    "ai21": Variables(("AI21_API_KEY",), ("AI21_API_BASE",)),
    "voyage": Variables(("VOYAGE_API_KEY", "VOYAGE_AI_API_KEY", "VOYAGE_AI_TOKEN"), ("VOYAGE_API_BASE",)),
    "jina_ai": Variables(("JINA_AI_API_KEY", "JINA_API_KEY", "JINA_AI_TOKEN"), ("JINA_AI_API_BASE",)),
    "infinity": Variables(("INFINITY_API_KEY",), ("INFINITY_API_BASE",)),
    "huggingface": Variables(("HF_TOKEN", "HUGGINGFACE_API_KEY"), ("HUGGINGFACE_API_BASE",)),
    "databricks": Variables(("DATABRICKS_API_KEY",), ("DATABRICKS_API_BASE",)),
    "github": Variables(("GITHUB_API_KEY",)),
    "hosted_vllm": Variables(("HOSTED_VLLM_API_KEY",), ("HOSTED_VLLM_API_BASE",)),
    "ollama": Variables(("OLLAMA_API_KEY",), ("OLLAMA_API_BASE",)),
    "ollama_chat": Variables(("OLLAMA_API_KEY",), ("OLLAMA_API_BASE",)),
    "lm_studio": Variables(("LM_STUDIO_API_KEY",), ("LM_STUDIO_API_BASE",)),
    "llamafile": Variables(("LLAMAFILE_API_KEY",), ("LLAMAFILE_API_BASE",)),
    "litellm_proxy": Variables(("LITELLM_PROXY_API_KEY",), ("LITELLM_PROXY_API_BASE",)),
    "anyscale": Variables(("ANYSCALE_API_KEY",), ("ANYSCALE_API_BASE",)),
    "empower": Variables(("EMPOWER_API_KEY",), ("EMPOWER_API_BASE",)),
    "meta_llama": Variables(("LLAMA_API_KEY",), ("LLAMA_API_BASE",)),
    "ai21_chat": Variables(("AI21_API_KEY",), ("AI21_API_BASE",)),
    "volcengine": Variables(("VOLCENGINE_API_KEY",), ("VOLCENGINE_API_BASE",)),
    "codestral": Variables(("CODESTRAL_API_KEY",), ("CODESTRAL_API_BASE",)),
    "galadriel": Variables(("GALADRIEL_API_KEY",), ("GALADRIEL_API_BASE",)),
    "publicai": Variables(("PUBLICAI_API_KEY",), ("PUBLICAI_API_BASE",)),
    "helicone": Variables(("HELICONE_API_KEY",)),
    "veniceai": Variables(("VENICE_AI_API_KEY",)),
    "xiaomi_mimo": Variables(("XIAOMI_MIMO_API_KEY",)),
    "scaleway": Variables(("SCW_SECRET_KEY",)),
    "synthetic": Variables(("SYNTHETIC_API_KEY",)),
    "apertis": Variables(("STIMA_API_KEY",)),
    "nano-gpt": Variables(("NANOGPT_API_KEY",)),
    "poe": Variables(("POE_API_KEY",)),
    "chutes": Variables(("CHUTES_API_KEY",)),
    "abliteration": Variables(("ABLITERATION_API_KEY",)),
    "llamagate": Variables(("LLAMAGATE_API_KEY",)),
    "gmi": Variables(("GMI_API_KEY",)),
    "sarvam": Variables(("SARVAM_API_KEY",)),
    "assemblyai": Variables(("ASSEMBLYAI_API_KEY",)),
    "charity_engine": Variables(("CHARITY_ENGINE_API_KEY",)),
    "aihubmix": Variables(("AIHUBMIX_API_KEY",), ("AIHUBMIX_API_BASE",)),
    "salad_cloud": Variables(("SALAD_CLOUD_API_KEY",)),
    "crusoe": Variables(("CRUSOE_API_KEY",), ("CRUSOE_API_BASE",)),
    "friendliai": Variables(("FRIENDLIAI_API_KEY", "FRIENDLI_TOKEN"), ("FRIENDLI_API_BASE",)),
}
"""From the providers' pages of LiteLLM's documentation; a deployment that names neither key nor address uses them."""


@cache
def listed(section: str) -> frozenset[str]:
    """Return the keys LiteLLM knows in a section of `litellm_keys.yaml`."""
    return frozenset(_data()[section].split())


@cache
def _data() -> dict[str, str]:
    text = files("broker.config").joinpath("litellm_keys.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def free_info_keys(keys: Collection[str]) -> frozenset[str]:
    """Return the keys of a model_info that LiteLLM would carry along, however named, and that are no typing mistake."""
    acted = [(key, max(likeness(key, other) for other in INFO_ACTED)) for key in keys]
    return frozenset(key for key, like in acted if like < TOO_LIKE)
