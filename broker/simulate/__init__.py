"""Providers that are none: the OpenAI, Anthropic and Gemini APIs on this machine, with faults and limits on demand."""
