"""Filters, as Respan's API has them: which spans a list or a sum is of. What they mean in SQL is the store's to say.

    {"model": {"operator": "in", "value": ["a", "b"]},
     "cost": [{"operator": "gte", "value": [0.01]}, {"operator": "lt", "value": [1]}],
     "either": {"connector": "OR", "filter_params": {"status": …, "metadata__plan": …}}}

Every field has to hold, and every condition of a field. A bundle (`filter_params`, under whatever name, or as the
whole) is joined by its own `connector`: AND is all of it, OR is any of it. The `connector` of a condition joins it to
the next.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gateway.core.jsontext import dump, is_unicode
from gateway.core.reading import stored_time
from gateway.core.span import Time
from gateway.errors import MalformedBody


class Kind(Enum):
    """How the values of a field compare."""

    TEXT = "text"
    WHOLE = "a whole number"
    NUMBER = "a number"
    USD = "a number of USD"
    BOOL = "true or false"
    TIME = "an ISO 8601 time"
    OBJECT = "an object"
    CONTENT = "content"


_KINDS: Mapping[Kind, Sequence[str]] = {
    Kind.TEXT: (
        *("unique_id", "trace_unique_id", "trace_group_identifier", "span_unique_id", "span_parent_id", "span_name"),
        *("span_workflow_name", "thread_identifier", "session_identifier", "customer_identifier", "customer_email"),
        *("customer_name", "custom_identifier", "group_identifier", "evaluation_identifier", "organization_key_id"),
        *("organization_key_name", "prompt_id", "prompt_name", "model", "response_model"),
        *("upstream", "provider_id", "deployment_name", "log_type", "log_method", "status", "environment", "category"),
        *("error_class", "error_code", "error_message", "error_fingerprint", "fault_domain", "cache_key", "note"),
        "behaviors",
    ),
    Kind.WHOLE: (
        *("status_code", "prompt_tokens", "completion_tokens", "total_request_tokens", "reasoning_tokens"),
        *("prompt_cache_hit_tokens", "prompt_cache_creation_tokens", "max_tokens", "prompt_version_number"),
    ),
    Kind.NUMBER: ("latency", "time_to_first_token", "tokens_per_second", "routing_time", "temperature", "top_p"),
    Kind.USD: ("cost",),
    Kind.BOOL: (
        *("stream", "has_tool_calls", "cache_bit", "used_custom_credential", "positive_feedback", "is_root_span"),
        *("is_custom_prompt", "disable_log"),
    ),
    Kind.TIME: ("timestamp", "start_time"),
    Kind.OBJECT: ("metadata", "properties"),
    Kind.CONTENT: ("input", "output", "search"),
}
# By name, in the order of the API's page.
FIELDS: Mapping[str, Kind] = {name: kind for kind, names in _KINDS.items() for name in names}
ALIASES: Mapping[str, str] = {
    "id": "unique_id",
    "trace_id": "trace_unique_id",
    "total_cost": "cost",
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "total_tokens": "total_request_tokens",
    "all_tokens": "total_request_tokens",
    "ttft": "time_to_first_token",
    "generation_time": "latency",
    "name": "span_name",
}
# Before the name of a key in an object of the caller's; values of `metadata` are text, as they are read back.
KEYED = ("metadata__", "properties__", "scores__")
# Input and output, both.
ANY_CONTENT = "search"

EQUALS, NOT, EMPTY, NOT_EMPTY, HAS_KEY, FULL_TEXT = "", "not", "empty", "not_empty", "has_key", "full_text_search"
# Of a time, from a first value to a last one; either may be None. It is not asked for by name.
BETWEEN = "between"
_ORDER = ("lt", "lte", "gt", "gte")
_EQUALITY = (EQUALS, "in", NOT, "not_in", EMPTY, NOT_EMPTY)
_WITHIN = ("contains", "not_contains", "icontains")
_OF_TEXT = (
    *(*_EQUALITY, *_ORDER, *_WITHIN, "startswith", "not_startswith", "endswith", "not_endswith", "iexact", "ilike"),
    *("regex", "trigram_word_similar", "overlap", "not_overlap", "isnull"),
)
_BY_LIKENESS = frozenset(_OF_TEXT) - frozenset((*_EQUALITY, *_ORDER, "overlap", "not_overlap", "isnull")) | {FULL_TEXT}
_OF_NUMBERS = (*_EQUALITY, *_ORDER, "isnull")
OPERATORS: Mapping[Kind, Sequence[str]] = {
    Kind.TEXT: _OF_TEXT,
    Kind.WHOLE: _OF_NUMBERS,
    Kind.NUMBER: _OF_NUMBERS,
    Kind.USD: _OF_NUMBERS,
    Kind.BOOL: (*_EQUALITY, "isnull"),
    Kind.TIME: _OF_NUMBERS,
    Kind.OBJECT: (HAS_KEY, EMPTY, NOT_EMPTY, *_WITHIN, "isnull"),
    Kind.CONTENT: (FULL_TEXT, *_WITHIN, EMPTY, NOT_EMPTY, "isnull"),
}
_SAME = {"=": "", "==": "", "eq": "", "equals": "", "in": "", "overlap": "", "not_in": NOT, "not_overlap": NOT}
_SAME |= {"notempty": NOT_EMPTY}

CONDITIONS_AT_MOST = 200
VALUES_AT_MOST = 10_000
PATTERN_AT_MOST = 1000
# Each takes a look of its own at each row.
LIKENESSES_AT_MOST = 50
_DEPTH_AT_MOST = 20


@dataclass(frozen=True, slots=True)
class Condition:
    """One field, by its public name, beside values of its kind. `key`: of the field, an object, this member.

    `operator`: `in` is EQUALS and `not_in` is NOT here; a value that is None stands for nothing at all.
    """

    field: str
    operator: str
    values: tuple[Any, ...] = ()
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Every:
    """All of these; everything where there are none."""

    parts: "tuple[Filter, ...]" = ()


@dataclass(frozen=True, slots=True)
class Either:
    """Any of these."""

    parts: "tuple[Filter, ...]"


Filter = Condition | Every | Either


class Fields:
    """What can be filtered by somewhere: fields and their kinds, other names, and whether keys of objects can."""

    def __init__(self, kinds: Mapping[str, Kind], aliases: Mapping[str, str], keyed: Sequence[str] = ()) -> None:
        self._kinds = kinds
        self._aliases = aliases
        self._keyed = keyed

    def kind_of(self, name: str) -> Kind:
        """How a field compares. Raises MalformedBody where there is none."""
        return self.resolved(name)[2]

    def resolved(self, name: str) -> tuple[str, str | None, Kind]:
        """What a name stands for: a field, the key of a member of it, and how that compares. Raises MalformedBody where
        there is none."""
        known = self._aliases.get(name, name)
        if (kind := self._kinds.get(known)) is not None:
            return known, None, kind
        if (found := _split(known, self._keyed)) is not None:
            field, key = found
            _unicode(field, key)
            return field, key, Kind.NUMBER if field == "scores" else Kind.TEXT
        raise MalformedBody(f"{name}: not a field to filter by; use {', '.join(self.names())}.")

    def names(self) -> list[str]:
        """What can be named."""
        return [*self._kinds, *(f"{prefix}<key>" for prefix in self._keyed)]

    def parse(self, filters: Any, connector: Any = None) -> Filter:
        """The filters of a request's body. Raises MalformedBody, which names what is wrong and what is allowed."""
        if filters is None or filters == []:
            return Every()
        if not isinstance(filters, dict):
            raise MalformedBody("filters: must be an object of fields, each with an operator and a value.")
        found = self._group(filters, _connector(connector, "filters"), 0)
        if sum(1 for _ in conditions(found)) > CONDITIONS_AT_MOST:
            raise MalformedBody(f"filters: at most {CONDITIONS_AT_MOST} conditions.")
        return found

    def condition(self, name: str, operator: Any, value: Any, *, told: str | None = None) -> Condition:
        """One condition; `told`: what a mistake is told of, if that is not the field. Raises MalformedBody."""
        field, key, kind = self.resolved(name)
        return _condition(told or name, field, key, kind, operator, value)

    def knows(self, name: str) -> bool:
        """Whether there is a field of this name."""
        name = self._aliases.get(name, name)
        return name in self._kinds or _split(name, self._keyed) is not None

    def _group(self, fields: Mapping[str, Any], connector: str, depth: int) -> Filter:
        if depth > _DEPTH_AT_MOST:
            raise MalformedBody(f"filters: bundles nested deeper than {_DEPTH_AT_MOST}.")
        if "filter_params" in fields:
            return self._bundle(fields, depth)
        parts: list[tuple[Filter, str]] = []
        for name, given in fields.items():
            if isinstance(given, dict) and "filter_params" in given:
                parts.append((self._bundle(given, depth), "AND"))
                continue
            several = isinstance(given, list) and any(isinstance(one, dict) for one in given)
            of_field = [self._given(name, one) for one in (given if several else [given])]
            parts.append((_joined(of_field), of_field[-1][1]))
        if connector == "OR":
            return Either(tuple(part for part, _ in parts)) if parts else Every()
        return _joined(parts)

    def _bundle(self, bundle: Mapping[str, Any], depth: int) -> Filter:
        if not isinstance(bundle["filter_params"], dict):
            raise MalformedBody("filter_params: must be an object of fields.")
        if unknown := sorted(set(bundle) - {"connector", "filter_params"}):
            raise MalformedBody(f"filters: a bundle has connector and filter_params, not {', '.join(unknown)}.")
        return self._group(bundle["filter_params"], _connector(bundle.get("connector"), "connector"), depth + 1)

    def _given(self, name: str, given: Any) -> tuple[Filter, str]:
        """A condition as it was sent, and how it is joined to the next. A bare value has to be equal."""
        if not isinstance(given, dict):
            return self.condition(name, EQUALS, given), "AND"
        if "value" not in given and _canonical(given.get("operator")) not in (EMPTY, NOT_EMPTY):
            raise MalformedBody(f"{name}: a condition has an operator and a value.")
        condition = self.condition(name, given.get("operator"), given.get("value"))
        return condition, _connector(given.get("connector"), name)


SPAN_FIELDS = Fields(FIELDS, ALIASES, KEYED)

# What a trace has itself.
OF_A_TRACE: Mapping[str, Kind] = {
    **dict.fromkeys(
        (
            *("trace_unique_id", "name", "customer_identifier", "environment", "organization_key_id"),
            *("trace_group_identifier", "session_identifier", "root_span_unique_id", "unique_organization_id"),
        ),
        Kind.TEXT,
    ),
    **dict.fromkeys(
        (
            *("span_count", "llm_call_count", "error_count", "total_prompt_tokens", "total_completion_tokens"),
            "total_request_tokens",
        ),
        Kind.WHOLE,
    ),
    "total_cost": Kind.USD,
    "duration": Kind.NUMBER,
    "start_time": Kind.TIME,
    "end_time": Kind.TIME,
}
# Of a trace, any span of which has these.
_OF_ANY_SPAN = (
    *("span_unique_id", "span_name", "span_workflow_name", "span_parent_id", "model", "provider_id", "deployment_name"),
    *("prompt_id", "prompt_name", "prompt_version_number", "log_type", "log_method", "status", "status_code"),
    *("error_class", "error_fingerprint", "error_code", "error_message", "cost", "latency", "time_to_first_token"),
    *("tokens_per_second", "routing_time", "prompt_tokens", "completion_tokens", "prompt_cache_hit_tokens"),
    *("prompt_cache_creation_tokens", "thread_identifier", "custom_identifier", "group_identifier", "timestamp"),
)
TRACE_FIELDS = Fields(
    {**OF_A_TRACE, **{name: FIELDS[name] for name in _OF_ANY_SPAN}},
    {"id": "trace_unique_id", "trace_id": "trace_unique_id"},
    ("metadata__",),
)
# By what traces are deleted.
DELETION_FIELDS = Fields(
    OF_A_TRACE, {"trace_id": "trace_unique_id", "total_tokens": "total_request_tokens"}, ("metadata__",)
)


def conditions(of: Filter) -> Iterator[Condition]:
    """All conditions in a filter."""
    if isinstance(of, Condition):
        yield of
    else:
        for part in of.parts:
            yield from conditions(part)


def both(*filters: Filter) -> Filter:
    """All of these."""
    return Every(tuple(one for one in filters if one != Every()))


def _joined(parts: Sequence[tuple[Filter, str]]) -> Filter:
    """Parts, each with what joins it to the next: AND holds closer than OR."""
    groups: list[list[Filter]] = [[]]
    for number, (part, connector) in enumerate(parts, 1):
        groups[-1].append(part)
        if connector == "OR" and number < len(parts):
            groups.append([])
    every = [group[0] if len(group) == 1 else Every(tuple(group)) for group in groups]
    return every[0] if len(every) == 1 else Either(tuple(every))


def _connector(given: Any, name: str) -> str:
    if given is None or given == "":
        return "AND"
    if isinstance(given, str) and given.upper() in ("AND", "OR"):
        return given.upper()
    raise MalformedBody(f"{name}: the connector must be AND or OR.")


def _split(name: str, prefixes: Sequence[str]) -> tuple[str, str] | None:
    for prefix in prefixes:
        if name.startswith(prefix) and len(name) > len(prefix):
            return prefix.removesuffix("__"), name.removeprefix(prefix)
    return None


def _canonical(operator: Any) -> str:
    if operator is None:
        return EQUALS
    if not isinstance(operator, str):
        raise MalformedBody("filters: an operator must be text.")
    lower = operator.lower()
    return _SAME.get(lower, lower)


def _condition(name: str, field: str, key: str | None, kind: Kind, operator: Any, value: Any) -> Condition:
    canonical = _canonical(operator)
    allowed = OPERATORS[kind]
    if canonical not in allowed:
        raise MalformedBody(f"{name}: {operator!r} is no operator here; use {_told(allowed)}.")
    values = value if isinstance(value, list) else [value]
    if len(values) > VALUES_AT_MOST:
        raise MalformedBody(f"{name}: at most {VALUES_AT_MOST:,} values.")
    if canonical in (EMPTY, NOT_EMPTY):
        return Condition(field, canonical, (), key)
    if not values:
        raise MalformedBody(f"{name}: the value is an empty list.")
    if canonical == "isnull":
        return Condition(field, EMPTY if _bool(name, values[0]) else NOT_EMPTY, (), key)
    if canonical in _ORDER:
        values = values[:1]
    if canonical in _BY_LIKENESS and len(values) > LIKENESSES_AT_MOST:
        raise MalformedBody(f"{name}: {canonical} takes at most {LIKENESSES_AT_MOST} values.")
    if field == "properties" and key is not None and canonical in (EQUALS, NOT, *_ORDER):
        return Condition(field, canonical, tuple(_native(name, value) for value in values), key)
    read = tuple(_value(name, kind, one) for one in values)
    if canonical not in (EQUALS, NOT) and None in read:
        raise MalformedBody(f"{name}: {canonical} needs a value.")
    if canonical in _BY_LIKENESS:
        _check_likenesses(name, canonical, read)
    if field == "status" and canonical in (EQUALS, NOT):
        read = tuple("failed" if one == "error" else one for one in read)
    return Condition(field, canonical, read, key)


def _check_likenesses(name: str, operator: str, patterns: Sequence[str]) -> None:
    # Takes its time to load, and few need it.
    import regex

    for pattern in patterns:
        if operator in ("regex", "ilike") and len(pattern) > PATTERN_AT_MOST:
            raise MalformedBody(f"{name}: a pattern has at most {PATTERN_AT_MOST} characters.")
        if operator == FULL_TEXT and len(pattern.split()) > LIKENESSES_AT_MOST:
            raise MalformedBody(f"{name}: at most {LIKENESSES_AT_MOST} words.")
        if operator != "regex":
            continue
        try:
            regex.compile(pattern)
        except regex.error as error:
            raise MalformedBody(f"{name}: {pattern!r} is no regular expression: {error}.") from None


def _told(operators: Sequence[str]) -> str:
    return ", ".join(repr(one) if one == EQUALS else one for one in operators)


def _value(name: str, kind: Kind, value: Any) -> Any:
    """A value as the field's kind has it; None for nothing."""
    if value is None or (value == "" and kind is not Kind.OBJECT):
        return None
    if kind in (Kind.WHOLE, Kind.NUMBER, Kind.USD):
        return _number(name, kind, value)
    if kind is Kind.BOOL:
        return _bool(name, value)
    if kind is Kind.TIME:
        return _time(name, value)
    return _unicode(name, value if isinstance(value, str) else dump(value))


def _unicode(name: str, text: str) -> str:
    if not is_unicode(text):
        raise MalformedBody(f"{name}: must be text without lone surrogates.".encode("utf-8", "replace").decode())
    return text


def _number(name: str, kind: Kind, value: Any) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    try:
        if not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value):
            # Beyond 64 bits SQLite compares as a double does.
            return value if isinstance(value, float) or abs(value) < 2**63 else float(value)
    except OverflowError:
        pass
    raise MalformedBody(f"{name}: the value must be {kind.value}.")


def _bool(name: str, value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false", "1", "0"):
        return value.lower() in ("true", "1")
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise MalformedBody(f"{name}: the value must be {Kind.BOOL.value}.")


_time_adapter: TypeAdapter[datetime] = TypeAdapter(Time)


def _time(name: str, value: Any) -> str:
    try:
        # A + that was not encoded in a URL arrives as a space.
        sent = value.replace(" ", "+") if isinstance(value, str) and "T" in value else value
        return stored_time(_time_adapter.validate_python(sent))
    except (ValidationError, OverflowError):
        raise MalformedBody(f"{name}: the value must be {Kind.TIME.value}.") from None


def _native(name: str, value: Any) -> Any:
    """A value beside a member of `properties`, which keep their JSON types: objects and lists by their text."""
    if isinstance(value, (dict, list)):
        value = dump(value)
    if isinstance(value, str):
        return _unicode(name, value) or None
    return value if value is None or isinstance(value, bool) else _number(name, Kind.NUMBER, value)


USER_FIELDS = Fields(
    {
        **dict.fromkeys(("customer_identifier", "environment", "name", "email"), Kind.TEXT),
        **dict.fromkeys(
            ("number_of_requests", "total_tokens", "total_prompt_tokens", "total_completion_tokens", "active_days"),
            Kind.WHOLE,
        ),
        **dict.fromkeys(("average_latency", "average_ttft"), Kind.NUMBER),
        "total_cost": Kind.USD,
        "first_seen": Kind.TIME,
    },
    {"id": "customer_identifier"},
)
THREAD_FIELDS = Fields(
    {
        **dict.fromkeys(
            ("thread_identifier", "customer_identifier", "organization_key_id", "environment", "model"), Kind.TEXT
        ),
        "timestamp": Kind.TIME,
    },
    {"id": "thread_identifier"},
)
