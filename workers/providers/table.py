"""The table of providers: one row each, named as LiteLLM's users write them in `provider/model`. Data and nothing else.

Every row names the page its facts are from. Where only LiteLLM knows one (docs.litellm.ai/docs/providers/<name>),
address and names are those its users know. A provider that is not here is an OpenAI-compatible server when the
configuration names its address, or has a row of the configuration's own (`providers`).
"""

from dataclasses import replace
from typing import Final

from workers.providers.provider import Provider, Quirk

MAX_TOKENS: Final = (("max_completion_tokens", "max_tokens"),)
"""Of servers that know the older name only."""

SAMPLING: Final = frozenset(
    {"temperature", "top_p", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "logit_bias"}
)
REASONS: Final = (
    Quirk(models=r"(o1|o3|o4)(-|$)", lacks=SAMPLING, renames=(("max_tokens", "max_completion_tokens"),)),
    Quirk(models=r"gpt-5(?!(\.\d+)?-chat)", renames=(("max_tokens", "max_completion_tokens"),)),
)
"""platform.openai.com/docs/guides/reasoning: fixed sampling in the o series, and the bound covers the reasoning."""

MISTRAL: Final = Provider(
    source="docs.mistral.ai/api",  # unknown fields are refused; a stream's last chunk has the usage unasked
    base_url="https://api.mistral.ai/v1",
    asks_usage=False,
    renames=(*MAX_TOKENS, ("seed", "random_seed")),
    lacks=frozenset(
        {"logit_bias", "logprobs", "top_logprobs", "user", "store", "service_tier", "modalities", "audio", "verbosity",
         "functions", "function_call", "web_search_options", "safety_identifier"}
    ),
)  # fmt: skip

BEDROCK: Final = Provider(
    source="docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html",
    # Its address has the region in it (`catalog.ADDRESSES`); a call is signed, or has a Bedrock API key.
    dialect="bedrock",
    auth="sigv4",
    inlines_media=True,
)

CEREBRAS_LIMITS: Final = (
    ("x-ratelimit-limit-requests-day", "x-ratelimit-limit-requests"),
    ("x-ratelimit-remaining-requests-day", "x-ratelimit-remaining-requests"),
    ("x-ratelimit-reset-requests-day", "x-ratelimit-reset-requests"),
    ("x-ratelimit-limit-tokens-minute", "x-ratelimit-limit-tokens"),
    ("x-ratelimit-remaining-tokens-minute", "x-ratelimit-remaining-tokens"),
    ("x-ratelimit-reset-tokens-minute", "x-ratelimit-reset-tokens"),
)
"""inference-docs.cerebras.ai/support/rate-limits."""

FIREWORKS_LIMITS: Final = (
    ("x-ratelimit-limit-tokens-prompt", "x-ratelimit-limit-input-tokens"),
    ("x-ratelimit-remaining-tokens-prompt", "x-ratelimit-remaining-input-tokens"),
    ("x-ratelimit-limit-tokens-generated", "x-ratelimit-limit-output-tokens"),
    ("x-ratelimit-remaining-tokens-generated", "x-ratelimit-remaining-output-tokens"),
)
"""docs.fireworks.ai/guides/quotas_usage/rate-limits."""


def _open(source: str, url: str | None = None, *, path: str = "") -> Provider:
    """Return a row that differs from OpenAI's API in its address only."""
    return Provider(source=source, base_url=url, path=path)


def _older(source: str, url: str) -> Provider:
    """Return a row that knows the older name of the bound only."""
    return Provider(source=source, base_url=url, renames=MAX_TOKENS)


PROVIDERS: Final[dict[str, Provider]] = {
    "openai": Provider(
        source="platform.openai.com/docs/api-reference", base_url="https://api.openai.com/v1", quirks=REASONS
    ),
    "text-completion-openai": _open("platform.openai.com/docs/api-reference/completions", "https://api.openai.com/v1"),
    "anthropic": Provider(
        source="platform.claude.com/docs/en/api/overview",  # key in x-api-key, a version in every call
        base_url="https://api.anthropic.com/v1",
        dialect="anthropic",
        auth="x-api-key",
        extra=(("anthropic-version", "2023-06-01"),),
        path="/v1",
    ),
    "gemini": Provider(
        source="ai.google.dev/api",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        dialect="gemini",
        auth="x-goog-api-key",
        path="/v1beta",
    ),
    "bedrock": BEDROCK,
    "bedrock_converse": BEDROCK,
    # LiteLLM's users write either name; both speak version 2
    "cohere": Provider(
        source="docs.cohere.com/v2/reference/chat", base_url="https://api.cohere.com/v2", dialect="cohere", path="/v2"
    ),
    "cohere_chat": Provider(
        source="docs.cohere.com/v2/reference/chat",
        base_url="https://api.cohere.com/v2",
        dialect="cohere",
        path="/v2",
    ),
    # Embeddings and rerank only
    "jina_ai": Provider(source="api.jina.ai/redoc", base_url="https://api.jina.ai/v1", dialect="jina", path="/v1"),
    "voyage": Provider(
        source="docs.voyageai.com/reference/embeddings-api",
        base_url="https://api.voyageai.com/v1",
        dialect="voyage",
        path="/v1",
    ),
    "azure": Provider(
        source="learn.microsoft.com/azure/ai-foundry/openai/reference",  # the address is that of the user's resource
        dialect="azure",
        auth="azure",
        quirks=REASONS,
    ),
    "azure_ai": Provider(
        source="learn.microsoft.com/azure/ai-foundry/foundry-models/concepts/endpoints",
        dialect="azure",
        auth="azure",
        quirks=REASONS,
    ),
    "vertex_ai": Provider(
        source="cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference",
        dialect="vertex",
        auth="google",
    ),
    "groq": Provider(
        source="console.groq.com/docs/openai",  # "Currently unsupported OpenAI features"
        base_url="https://api.groq.com/openai/v1",
        lacks=frozenset({"logprobs", "logit_bias", "top_logprobs", "n"}),
    ),
    "together_ai": _open("docs.together.ai/docs/inference/openai-compatibility", "https://api.together.ai/v1"),
    "fireworks_ai": Provider(
        source="docs.fireworks.ai/tools-sdks/openai-compatibility",
        base_url="https://api.fireworks.ai/inference/v1",
        limits=FIREWORKS_LIMITS,
    ),
    "mistral": MISTRAL,
    "codestral": replace(MISTRAL, base_url="https://codestral.mistral.ai/v1"),
    "deepseek": _open("api-docs.deepseek.com", "https://api.deepseek.com/v1"),
    "xai": Provider(
        source="docs.x.ai/developers/cost-tracking",  # 1 USD = 10^10 ticks
        base_url="https://api.x.ai/v1",
        cost_field="cost_in_usd_ticks",
        cost_exponent=-10,
        # docs.x.ai/docs/guides/reasoning: these three in a request to a reasoning model are an error.
        quirks=(Quirk(models=r"grok-(3-mini|4)", lacks=frozenset({"presence_penalty", "frequency_penalty", "stop"})),),
    ),
    "perplexity": Provider(
        source="docs.perplexity.ai/guides/chat-completions-guide",  # no /v1, and every chunk has the usage
        base_url="https://api.perplexity.ai",
        asks_usage=False,
    ),
    "openrouter": Provider(
        source="openrouter.ai/docs/use-cases/usage-accounting",  # usage unasked, cost in credits of one dollar
        base_url="https://openrouter.ai/api/v1",
        asks_usage=False,
        cost_field="cost",
    ),
    "cerebras": Provider(
        source="inference-docs.cerebras.ai/resources/openai",  # fields that "result in a 400 error if supplied"
        base_url="https://api.cerebras.ai/v1",
        lacks=frozenset({"frequency_penalty", "logit_bias", "presence_penalty", "parallel_tool_calls", "service_tier"}),
        limits=CEREBRAS_LIMITS,
    ),
    "sambanova": _open("docs.sambanova.ai/docs/en/features/openai-compatibility", "https://api.sambanova.ai/v1"),
    "nvidia_nim": _open("docs.api.nvidia.com/nim/reference", "https://integrate.api.nvidia.com/v1"),
    "deepinfra": _open("deepinfra.com/docs/openai_api", "https://api.deepinfra.com/v1/openai"),
    "moonshot": _open("platform.moonshot.ai/docs", "https://api.moonshot.ai/v1"),
    # Servers of the user's own; their default ports are those of their documentation.
    "hosted_vllm": _open("docs.vllm.ai/en/latest/serving/openai_compatible_server.html"),
    "vllm": _open("docs.vllm.ai/en/latest/serving/openai_compatible_server.html"),
    "openai_like": _open("docs.litellm.ai/docs/providers/openai_compatible"),
    "custom_openai": _open("docs.litellm.ai/docs/providers/openai_compatible"),
    "litellm_proxy": _open("docs.litellm.ai/docs/providers/litellm_proxy"),
    "ollama": _open("docs.ollama.com/api/openai-compatibility", "http://localhost:11434/v1", path="/v1"),
    "ollama_chat": _open("docs.ollama.com/api/openai-compatibility", "http://localhost:11434/v1", path="/v1"),
    "lm_studio": _open("lmstudio.ai/docs/app/api/endpoints/openai", "http://localhost:1234/v1"),
    "llamafile": _open("docs.litellm.ai/docs/providers/llamafile", "http://127.0.0.1:8080/v1"),
    "sglang": _open("docs.sglang.ai/basic_usage/openai_api.html"),
    "tgi": _open("huggingface.co/docs/text-generation-inference/messages_api"),
    "llamacpp": _open("github.com/ggml-org/llama.cpp/tree/master/tools/server"),
    "localai": _open("localai.io/features/openai-functions"),
    "infinity": _open("github.com/michaelfeil/infinity"),
    "xinference": _open("inference.readthedocs.io/en/latest/user_guide/client_api.html"),
    "docker_model_runner": _open("docs.docker.com/ai/model-runner/api-reference"),
    # Hosted models of many makers, each with an OpenAI-compatible endpoint.
    "anyscale": _open("docs.litellm.ai/docs/providers/anyscale", "https://api.endpoints.anyscale.com/v1"),
    "empower": _open("docs.litellm.ai/docs/providers/empower", "https://app.empower.dev/api/v1"),
    "friendliai": _open("friendli.ai/docs/openapi", "https://api.friendli.ai/serverless/v1"),
    "galadriel": _open("docs.litellm.ai/docs/providers/galadriel", "https://api.galadriel.com/v1"),
    "nscale": _open("docs.nscale.com", "https://inference.api.nscale.com/v1"),
    "featherless_ai": _open("featherless.ai/docs", "https://api.featherless.ai/v1"),
    "nebius": _open("docs.nebius.com/studio", "https://api.studio.nebius.ai/v1"),
    "lambda_ai": _open("docs.lambda.ai", "https://api.lambda.ai/v1"),
    "hyperbolic": _open("docs.hyperbolic.xyz", "https://api.hyperbolic.xyz/v1"),
    "wandb": _open("docs.wandb.ai/inference", "https://api.inference.wandb.ai/v1"),
    "clarifai": _open("docs.clarifai.com", "https://api.clarifai.com/v2/ext/openai/v1"),
    "scaleway": _open("scaleway.com/en/docs/generative-apis", "https://api.scaleway.ai/v1"),
    "gmi": _open("docs.litellm.ai/docs/providers/gmi", "https://api.gmi-serving.com/v1"),
    "crusoe": _older("docs.litellm.ai/docs/providers/crusoe", "https://managed-inference-api-proxy.crusoecloud.com/v1"),
    "chutes": _older("docs.litellm.ai/docs/providers/chutes", "https://llm.chutes.ai/v1"),
    "salad_cloud": _open("docs.litellm.ai/docs/providers/salad_cloud", "https://ai.salad.cloud/v1"),
    "charity_engine": _older(
        "docs.litellm.ai/docs/providers/charity_engine", "https://api.charityengine.services/remotejobs/v2/inference"
    ),
    "abliteration": _open("docs.litellm.ai/docs/providers/abliteration", "https://api.abliteration.ai/v1"),
    "llamagate": _older("docs.litellm.ai/docs/providers/llamagate", "https://api.llamagate.dev/v1"),
    "synthetic": _older("docs.litellm.ai/docs/providers/synthetic", "https://api.synthetic.new/openai/v1"),
    "huggingface": _open("huggingface.co/docs/inference-providers", "https://router.huggingface.co/v1"),
    "baseten": _open("docs.baseten.co", "https://inference.baseten.co/v1"),
    "novita": _open("novita.ai/docs/guides/llm-api", "https://api.novita.ai/v3/openai"),
    "databricks": _open("docs.databricks.com/aws/en/machine-learning/foundation-model-apis/api-reference"),
    "snowflake": _open("docs.snowflake.com/en/user-guide/snowflake-cortex/cortex-rest-api"),
    # Makers of models.
    "meta_llama": _open("llama.developer.meta.com/docs", "https://api.llama.com/compat/v1"),
    "ai21": _open("docs.ai21.com", "https://api.ai21.com/studio/v1"),
    "ai21_chat": _open("docs.ai21.com", "https://api.ai21.com/studio/v1"),
    "volcengine": _open("volcengine.com/docs/82379", "https://ark.cn-beijing.volces.com/api/v3"),
    "dashscope": _open(
        "alibabacloud.com/help/en/model-studio", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"
    ),
    "v0": _open("v0.dev/docs/v0-model-api", "https://api.v0.dev/v1"),
    "morph": _open("docs.morphllm.com", "https://api.morphllm.com/v1"),
    "publicai": _older("docs.litellm.ai/docs/providers/publicai", "https://api.publicai.co/v1"),
    "xiaomi_mimo": _older("docs.litellm.ai/docs/providers/xiaomi_mimo", "https://api.xiaomimimo.com/v1"),
    "sarvam": _older("docs.sarvam.ai", "https://api.sarvam.ai/v1"),
    # Gateways before other providers.
    "github": _open("docs.github.com/en/github-models", "https://models.inference.ai.azure.com"),
    "vercel_ai_gateway": _open("vercel.com/docs/ai-gateway", "https://ai-gateway.vercel.sh/v1"),
    "helicone": _open("docs.helicone.ai", "https://ai-gateway.helicone.ai"),
    "veniceai": _open("docs.venice.ai", "https://api.venice.ai/api/v1"),
    "nano-gpt": _older("docs.nano-gpt.com", "https://nano-gpt.com/api/v1"),
    "poe": _older("creator.poe.com/docs", "https://api.poe.com/v1"),
    "apertis": _older("docs.litellm.ai/docs/providers/apertis", "https://api.stima.tech/v1"),
    "aihubmix": _open("docs.aihubmix.com", "https://aihubmix.com/v1"),
    "assemblyai": _open("assemblyai.com/docs/llm-gateway", "https://llm-gateway.assemblyai.com/v1"),
}
"""Name → row."""
