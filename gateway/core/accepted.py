"""What JSON each type of a span's field takes, as JSON Schema: more than what it becomes."""

from typing import Any

from pydantic import WithJsonSchema

Schema = dict[str, Any]

_INT64: Schema = {"type": "integer", "format": "int64", "minimum": -(2**63), "maximum": 2**63 - 1}
_OBJECT: Schema = {"type": "object", "additionalProperties": True}
_OBJECTS: Schema = {"type": "array", "items": _OBJECT}


def _takes(*forms: Schema) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": list(forms)}, mode="validation")


def _number_text(digits: str) -> Schema:
    return {"type": "string", "pattern": rf"^ *[+-]?{digits} *$"}


def _json_text(schema: Schema) -> Schema:
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}


def _in_any_case(word: str) -> str:
    return "".join(f"[{letter}{letter.upper()}]" if letter.isalpha() else letter for letter in word)


_WORDS = "|".join(map(_in_any_case, ("true", "t", "yes", "y", "on", "1", "false", "f", "no", "n", "off", "0")))
_FRACTION = r"([0-9]{1,300}\.?[0-9]{0,300}|\.[0-9]{1,300})"

TRUTH = _takes({"type": "boolean"}, {"enum": [0, 1]}, {"type": "string", "pattern": f"^({_WORDS})$"})
NUMBER = _takes({"type": "number"}, _number_text(f"{_FRACTION}([eE][+-]?[0-9])?"))
WHOLE = _takes(_INT64, _number_text(r"[0-9]{1,18}(\.0{1,9})?"))
WHOLE_SHOWN = WithJsonSchema(_INT64, mode="serialization")
OBJECT = _takes(_OBJECT, _json_text(_OBJECT))
OBJECTS = _takes(_OBJECTS, _json_text(_OBJECTS))
# A number is seconds since 1970; beyond 2e10, milliseconds.
TIME = _takes(
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "date"},
    {"type": "string", "pattern": r"^[+-]?([0-9]{1,13}(\.[0-9]{0,6})?|\.[0-9]{1,6})$"},
    {"type": "number", "minimum": -62135596800000, "exclusiveMaximum": 253402300800000},
)
OBJECT_OR_TYPE = _takes(_OBJECT, {"type": "string", "description": 'Stands for {"type": …}.'})


def identifier(reserved: frozenset[str]) -> WithJsonSchema:
    """An id of a span; `reserved` are none. An empty one counts as not sent."""
    routes = "|".join(sorted(reserved))
    refused = rf"(^/*({routes})/*$)|(/$)|((^|/)\.\.?(/|$))"
    return _takes({"type": "string", "not": {"pattern": refused}})


def usage(counts: tuple[str, ...]) -> WithJsonSchema:
    """An object with `counts`, in any dialect."""
    count = {"anyOf": [_INT64, _number_text("[0-9]{1,18}"), {"type": "null"}]}
    schema = {**_OBJECT, "properties": dict.fromkeys(counts, count)}
    return _takes(schema, _json_text(_OBJECT))
