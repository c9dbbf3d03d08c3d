"""Token counts out of a `usage` object, whoever's dialect it speaks.

OpenAI chat: `prompt_tokens` includes cached tokens (https://platform.openai.com/docs/api-reference/chat/object).
OpenAI Responses: `input_tokens` with `input_tokens_details` includes them too.
Anthropic: `input_tokens` excludes cache reads and writes, which stand beside it
(https://docs.anthropic.com/en/api/messages, `usage`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

# What a usage object says by itself, as whole numbers.
COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_creation_prompt_tokens",
    "cache_read_input_tokens",
    "reasoning_tokens",
)
_COUNTS = frozenset(COUNTS)
_INT64 = 2**63


class Usage(NamedTuple):
    """What a provider reported; None where it said nothing. `cache_is_extra`: prompt_tokens exclude cached ones."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    cache_creation_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_is_extra: bool = False


def read(usage: Mapping[str, Any]) -> Usage:
    """Reads any dialect; what is no count is passed over."""
    of_prompt = _details(usage, "prompt_tokens_details", "input_tokens_details")
    of_completion = _details(usage, "completion_tokens_details", "output_tokens_details")
    prompt = _first(usage, "prompt_tokens")
    return Usage(
        prompt_tokens=prompt if prompt is not None else _first(usage, "input_tokens"),
        completion_tokens=_first(usage, "completion_tokens", "output_tokens"),
        total_tokens=_first(usage, "total_tokens"),
        cached_tokens=_either(
            _first(usage, "cache_read_input_tokens", "prompt_cache_hit_tokens"), _first(of_prompt, "cached_tokens")
        ),
        cache_creation_tokens=_either(
            _first(
                usage, "cache_creation_input_tokens", "cache_creation_prompt_tokens", "prompt_cache_creation_tokens"
            ),
            _first(of_prompt, "cache_creation_tokens", "cache_write_tokens"),
        ),
        reasoning_tokens=_either(_first(of_completion, "reasoning_tokens"), _first(usage, "reasoning_tokens")),
        cache_is_extra=prompt is None
        and not of_prompt
        and _first(usage, "cache_read_input_tokens", "cache_creation_input_tokens") is not None,
    )


def mistakes(usage: Mapping[str, Any]) -> list[str]:
    """The known counts in a usage object that a caller sent which are no whole numbers."""
    wrong = {name for name, value in usage.items() if value is not None and name in _COUNTS and count(value) is None}
    return [name for name in COUNTS if name in wrong] if wrong else []


def count(value: object) -> int | None:
    """A token count, or None for anything that is none."""
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -_INT64 <= value < _INT64:
        return None
    return value


def _first(counts: Mapping[str, Any], *names: str) -> int | None:
    """The first of these that is a count."""
    for name in names:
        value = counts.get(name)
        if type(value) is int and -_INT64 <= value < _INT64:
            return value
        if value is not None and (number := count(value)) is not None:
            return number
    return None


def _either(first: int | None, second: int | None) -> int | None:
    return first if first is not None else second


def _details(usage: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        if isinstance(details := usage.get(name), dict):
            return details
    return {}
