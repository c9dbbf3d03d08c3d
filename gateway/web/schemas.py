"""The JSON that routes take and answer, as JSON Schema: the schemas of the OpenAPI document."""

from dataclasses import fields
from typing import Any

from pydantic.json_schema import JsonSchemaMode

from gateway.core.aliases import ALIASES, NESTED, OF_CUSTOMER, OF_PROMPT, OURS
from gateway.core.audit import Audit
from gateway.core.filters import (
    DELETION_FIELDS,
    OPERATORS,
    SPAN_FIELDS,
    THREAD_FIELDS,
    TRACE_FIELDS,
    USER_FIELDS,
    Fields,
)
from gateway.core.prices import OWN, SHIPPED
from gateway.core.reading import ALWAYS_NULL
from gateway.core.span import Span
from gateway.core.spread import Percentiles
from gateway.recorder import EDITABLE
from gateway.store.hours import MEASURES
from gateway.web.prices import PRICES
from gateway.web.spans import BATCH_AT_MOST, BULK_AT_MOST
from gateway.web.users import Told

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_OBJECT: Schema = {"type": "object"}
_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_TOKENS = ("total_tokens", "total_prompt_tokens", "total_completion_tokens")


def ref(kind: str, name: str) -> Schema:
    """Points to a component of the document."""
    return {"$ref": f"#/components/{kind}/{name}"}


def or_null(schema: Schema) -> Schema:
    """The schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def members(properties: Schema, **more: Any) -> Schema:
    """An object that has all of these members, and may have others."""
    return {"type": "object", "required": sorted(properties), "properties": properties, **more}


# A request that is refused before its route is known gets the shapes of both kinds of routes in one.
_BOTH_SHAPES: Schema = {
    "properties": {"detail": _TEXT, "error": ref("schemas", "Error")},
    "additionalProperties": False,
}


def schemas() -> Schema:
    """All of them, by name."""
    sent = _fields_sent()
    return {
        "SpanFields": {
            "description": "Fields of a span. Those that are not listed are kept, and a null counts as not sent.",
            "properties": sent,
        },
        "NewSpan": {
            "type": "object",
            "allOf": [ref("schemas", "SpanFields")],
            "required": ["model"],
            "properties": {
                "model": _TEXT,
                **{name: ref("schemas", "SpanFields") | {"description": "Wins over the top level."} for name in NESTED},
                "prompt": {"properties": {name: sent[name] for name in OF_PROMPT}},
            },
        },
        "Span": members(_fields_shown()),
        "CreatedSpan": {"allOf": [ref("schemas", "Span"), members({"message": {"const": "log successful"}})]},
        "Page": _page({"anyOf": [ref("schemas", "Span"), members({"id": _TEXT})]}),
        "SpanFilters": _filters(SPAN_FIELDS),
        "TraceFilters": _filters(TRACE_FIELDS),
        "UserFilters": _filters(USER_FIELDS),
        "ThreadFilters": _filters(THREAD_FIELDS),
        "Deletion": _filters(DELETION_FIELDS) | {"required": ["filters"]},
        "Summary": members(
            {
                **dict.fromkeys(("number_of_requests", "error_count"), _COUNT),
                **dict.fromkeys(_TOKENS, _INTEGER),
                **dict.fromkeys(("total_cost", "avg_latency", "avg_tps", "avg_ttft"), _NUMBER),
                "scores": _OBJECT,
            }
        ),
        "Groups": _page(_group()),
        "Price": members(
            {
                "price": or_null(
                    members(
                        {
                            "model": _TEXT | {"description": "Whose price it is."},
                            "source": {"enum": [OWN, SHIPPED]},
                            **{name: or_null(_NUMBER) for name in PRICES},
                        }
                    )
                )
            }
        ),
        "Series": members(
            {
                **dict.fromkeys(("interval", "group_by"), _nullable(_TEXT)),
                **dict.fromkeys(("start_time", "end_time"), _TIME),
                "interval_seconds": _INTEGER,
                "requests_left_out": _COUNT | {"description": "Those of groups that are not shown, or of none."},
                "results": {"type": "array", "items": _point()},
            }
        ),
        "Values": members(
            {
                "field": _TEXT,
                "spans_looked_at": _COUNT,
                "results": {"type": "array", "items": members({"value": {}, "number_of_requests": _COUNT})},
            }
        ),
        "Bulk": members(
            {
                "logs": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": BULK_AT_MOST,
                    "items": ref("schemas", "NewSpan"),
                }
            }
        ),
        "BulkResult": members(
            {
                "success_count": _COUNT,
                "error_count": _COUNT,
                "errors": {"type": "array", "items": members({"index": _COUNT, "error": _TEXT})},
            }
        ),
        "Otlp": _OBJECT | {"properties": {"resourceSpans": {"type": "array", "items": _OBJECT}}},
        "Steps": {
            "anyOf": [
                {"type": "array", "items": _step()},
                members({"data": {"type": "array", "items": _step()}}),
            ]
        },
        "Ingested": members(
            {
                **dict.fromkeys(("message", "status"), _TEXT),
                "success": {"type": "boolean"},
                **dict.fromkeys(("ingested_spans", "ingested_count", "created_traces"), _COUNT),
                "trace_ids": {"type": "array", "items": _TEXT},
                "errors": {"type": "array", "items": members({"index": _COUNT, "error": _TEXT})},
            }
        ),
        "Users": _page(members(_user_listed())),
        "User": members(_user()),
        "UserChanges": {key: value for key, value in Told.model_json_schema().items() if key != "title"},
        "Threads": _page(members({"thread_identifier": _TEXT, "environment": _TEXT, "log_count": _COUNT})),
        "Traces": _page(members(_trace())),
        "WholeTrace": members(
            {**_trace(), "span_tree": {"type": "array", "items": members({"span_unique_id": _TEXT, "children": {}})}}
        ),
        "Share": members({"is_public": {"type": "boolean"}}),
        "SignIn": {
            "type": "object",
            "properties": {
                "key": _TEXT,
                "link": _TEXT | {"description": "What stands behind #link= in a link that signs in."},
                "next": _TEXT | {"description": "Path to go on to."},
            },
        },
        "BatchResult": members(
            {
                "results": {
                    "type": "array",
                    "items": members({"id": or_null(_TEXT), "status": {"enum": ["success", "error"]}}),
                }
            }
        ),
        "Changes": _changes(sent),
        "BatchChanges": members(
            {
                "logs": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": BATCH_AT_MOST,
                    "items": _changes(sent | {"unique_id": _TEXT}, "unique_id"),
                }
            }
        ),
        "Audit": members(
            {
                **dict.fromkeys((field.name for field in fields(Audit)), _COUNT),
                "settled": _OBJECT | {"additionalProperties": _COUNT, "description": "By how they ended."},
                "missing": {"type": "integer", "description": "Calls that nothing accounts for."},
                "balanced": {"type": "boolean", "description": "Whether none is missing."},
                "start_time": or_null(_TIME | {"description": "In whole minutes around what was asked for."}),
                "end_time": or_null(_TIME),
            }
        ),
        "Refusal": members({"detail": _TEXT}) | _BOTH_SHAPES,
        "NoTrace": members({"error": _TEXT}, additionalProperties=False),
        "InvalidFields": members(
            {
                "detail": _TEXT,
                "errors": _OBJECT | {"additionalProperties": {"type": "array", "minItems": 1, "items": _TEXT}},
            },
            additionalProperties=False,
        ),
        "CallRefusal": members({"error": ref("schemas", "Error")}) | _BOTH_SHAPES,
        "Error": members(
            {"message": _TEXT, "type": _TEXT, "param": or_null(_TEXT), "code": or_null(_TEXT)},
            additionalProperties=False,
        ),
        "ChatRequest": _CHAT_REQUEST,
        "ChatCompletion": _CHAT_COMPLETION,
        "Models": members(
            {"object": {"const": "list"}, "data": {"type": "array", "items": members({"id": _TEXT})}},
        ),
    }


def _changes(fields: Schema, *more: str) -> Schema:
    """What can be changed of a span; metadata is merged, where null takes a key out."""
    properties = {name: fields[name] for name in (*more, *EDITABLE)}
    return {"type": "object", "required": list(more), "properties": properties, "additionalProperties": False}


def _filters(fields: Fields) -> Schema:
    """A body with filters: conditions by field."""
    conditions = {name: _condition(fields, name) for name in fields.names() if not name.endswith("<key>")}
    keyed = {f"^{name.removesuffix('<key>')}.": _condition(fields, name) for name in fields.names() if "<key>" in name}
    bundle = members({"filter_params": _OBJECT}) | {"description": "Joined by its own connector, AND or OR."}
    found = {
        "type": ["object", "null"],
        "description": "All have to hold; of a list, each. Any name may hold a bundle.",
        "properties": conditions,
        "patternProperties": keyed,
        "additionalProperties": bundle,
    }
    joined = {"enum": ["AND", "OR", None], "description": "How the fields are joined; AND without it."}
    return _OBJECT | {"properties": {"filters": found, "operator": joined}}


def _condition(fields: Fields, name: str) -> Schema:
    value = {"description": "A value, or a list of them."}
    return {"properties": {"operator": {"examples": list(OPERATORS[fields.kind_of(name)])}, "value": value}}


def _step() -> Schema:
    ids = {name: _TEXT | {"minLength": 1} for name in ("trace_unique_id", "span_unique_id")}
    return {"allOf": [ref("schemas", "SpanFields")], **members(ids)}


def _page(item: Schema) -> Schema:
    return members(
        {
            "count": _COUNT | {"description": "Rows on this page."},
            "next": or_null(_TEXT | {"format": "uri"}),
            "previous": or_null(_TEXT | {"format": "uri"}),
            "results": {"type": "array", "items": item},
        }
    )


def _user() -> Schema:
    return {
        **dict.fromkeys(("id", "customer_identifier", "environment"), _TEXT),
        **dict.fromkeys(("name", "email", "organization_name", "budget_duration"), or_null(_TEXT)),
        **dict.fromkeys(("period_start", "period_end", "updated_at"), or_null(_TIME)),
        **dict.fromkeys(("total_budget", "period_budget"), or_null(_NUMBER)),
        "total_period_usage": _NUMBER,
    }


def _user_listed() -> Schema:
    return {
        **dict.fromkeys(("id", "customer_identifier", "unique_organization_id", "environment"), _TEXT),
        **dict.fromkeys(("name", "email", "budget_duration"), or_null(_TEXT)),
        **dict.fromkeys(("first_seen", "last_active_timeframe"), _TIME),
        **dict.fromkeys(("active_days", "number_of_requests", "total_requests"), _COUNT),
        **dict.fromkeys(("tokens", *_TOKENS), _INTEGER),
        **dict.fromkeys(("total_cost", "cost", "average_latency", "average_ttft", "average_monthly_cost"), _NUMBER),
        **dict.fromkeys(("total_budget", "period_budget"), or_null(_NUMBER)),
    }


def _trace() -> Schema:
    texts = (
        *("root_span_unique_id", "unique_organization_id", "organization_id", "organization_key_id", "environment"),
        *("customer_identifier", "name", "input", "output", "trace_group_identifier", "session_identifier", "model"),
    )
    counts = ("span_count", "llm_call_count", "error_count")
    return {
        **dict.fromkeys(("id", "trace_unique_id"), _TEXT),
        **dict.fromkeys(texts, or_null(_TEXT)),
        **dict.fromkeys(("start_time", "end_time"), _TIME),
        **dict.fromkeys(("duration", "total_cost"), _NUMBER),
        **dict.fromkeys(counts, _COUNT),
        **dict.fromkeys(_TOKENS, _INTEGER),
        "metadata": or_null(_OBJECT | {"additionalProperties": _TEXT}),
    }


def _group() -> Schema:
    return members(
        {
            "date_group": _TIME | {"description": "Of its newest span."},
            **dict.fromkeys(("number_of_requests", "span_count", "error_count"), _COUNT),
            **dict.fromkeys(("average_tokens", *_TOKENS), _INTEGER),
            **dict.fromkeys(
                (
                    *("total_cost", "error_percentage", "average_cost", "average_latency", "average_ttft"),
                    *("average_tps", "cache_hit_percentage"),
                ),
                _NUMBER,
            ),
        }
    )


def _point() -> Schema:
    shares = members(dict.fromkeys(Percentiles._fields, _nullable(_NUMBER)))
    return members(
        {
            "time": _TIME | {"description": "Where its interval begins."},
            **dict.fromkeys(("number_of_requests", "error_count"), _COUNT),
            "total_cost": _NUMBER,
            **dict.fromkeys(_TOKENS, _INTEGER),
            **dict.fromkeys(MEASURES, shares | {"description": "To two digits."}),
        }
    )


def _fields_sent() -> Schema:
    """What a span takes under each name."""
    found = _fields("validation")
    found |= {alias: found[name] for alias, name in ALIASES.items() if name in found}
    found["model"] = _TEXT | {"minLength": 1}
    promoted = {name: found[field] for name, field in OF_CUSTOMER}
    found["customer_params"] = {"anyOf": [_OBJECT | {"properties": promoted}, *found["customer_params"]["anyOf"][1:]]}
    from_key = {"description": "Comes from the key; what is sent has no effect."}
    return {name: _nullable(schema) for name, schema in found.items()} | dict.fromkeys(sorted(OURS), from_key)


def _fields_shown() -> Schema:
    """What a stored span says under each name."""
    return {
        **{name: {"description": "Null, unless it was sent."} for name in ALWAYS_NULL},
        **_fields("serialization"),
        **dict.fromkeys(("id", "unique_id", "organization_id", "unique_organization_id", "status"), _TEXT),
        "metadata": or_null(_OBJECT | {"additionalProperties": _TEXT}),
        "blurred": {"const": False},
        "scores": _OBJECT,
    }


def _fields(mode: JsonSchemaMode) -> Schema:
    found = Span.model_json_schema(mode=mode)["properties"]
    return {
        name: {keyword: value for keyword, value in schema.items() if keyword not in ("title", "default")}
        for name, schema in found.items()
    }


def _nullable(schema: Schema) -> Schema:
    forms = schema.get("anyOf", [schema])
    return schema if {"type": "null"} in forms or not schema else {"anyOf": [*forms, {"type": "null"}]}


_MESSAGE = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"type": "string", "examples": ["system", "user", "assistant", "tool"]},
        "content": {"type": ["string", "array", "null"]},
    },
}
# The gateway reads these; whether the rest is right is for the upstream to say.
_CHAT_REQUEST = {
    "description": "OpenAI's chat request. What is not listed goes to the upstream as it is.",
    "type": "object",
    "required": ["model", "messages"],
    "properties": {
        "model": _TEXT | {"examples": ["echo"]},
        "messages": {"type": "array", "minItems": 1, "items": _MESSAGE},
        "stream": {"type": ["boolean", "null"]},
        "stream_options": {"type": ["object", "null"], "properties": {"include_usage": {"type": "boolean"}}},
        "temperature": {"type": ["number", "null"]},
        "top_p": {"type": ["number", "null"]},
        "max_tokens": {"type": ["integer", "null"]},
        "max_completion_tokens": {"type": ["integer", "null"]},
        "stop": {"type": ["string", "array", "null"], "items": _TEXT},
        "tools": {"type": "array", "items": _OBJECT},
        "tool_choice": {"type": ["string", "object"]},
        "response_format": _OBJECT,
        "metadata": {"description": 'Becomes the span\'s; goes on only with "store": true.'},
        **{name: {"description": "Fields of the call's span; never a reason to refuse it."} for name in NESTED},
    },
}
_CHAT_COMPLETION = members(
    {
        "id": _TEXT,
        "object": {"const": "chat.completion"},
        "created": {"type": "integer"},
        "model": _TEXT,
        "choices": {"type": "array", "items": members({"index": _COUNT, "message": _MESSAGE, "finish_reason": {}})},
    }
)
