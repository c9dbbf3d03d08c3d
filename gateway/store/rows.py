"""A span as rows of the database."""

from collections.abc import Mapping
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

from gateway.core.complete import Draft
from gateway.core.jsontext import dump, is_unicode
from gateway.core.prices import usd
from gateway.core.reading import JSON_COLUMNS, stored_time

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
    "gateway_log_id",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "max_tokens",
    "disable_log",
    "cost_picos",
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
    # No field of a span, but what it has beside them. The last.
    "extras",
)
# Of what is written to files, in the view `spans`: `cost` in USD for reading, `cost_picos` for reading back exactly.
RECORD_COLUMNS = (*SPAN_COLUMNS, "cost", *CONTENT_COLUMNS)
# Those that most spans fill. SQLite takes half the time for a row of these alone, and fills the others with NULL.
COMMON_SPAN_COLUMNS = (
    *("organization_id", "unique_id", "organization_key_id", "organization_key_name", "environment", "log_method"),
    *("model", "response_model", "upstream", "log_type", "stream", "status", "status_code", "start_time", "timestamp"),
    *("latency", "time_to_first_token", "tokens_per_second", "routing_time"),
    *("prompt_tokens", "completion_tokens", "total_request_tokens"),
    *("prompt_cache_hit_tokens", "prompt_cache_creation_tokens", "reasoning_tokens"),
    *("customer_identifier", "span_unique_id", "metadata"),
    *("is_custom_prompt", "temperature", "top_p", "max_tokens", "cost_picos"),
)
COMMON_CONTENT_COLUMNS = ("input", "output", "usage", "tool_calls", "full_request", "full_response", "tools")
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
    "tokens_per_second",
    "cost_picos",
)

# In the place of a text that stands in the whole request or answer already (`content.PARTS`). No JSON text is this one.
SAME = "="
# About what a row has without its content.
_ROW_BYTES = 1000

Values = tuple[Any, ...]


class Row(NamedTuple):
    """Values of these columns; NULL in all others."""

    columns: tuple[str, ...]
    values: Values


def span_row(draft: Draft, *, whole: bool = False) -> Row:
    """What goes into `span`; `whole`: all columns, since the row may be there and hold something."""
    columns = _span if whole or _rare_in_span(vars(draft.span)) != _NONE_IN_SPAN else _common_span
    return Row(columns.names, _values(draft, columns))


def content_row(draft: Draft) -> Row:
    """What goes into `content`."""
    write, inside, fields, extras = draft.texts.of, draft.inside, vars(draft.span), draft.span.extras
    names = CONTENT_COLUMNS if extras or _rare_in_content(fields) != _NONE_IN_CONTENT else COMMON_CONTENT_COLUMNS
    values = [
        None if (value := fields.get(name)) is None else SAME if name in inside else write(value) for name in names
    ]
    if extras:
        values[-1] = write(extras)
    return Row(names, tuple(values))


def view_row(draft: Draft) -> dict[str, Any]:
    """What the view `spans` says of a posted span once it is stored."""
    named: dict[str, Any] = dict.fromkeys((*SPAN_COLUMNS, *CONTENT_COLUMNS))
    for row in (span_row(draft), content_row(draft)):
        named.update(zip(row.columns, row.values, strict=True))
    return {**named, "cost": None if draft.cost_picos is None else usd(draft.cost_picos)}


def open_values(fields: Mapping[str, Any]) -> Values:
    """The values of OPEN_COLUMNS."""
    return tuple(stored(name, fields.get(name)) for name in OPEN_COLUMNS)


def counted_values(draft: Draft) -> Values:
    """The values of COUNTED_COLUMNS."""
    return _values(draft, _counted)


def size(content: Row) -> int:
    """About how many bytes a span with this content holds while it waits."""
    return _ROW_BYTES + sum([len(text) for text in content.values if text is not None])


def _values(draft: Draft, columns: "_Columns") -> Values:
    values = [*columns.of(vars(draft.span)), draft.cost_picos]
    for at in columns.times:
        if (time := values[at]) is not None:
            values[at] = stored_time(time)
    for at in columns.json:
        if (value := values[at]) is not None:
            values[at] = draft.texts.of(value)
    if not "".join([value for value in values if type(value) is str]).isascii():
        values = [writable(value) if type(value) is str else value for value in values]
    return tuple(values)


def stored(name: str, value: Any) -> Any:
    """A field's value as its column has it."""
    if value is None:
        return None
    if name in _JSON:
        return dump(value)
    if isinstance(value, datetime):
        return stored_time(value)
    return writable(value) if isinstance(value, str) else value


def writable(text: str) -> str:
    """The text without lone surrogates, which SQLite does not take."""
    return text if is_unicode(text) else text.encode("utf-8", "replace").decode()


class _Columns:
    """Columns, and which of them are kept in another form than a span has them. `of` gives their fields."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        # No field of a span: it stands with the draft, and comes last.
        self.of = itemgetter(*(name for name in names if name != "cost_picos"))
        self.times = [at for at, name in enumerate(names) if name in ("start_time", "timestamp")]
        self.json = [at for at, name in enumerate(names) if name in _JSON]


_JSON = frozenset(JSON_COLUMNS)
_span, _common_span, _counted = map(_Columns, (SPAN_COLUMNS, COMMON_SPAN_COLUMNS, COUNTED_COLUMNS))
_RARE_IN_SPAN = tuple(name for name in SPAN_COLUMNS if name not in COMMON_SPAN_COLUMNS)
_RARE_IN_CONTENT = tuple(name for name in CONTENT_COLUMNS[:-1] if name not in COMMON_CONTENT_COLUMNS)
_rare_in_span, _NONE_IN_SPAN = itemgetter(*_RARE_IN_SPAN), (None,) * len(_RARE_IN_SPAN)
_rare_in_content, _NONE_IN_CONTENT = itemgetter(*_RARE_IN_CONTENT), (None,) * len(_RARE_IN_CONTENT)
