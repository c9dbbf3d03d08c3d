"""Filters as conditions on the table `span`."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gateway.core.filters import (
    ANY_CONTENT,
    BETWEEN,
    EMPTY,
    EQUALS,
    FIELDS,
    FULL_TEXT,
    HAS_KEY,
    NOT,
    NOT_EMPTY,
    Condition,
    Every,
    Filter,
    Kind,
)
from gateway.core.jsontext import parse_or_none
from gateway.core.prices import decimal, picos

# With more values than these, they come as one JSON text: SQLite takes only so many marks in a statement.
_MARKS_AT_MOST = 100


class Sql(NamedTuple):
    """A condition, with a mark for each value."""

    text: str
    values: tuple[Any, ...] = ()


def of_spans(of: Filter) -> Sql:
    """What a filter means for the rows of `span`."""
    return where(of, _of_a_span)


def where(of: Filter, meaning: Callable[[Condition], Sql]) -> Sql:
    """What a filter means where its conditions mean this."""
    if isinstance(of, Condition):
        return meaning(of)
    parts = [where(part, meaning) for part in of.parts]
    return every(parts) if isinstance(of, Every) else either(parts)


def every(parts: Sequence[Sql]) -> Sql:
    """All of these conditions; what is always true where there are none."""
    return _joined(parts, " AND ")


def either(parts: Sequence[Sql]) -> Sql:
    """Any of these conditions; as above where there are none."""
    return _joined(parts, " OR ")


def _joined(parts: Sequence[Sql], joint: str) -> Sql:
    if not parts:
        return Sql("1")
    return Sql(f"({joint.join(part.text for part in parts)})", tuple(value for part in parts for value in part.values))


def named(field: str) -> str:
    """A field, by its public name, as an expression of columns."""
    return _EXPRESSIONS.get(field, field)


def _extra(name: str) -> str:
    """What a caller told beside the fields of a span."""
    told = f"extras ->> '$.{name}'"
    shown = told if FIELDS.get(name) in (Kind.WHOLE, Kind.BOOL) else f"legible({_bytes(told)})"
    return f"(SELECT {shown} FROM content WHERE span_id = span.id)"


def _bytes(expression: str) -> str:
    """A text for a function of ours, see `functions.add`."""
    return f"CAST({expression} AS BLOB)"


# Whose fault a failed span is: by what the gateway says of itself, else by the status.
_FAULT_DOMAIN = """CASE WHEN status <> 'failed' THEN NULL
WHEN error_code IN ('interrupted', 'span_lost', 'internal_error', 'gateway_stopped') THEN 'respan'
WHEN status_code BETWEEN 400 AND 499 AND status_code NOT IN (408, 429) THEN 'user' ELSE 'provider' END"""
_HELD_INPUT = "CASE input WHEN '=' THEN full_request -> '$.messages' ELSE input END"
_HELD_OUTPUT = "CASE output WHEN '=' THEN full_response -> '$.choices[0].message' ELSE output END"
# Of the fields that are no columns.
_EXPRESSIONS: Mapping[str, str] = {
    "cost": "cost_picos",
    "is_root_span": "(span_parent_id IS NULL OR span_parent_id = '')",
    "has_tool_calls": "EXISTS (SELECT 1 FROM content WHERE span_id = span.id AND tool_calls NOT IN ('[]', 'null'))",
    "fault_domain": f"coalesce({_extra('fault_domain')}, {_FAULT_DOMAIN})",
    "cache_bit": f"coalesce({_extra('cache_bit')}, 0)",
    "used_custom_credential": f"coalesce({_extra('used_custom_credential')}, 0)",
    **{
        name: _extra(name)
        for name in (
            *("prompt_version_number", "deployment_id", "deployment_name", "error_class", "error_fingerprint"),
            *("cache_key", "behaviors"),
        )
    },
    "input": f"(SELECT {_HELD_INPUT} FROM content WHERE span_id = span.id)",
    "output": f"(SELECT {_HELD_OUTPUT} FROM content WHERE span_id = span.id)",
    ANY_CONTENT: (
        f"(SELECT coalesce({_HELD_INPUT}, '') || char(10) || coalesce({_HELD_OUTPUT}, '') FROM content"
        " WHERE span_id = span.id)"
    ),
}
# What was said in content, as text: without the names and marks of JSON.
_SAID = {
    "input": f"(SELECT said({_HELD_INPUT}, NULL) FROM content WHERE span_id = span.id)",
    "output": f"(SELECT said({_HELD_OUTPUT}, NULL) FROM content WHERE span_id = span.id)",
    ANY_CONTENT: f"(SELECT said({_HELD_INPUT}, {_HELD_OUTPUT}) FROM content WHERE span_id = span.id)",
}
_PLAIN = re.compile("[A-Za-z0-9]{3,}")
_LOOKS_AT_MOST = 8
_ORDER = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_NEGATED = {"not_contains": "contains", "not_startswith": "startswith", "not_endswith": "endswith"}


def _of_a_span(of: Condition) -> Sql:
    if of.key is not None:
        return _of_member(of, of.key)
    return of_field(of, named(of.field), FIELDS[of.field])


def of_field(of: Condition, expression: str, kind: Kind) -> Sql:
    """What a condition means for an expression of columns."""
    if of.operator in (EMPTY, NOT_EMPTY):
        nothing = "('', '{}')" if kind is Kind.OBJECT else "('', '\"\"', '[]')" if kind is Kind.CONTENT else "('')"
        is_empty = f"({expression} IS NULL OR {expression} IN {nothing})"
        return Sql(is_empty if of.operator == EMPTY else f"NOT {is_empty}")
    if kind is Kind.CONTENT:
        return _said(of, expression)
    if of.operator == BETWEEN:
        signs = zip((">=", "<="), of.values, strict=True)
        return every([Sql(f"{expression} {sign} ?", (end,)) for sign, end in signs if end is not None])
    if of.operator == HAS_KEY:
        return Sql(*_any(f"EXISTS (SELECT 1 FROM json_each({expression}) WHERE key = ?)", of.values))
    values = tuple(_stored(kind, value) for value in of.values)
    return _compared(expression, of.operator, values)


def _said(of: Condition, written: str) -> Sql:
    """Content that holds these. What is written as JSON is looked at first, for the words that no mark of JSON can
    change: that tells most that do not."""
    found = _compared(_SAID[of.field], of.operator, of.values)
    if of.operator.startswith("not_"):
        return found
    looks = [
        every([_holds(f"lower({written})", run.lower()) for run in _PLAIN.findall(value)[:_LOOKS_AT_MOST]])
        for value in of.values
    ]
    return every([either(looks), found])


def _of_member(of: Condition, key: str) -> Sql:
    """Of a key of the caller's. A span without it matches in no case."""
    if of.field == "scores":
        return Sql("0")
    # Not by a path: in those, SQLite has no way to write some keys.
    if of.field == "properties" and of.operator in (EQUALS, NOT, *_ORDER):
        test = _native(of)
        return Sql(f"EXISTS (SELECT 1 FROM json_each(properties) WHERE key = ? AND {test.text})", (key, *test.values))
    shown = _AS_TEXT.format(of=of.field)
    if of.operator in (EMPTY, NOT_EMPTY):
        test = Sql(f"{shown} {'=' if of.operator == EMPTY else '<>'} ''")
    else:
        test = _compared(shown, of.operator, tuple(_stored(Kind.TEXT, value) for value in of.values))
    return Sql(f"EXISTS (SELECT 1 FROM json_each({of.field}) WHERE key = ? AND {test.text})", (key, *test.values))


# A value of `metadata` as it is read back.
_AS_TEXT = (
    "CASE type WHEN 'text' THEN value WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' WHEN 'null' THEN 'null'"
    " ELSE coalesce({of} -> fullkey, CAST(value AS TEXT)) END"
)


def _native(of: Condition) -> Sql:
    """A member of `properties` beside values of JSON's types, which are not mixed; text may stand for what is none."""
    found = either([test for value in of.values for test in _native_tests(of.operator, value)])
    return _not(found) if of.operator == NOT else found


def _native_tests(operator: str, value: Any) -> list[Sql]:
    sign = _ORDER.get(operator, "=")
    if value is None:
        return [Sql("type = 'null' OR value = ''")]
    if isinstance(value, bool):
        return [Sql(f"type IN ('true', 'false') AND value {sign} ?", (int(value),))]
    if not isinstance(value, str):
        return [Sql(f"type IN ('integer', 'real') AND value {sign} ?", (value,))]
    read = parse_or_none(value)
    alike = _native_tests(operator, read) if isinstance(read, (bool, float)) or _is_whole(read) else []
    return [Sql(f"type IN ('text', 'object', 'array') AND value {sign} ?", (value,)), *alike]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and abs(value) < 2**63


def _stored(kind: Kind, value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if kind is Kind.USD and value is not None:
        exact = picos(decimal(value))
        # No cost is beyond these.
        return exact if abs(exact) < 2**63 else (math.inf if exact > 0 else -math.inf)
    return value


def _compared(expression: str, operator: str, values: Sequence[Any]) -> Sql:
    if operator in _ORDER:
        return Sql(f"{expression} {_ORDER[operator]} ?", (values[0],))
    if operator == EQUALS:
        return _equal(expression, values)
    if operator == NOT:
        return _not(_equal(expression, values))
    positive = _NEGATED.get(operator, operator)
    found = either([_LIKENESS[positive](expression, value) for value in values])
    return _not(found) if operator in _NEGATED else found


def _not(of: Sql) -> Sql:
    """Also of what is not known to hold."""
    return Sql(f"NOT coalesce({of.text}, 0)", of.values)


def _equal(expression: str, values: Sequence[Any]) -> Sql:
    there = tuple(value for value in values if value is not None)
    tests: list[Sql] = []
    if len(there) < len(values):
        tests.append(Sql(f"{expression} IS NULL OR {expression} = ''"))
    if len(there) == 1:
        tests.append(Sql(f"{expression} = ?", there))
    elif len(there) > _MARKS_AT_MOST:
        tests.append(Sql(f"{expression} IN (SELECT value FROM json_each(?))", (json.dumps(there),)))
    elif there:
        tests.append(Sql(f"{expression} IN ({', '.join('?' * len(there))})", there))
    return either(tests)


def _any(test: str, values: Sequence[Any]) -> Sql:
    return Sql(f"({' OR '.join([test] * len(values))})", tuple(values))


def _holds(expression: str, value: str) -> Sql:
    return Sql(f"instr({expression}, ?) > 0", (value,))


def _holds_folded(expression: str, value: str) -> Sql:
    return Sql(f"instr({_folded(expression, value)}, ?) > 0", (value.casefold(),))


def _folded(expression: str, value: str) -> str:
    """The expression without regard to case. SQLite itself knows that of ASCII only, which is faster where it does."""
    return f"lower({expression})" if value.isascii() else f"folded({_bytes(expression)})"


def _words(expression: str, value: str) -> Sql:
    """Each word somewhere in it."""
    return every([_holds_folded(expression, word) for word in value.split()])


_LIKENESS: Mapping[str, Callable[[str, str], Sql]] = {
    "contains": _holds,
    "icontains": _holds_folded,
    "startswith": lambda expression, value: Sql(f"substr({expression}, 1, ?) = ?", (len(value), value)),
    "endswith": lambda expression, value: Sql(f"substr({expression}, ?) = ?", (-len(value), value)),
    "iexact": lambda expression, value: Sql(f"{_folded(expression, value)} = ?", (value.casefold(),)),
    "ilike": lambda expression, value: Sql(f"{expression} LIKE ?", (value,)),
    "regex": lambda expression, value: Sql(f"matches(?, {_bytes(expression)})", (value,)),
    "trigram_word_similar": lambda expression, value: Sql(f"similar(?, {_bytes(expression)})", (value,)),
    FULL_TEXT: _words,
}
