"""The only way out: what is configured, which of it serves a model, and how it is talked to."""
