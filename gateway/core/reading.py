"""What a reader of the API gets of a stored span: the shape of Respan's `retrieve span`."""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gateway.core import content, preview
from gateway.core.jsontext import dump, parse_or_none
from gateway.core.span import CONTENT, FIELDS, LEGACY

# Columns of the view `spans` by how they are stored.
JSON_COLUMNS = (
    "warnings",
    "usage",
    "customer_params",
    "metadata",
    "properties",
    "input",
    "output",
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
_CONTENT_COLUMNS = (*CONTENT, "extras")
# Characters of content that one page of a list holds.
PAGE_CONTENT_AT_MOST = 16 * 1024 * 1024
BOOL_COLUMNS = ("stream", "positive_feedback", "is_custom_prompt", "disable_log")

# What a row has where nothing was stored, or asked for.
_EMPTY: Mapping[str, None] = dict.fromkeys((*FIELDS.difference(LEGACY), "extras"))

# Columns that are no fields of a span.
_OF_THE_STORE = frozenset({"row_id", "seq", "is_open", "cost_picos"})
# Fields of the API that say nothing here yet; clients expect them to be there. Who posted one gets it back where it is
# of the type that clients read.
_NOT_OURS: Mapping[str, Any] = {
    **dict.fromkeys(("period_start", "period_end"), datetime),
    **dict.fromkeys(("deployment_id", "deployment_name"), str),
    "prompt_version_number": int,
    # An object of objects, which nothing here makes.
    "limit_info": None,
}
ALWAYS_NULL = tuple(_NOT_OURS)


def public(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the view `spans` as the API shows it."""
    fields = {name: value for name, value in row.items() if name not in _OF_THE_STORE}
    for name in JSON_COLUMNS:
        if fields[name] is not None:
            fields[name] = parse_or_none(fields[name])
    for name in BOOL_COLUMNS:
        if fields[name] is not None:
            fields[name] = bool(fields[name])
    extras = fields.pop("extras") or {}
    for name in _NOT_OURS.keys() & extras.keys():
        if not _is_read(name, extras[name]):
            del extras[name]
    fields["metadata"] = shown_metadata(fields["metadata"])
    conversation = fields["log_type"] in content.CONVERSATIONS
    messages = content.prompt_messages(fields["input"]) if conversation else None
    return {
        **dict.fromkeys(ALWAYS_NULL),
        **extras,
        "id": fields["unique_id"],
        **fields,
        "unique_organization_id": fields["organization_id"],
        "messages": messages,
        "prompt_messages": messages,
        "completion_message": content.completion_message(fields["output"]) if conversation else None,
        "completion_messages": content.completion_messages(fields["output"]) if conversation else None,
        "blurred": False,
        "scores": {},
    }


def _is_read(name: str, value: Any) -> bool:
    try:
        _reader_of(name).validate_python(value)
    except ValidationError:
        return False
    return True


@cache
def _reader_of(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_NOT_OURS[name])


def page_of(rows: Iterable[Mapping[str, Any]], wanted: Collection[str] | None = None) -> list[str]:
    """The JSON of each row as a list shows it; `wanted`: these fields alone, and the id, of rows that have
    `columns_of` them. Only who asks for them gets those of LISTED.

    Once a page holds PAGE_CONTENT_AT_MOST characters of content, the further rows come without theirs and say so
    (`content_omitted`): retrieve those one by one.
    """
    texts: list[str] = []
    room = PAGE_CONTENT_AT_MOST
    listed = [name for name in wanted or () if name in LISTED]
    # What a preview alone is made of takes no room.
    columns = None if wanted is None else columns_of(name for name in wanted if name not in LISTED)
    for row in rows:
        whole = row if columns is None else {**_EMPTY, **{name: row[name] for name in columns}}
        room -= sum(len(whole[name]) for name in JSON_COLUMNS if whole.get(name) is not None)
        span = public(whole if room >= 0 else {**whole, **dict.fromkeys(_CONTENT_COLUMNS)})
        if wanted is not None:
            span |= {name: LISTED[name](row) for name in listed}
            span = {name: span[name] for name in ("id", *wanted) if name in span}
        texts.append(dump(span if room >= 0 else {**span, "content_omitted": True}))
    return texts


def _input_preview(row: Mapping[str, Any]) -> str | None:
    return preview.of_input(parse_or_none(row["input"] or ""), row["log_type"])


def _output_preview(row: Mapping[str, Any]) -> str | None:
    tool_calls = parse_or_none(row["tool_calls"] or "")
    return preview.of_output(parse_or_none(row["output"] or ""), tool_calls, row["log_type"])


# What lists show to who asks for it, of a row of the view `spans`. A field of the caller's own of such a name does not
# stand before it.
LISTED: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "input_preview": _input_preview,
    "output_preview": _output_preview,
    "is_open": lambda row: bool(row["is_open"]),
}


def columns_of(fields: Iterable[str]) -> list[str]:
    """The columns of the view `spans` that these fields are made of."""
    found = ["unique_id", "log_type"]
    for name in fields:
        found += _MADE_OF.get(name, (name,) if name in _EMPTY else ("extras",))
    return list(dict.fromkeys(found))


_MADE_OF: Mapping[str, tuple[str, ...]] = {
    "id": (),
    "input_preview": ("input",),
    "output_preview": ("output", "tool_calls"),
    "is_open": ("is_open",),
    "unique_organization_id": ("organization_id",),
    "messages": ("input",),
    "prompt_messages": ("input",),
    "completion_message": ("output",),
    "completion_messages": ("output",),
    "blurred": (),
    "scores": (),
}


def shown_metadata(metadata: Any) -> dict[str, str] | None:
    """Values as text, and without the keys that begin with an underscore: those are reserved."""
    if not isinstance(metadata, dict):
        return None
    return {
        key: value if isinstance(value, str) else dump(value)
        for key, value in metadata.items()
        if not key.startswith("_")
    }


def stored_time(time: datetime) -> str:
    """ISO 8601, UTC, always with microseconds, so that texts sort as times do."""
    time = time if time.tzinfo is UTC else time.astimezone(UTC)
    # isoformat takes twice as long, most of it for the zone.
    minute = _minute(time.year, time.month, time.day, time.hour, time.minute)
    return f"{minute}:{time.second:02}.{time.microsecond:06}Z"


def stored_minute(time: datetime) -> str:
    """What `stored_time` begins with."""
    time = time if time.tzinfo is UTC else time.astimezone(UTC)
    return _minute(time.year, time.month, time.day, time.hour, time.minute)


@lru_cache(maxsize=256)
def _minute(year: int, month: int, day: int, hour: int, minute: int) -> str:
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}"
