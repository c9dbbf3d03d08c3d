"""Loaded by Schemathesis: what a JSON Schema cannot tell it about the gateway's OpenAPI document."""

import json
from typing import Any

import schemathesis
from hypothesis import strategies as st

_TEXT = st.text(st.characters(codec="utf-8"), max_size=3)
_OBJECTS = st.dictionaries(_TEXT, st.none() | st.booleans() | st.integers(-9, 9) | _TEXT, max_size=2)

schemathesis.openapi.format("json-object", _OBJECTS.map(json.dumps))
schemathesis.openapi.format("json-array", st.lists(_OBJECTS, max_size=2).map(json.dumps))


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """Fits the document to what Schemathesis can generate."""
    _name_json_texts(raw_schema)
    _leave_out_rivals(raw_schema["components"]["schemas"])


def _name_json_texts(schema: Any) -> None:
    # Of a text that holds JSON, it generates any JSON.
    if isinstance(schema, dict):
        if "contentSchema" in schema:
            del schema["contentMediaType"]
            schema["format"] = f"json-{schema.pop('contentSchema')['type']}"
        for item in schema.values():
            _name_json_texts(item)
    elif isinstance(schema, list):
        for item in schema:
            _name_json_texts(item)


def _leave_out_rivals(schemas: dict[str, Any]) -> None:
    # Of a field that is sent under several names only one value counts, and only that one can be wrong.
    for name in ("respan_params", "keywordsai_params", "prompt"):
        del schemas["NewSpan"]["properties"][name]
    fields = schemas["SpanFields"]["properties"]
    for name in ("id", "generation_time", "ttft"):
        del fields[name]
    del fields["customer_params"]["anyOf"][0]["properties"]
