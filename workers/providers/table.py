"""The table of providers: one row each, named as LiteLLM's users write them in `provider/model`. Data and nothing else.

Every row names its source. Where only LiteLLM knows one (docs.litellm.ai/docs/providers/<name>), address and names
are those its users know. A provider that is not here is an OpenAI-compatible server when the configuration names its
address; a row of its own is needed for what it does differently.
"""

from typing import Final

from workers.providers.provider import Provider

MAX_TOKENS: Final = (("max_completion_tokens", "max_tokens"),)
"""Of servers that know the older name only."""

MISTRAL: Final = (*MAX_TOKENS, ("seed", "random_seed"))
"""docs.mistral.ai/api, chat completions."""

PROVIDERS: Final[dict[str, Provider]] = {
    # platform.openai.com/docs/api-reference
    "openai": Provider(base_url="https://api.openai.com/v1"),
    "text-completion-openai": Provider(base_url="https://api.openai.com/v1"),
    # platform.claude.com/docs/en/api/overview: key in x-api-key, a version in every call
    "anthropic": Provider(
        base_url="https://api.anthropic.com/v1",
        dialect="anthropic",
        auth="x-api-key",
        extra=(("anthropic-version", "2023-06-01"),),
        path="/v1",
    ),
    # ai.google.dev/api: the key in x-goog-api-key
    "gemini": Provider(
        base_url="https://generativelanguage.googleapis.com/v1beta",
        dialect="gemini",
        auth="x-goog-api-key",
        path="/v1beta",
    ),
    # docs.aws.amazon.com/bedrock/latest/APIReference: the address has the region in it; signed, or a Bedrock API key
    "bedrock": Provider(dialect="bedrock", auth="sigv4"),
    "bedrock_converse": Provider(dialect="bedrock", auth="sigv4"),  # docs.litellm.ai/docs/providers/bedrock
    # console.groq.com/docs/openai
    "groq": Provider(base_url="https://api.groq.com/openai/v1"),
    # docs.together.ai/docs/inference/openai-compatibility
    "together_ai": Provider(base_url="https://api.together.ai/v1"),
    # docs.fireworks.ai/tools-sdks/openai-compatibility
    "fireworks_ai": Provider(base_url="https://api.fireworks.ai/inference/v1"),
    # docs.mistral.ai/api: unknown fields are refused, and a stream's last chunk has the usage unasked
    "mistral": Provider(base_url="https://api.mistral.ai/v1", asks_usage=False, renames=MISTRAL),
    "codestral": Provider(base_url="https://codestral.mistral.ai/v1", asks_usage=False, renames=MISTRAL),
    # api-docs.deepseek.com
    "deepseek": Provider(base_url="https://api.deepseek.com/v1"),
    # docs.x.ai/developers/cost-tracking: 1 USD = 10^10 ticks
    "xai": Provider(base_url="https://api.x.ai/v1", cost_field="cost_in_usd_ticks", cost_exponent=-10),
    # docs.perplexity.ai: the address has no /v1, and every chunk has the usage
    "perplexity": Provider(base_url="https://api.perplexity.ai", asks_usage=False),
    # openrouter.ai/docs/use-cases/usage-accounting: usage unasked, cost in credits of one dollar
    "openrouter": Provider(base_url="https://openrouter.ai/api/v1", asks_usage=False, cost_field="cost"),
    # inference-docs.cerebras.ai/resources/openai
    "cerebras": Provider(base_url="https://api.cerebras.ai/v1"),
    # docs.sambanova.ai/docs/en/features/openai-compatibility
    "sambanova": Provider(base_url="https://api.sambanova.ai/v1"),
    # docs.api.nvidia.com/nim/reference
    "nvidia_nim": Provider(base_url="https://integrate.api.nvidia.com/v1"),
    # deepinfra.com/docs/openai_api
    "deepinfra": Provider(base_url="https://api.deepinfra.com/v1/openai"),
    # platform.moonshot.ai/docs
    "moonshot": Provider(base_url="https://api.moonshot.ai/v1"),
    # Servers of the user's own; their default ports are those of their documentation.
    "hosted_vllm": Provider(),  # docs.vllm.ai/en/latest/serving/openai_compatible_server.html
    "vllm": Provider(),
    "openai_like": Provider(),  # docs.litellm.ai/docs/providers/openai_compatible
    "custom_openai": Provider(),
    "litellm_proxy": Provider(),  # docs.litellm.ai/docs/providers/litellm_proxy
    "ollama": Provider(base_url="http://localhost:11434/v1", path="/v1"),  # docs.ollama.com/openai
    "ollama_chat": Provider(base_url="http://localhost:11434/v1", path="/v1"),
    "lm_studio": Provider(base_url="http://localhost:1234/v1"),  # lmstudio.ai/docs/app/api/endpoints/openai
    "llamafile": Provider(base_url="http://127.0.0.1:8080/v1"),  # docs.litellm.ai/docs/providers/llamafile
    # Hosted models of many makers, each with an OpenAI-compatible endpoint; names and addresses as on LiteLLM's pages.
    "anyscale": Provider(base_url="https://api.endpoints.anyscale.com/v1"),
    "empower": Provider(base_url="https://app.empower.dev/api/v1"),
    "friendliai": Provider(base_url="https://api.friendli.ai/serverless/v1"),  # friendli.ai/docs/openapi
    "galadriel": Provider(base_url="https://api.galadriel.com/v1"),
    "nscale": Provider(base_url="https://inference.api.nscale.com/v1"),  # docs.nscale.com
    "featherless_ai": Provider(base_url="https://api.featherless.ai/v1"),  # featherless.ai/docs
    "nebius": Provider(base_url="https://api.studio.nebius.ai/v1"),  # docs.nebius.com/studio
    "lambda_ai": Provider(base_url="https://api.lambda.ai/v1"),  # docs.lambda.ai
    "hyperbolic": Provider(base_url="https://api.hyperbolic.xyz/v1"),  # docs.hyperbolic.xyz
    "wandb": Provider(base_url="https://api.inference.wandb.ai/v1"),  # docs.wandb.ai/inference
    "clarifai": Provider(base_url="https://api.clarifai.com/v2/ext/openai/v1"),  # docs.clarifai.com
    "scaleway": Provider(base_url="https://api.scaleway.ai/v1"),  # scaleway.com/en/docs/generative-apis
    "gmi": Provider(base_url="https://api.gmi-serving.com/v1"),
    "crusoe": Provider(base_url="https://managed-inference-api-proxy.crusoecloud.com/v1", renames=MAX_TOKENS),
    "chutes": Provider(base_url="https://llm.chutes.ai/v1", renames=MAX_TOKENS),
    "salad_cloud": Provider(base_url="https://ai.salad.cloud/v1"),
    "charity_engine": Provider(
        base_url="https://api.charityengine.services/remotejobs/v2/inference", renames=MAX_TOKENS
    ),
    "abliteration": Provider(base_url="https://api.abliteration.ai/v1"),
    "llamagate": Provider(base_url="https://api.llamagate.dev/v1", renames=MAX_TOKENS),
    "synthetic": Provider(base_url="https://api.synthetic.new/openai/v1", renames=MAX_TOKENS),
    "huggingface": Provider(base_url="https://router.huggingface.co/v1"),  # huggingface.co/docs/inference-providers
    "baseten": Provider(base_url="https://inference.baseten.co/v1"),  # docs.baseten.co, Model APIs
    "novita": Provider(),
    "databricks": Provider(),  # docs.databricks.com: https://<workspace>/serving-endpoints
    "snowflake": Provider(),  # docs.snowflake.com, Cortex REST API: the address has the account in it
    # Makers of models.
    "meta_llama": Provider(base_url="https://api.llama.com/compat/v1"),  # llama.developer.meta.com/docs
    "ai21": Provider(base_url="https://api.ai21.com/studio/v1"),  # docs.ai21.com
    "ai21_chat": Provider(base_url="https://api.ai21.com/studio/v1"),
    "volcengine": Provider(base_url="https://ark.cn-beijing.volces.com/api/v3"),  # volcengine.com/docs/82379
    "dashscope": Provider(base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),  # alibabacloud.com/help
    "v0": Provider(base_url="https://api.v0.dev/v1"),  # v0.dev/docs/v0-model-api
    "morph": Provider(base_url="https://api.morphllm.com/v1"),  # docs.morphllm.com
    "publicai": Provider(base_url="https://api.publicai.co/v1", renames=MAX_TOKENS),
    "xiaomi_mimo": Provider(base_url="https://api.xiaomimimo.com/v1", renames=MAX_TOKENS),
    "sarvam": Provider(base_url="https://api.sarvam.ai/v1", renames=MAX_TOKENS),  # docs.sarvam.ai
    # Gateways before other providers.
    "github": Provider(base_url="https://models.inference.ai.azure.com"),  # docs.github.com/en/github-models
    "vercel_ai_gateway": Provider(base_url="https://ai-gateway.vercel.sh/v1"),  # vercel.com/docs/ai-gateway
    "helicone": Provider(base_url="https://ai-gateway.helicone.ai"),  # docs.helicone.ai
    "veniceai": Provider(base_url="https://api.venice.ai/api/v1"),  # docs.venice.ai
    "nano-gpt": Provider(base_url="https://nano-gpt.com/api/v1", renames=MAX_TOKENS),  # docs.nano-gpt.com
    "poe": Provider(base_url="https://api.poe.com/v1", renames=MAX_TOKENS),  # creator.poe.com/docs
    "apertis": Provider(base_url="https://api.stima.tech/v1", renames=MAX_TOKENS),
    "aihubmix": Provider(base_url="https://aihubmix.com/v1"),  # docs.aihubmix.com
    "assemblyai": Provider(base_url="https://llm-gateway.assemblyai.com/v1"),  # assemblyai.com/docs/llm-gateway
    # More servers of the user's own.
    "sglang": Provider(),  # docs.sglang.ai, OpenAI-compatible APIs
    "tgi": Provider(),  # huggingface.co/docs/text-generation-inference, Messages API
    "llamacpp": Provider(),  # github.com/ggml-org/llama.cpp, tools/server
    "localai": Provider(),  # localai.io
    "xinference": Provider(),  # inference.readthedocs.io
    "docker_model_runner": Provider(),  # docs.docker.com/ai/model-runner
}
"""Name → row."""
