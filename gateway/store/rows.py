"""A span as rows of the database."""

from collections.abc import Mapping
from typing import Any

from gateway.core.complete import Draft
from gateway.core.jsontext import dump, is_unicode
from gateway.core.reading import JSON_COLUMNS, stored_time
from gateway.core.span import Span

SPAN_COLUMNS = (
    "organization_id",
    "unique_id",
    "organization_key_id",
    "organization_key_name",
    "environment",
    "log_method",
    "model",
    "response_model",
    "upstream",
    "provider_id",
    "log_type",
    "stream",
    "status",
    "status_code",
    "error_code",
    "error_message",
    "warnings",
    "start_time",
    "timestamp",
    "latency",
    "time_to_first_token",
    "tokens_per_second",
    "routing_time",
    "prompt_tokens",
    "completion_tokens",
    "total_request_tokens",
    "prompt_cache_hit_tokens",
    "prompt_cache_creation_tokens",
    "reasoning_tokens",
    "cost_picos",
    "prompt_unit_price",
    "completion_unit_price",
    "customer_identifier",
    "customer_email",
    "customer_name",
    "thread_identifier",
    "session_identifier",
    "custom_identifier",
    "group_identifier",
    "evaluation_identifier",
    "trace_unique_id",
    "trace_group_identifier",
    "span_unique_id",
    "span_parent_id",
    "span_name",
    "span_workflow_name",
    "metadata",
    "properties",
    "positive_feedback",
    "note",
    "category",
    "prompt_id",
    "prompt_name",
    "is_custom_prompt",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "max_tokens",
    "disable_log",
)
CONTENT_COLUMNS = (
    "input",
    "output",
    "usage",
    "customer_params",
    "tool_calls",
    "full_request",
    "full_response",
    "tools",
    "tool_choice",
    "response_format",
    "stop",
    "variables",
    "extras",
)
# What an open row says of a call that is under way.
OPEN_COLUMNS = (
    "organization_id",
    "unique_id",
    "organization_key_id",
    "organization_key_name",
    "environment",
    "log_method",
    "model",
    "upstream",
    "log_type",
    "stream",
    "status",
    "status_code",
    "start_time",
    "timestamp",
    "trace_unique_id",
    "trace_group_identifier",
    "span_unique_id",
    "span_parent_id",
    "span_name",
    "is_custom_prompt",
    "temperature",
    "top_p",
)
# The columns that a late count of tokens changes.
COUNTED_COLUMNS = (
    "status",
    "warnings",
    "prompt_tokens",
    "completion_tokens",
    "total_request_tokens",
    "cost_picos",
    "tokens_per_second",
)

Values = tuple[Any, ...]


def span_values(draft: Draft) -> Values:
    """The values of SPAN_COLUMNS."""
    return _values(draft, SPAN_COLUMNS)


def content_values(draft: Draft) -> Values:
    """The values of CONTENT_COLUMNS."""
    return _values(draft, CONTENT_COLUMNS)


def open_values(fields: Mapping[str, Any]) -> Values:
    """The values of OPEN_COLUMNS."""
    return tuple(_stored(name, fields.get(name)) for name in OPEN_COLUMNS)


def counted_values(draft: Draft) -> Values:
    """The values of COUNTED_COLUMNS."""
    return _values(draft, COUNTED_COLUMNS)


def size(values: Values) -> int:
    """About how many bytes the values hold while they wait."""
    return 8 * len(values) + sum(len(value) for value in values if isinstance(value, str))


def _values(draft: Draft, columns: tuple[str, ...]) -> Values:
    return tuple(draft.cost_picos if name == "cost_picos" else _value(draft.span, name) for name in columns)


def _value(span: Span, name: str) -> Any:
    if name == "extras":
        return dump(span.extras) if span.extras else None
    return _stored(name, getattr(span, name))


def _stored(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _JSON:
        return dump(value)
    if name in ("start_time", "timestamp"):
        return stored_time(value)
    if isinstance(value, str) and not is_unicode(value):
        return value.encode("utf-8", "replace").decode()
    return value


_JSON = frozenset(JSON_COLUMNS)
