"""Wire models only: what travels in Kafka values and OpenAI batch files. Imports pydantic and nothing of ours."""
