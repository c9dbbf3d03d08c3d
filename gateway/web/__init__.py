"""HTTP: the URL map as one table, errors as JSON, keys to callers, thin handlers."""
