"""Masks secrets that stand in recorded requests and answers."""

import re
from collections.abc import Collection
from typing import Any

MASK = "***"

NAMES = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-amz-security-token",
        "aws-secret-access-key",
        "aws-session-token",
        "credentials",
        "credential-override",
        "customer-credentials",
    }
)
_ENDINGS = ("api-key", "apikey")
_letters = re.compile(r"[^a-z0-9]+")


def is_secret(name: str) -> bool:
    """Whether a header or member of this name holds a secret."""
    name = _letters.sub("-", name.lower()).strip("-")
    return name in NAMES or name.endswith(_ENDINGS)


def masked(value: Any, values: Collection[str] = ()) -> Any:
    """The value with secret members masked, and `values` wherever they stand in a text; itself where there is none."""
    if isinstance(value, str):
        for secret in values:
            value = value.replace(secret, MASK)
        return value
    if isinstance(value, dict):
        found = {key: MASK if item and is_secret(key) else masked(item, values) for key, item in value.items()}
        return found if any(found[key] is not item for key, item in value.items()) else value
    if isinstance(value, list):
        items = [masked(item, values) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value
