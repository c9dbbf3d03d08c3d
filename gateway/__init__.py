"""A self-hosted LLM gateway: forwards calls, keeps one durable span per call."""

__version__ = "0.1.0"
