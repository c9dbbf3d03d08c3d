"""Spans of OpenTelemetry as spans of ours: OTLP, and the names that GenAI tracers give their attributes.

The names are those of Respan's tracer, also under Respan's former name, of OpenLLMetry (traceloop), of OpenTelemetry's
GenAI conventions, old and new, and of OpenInference. What none of them names becomes metadata.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from gateway.core.jsontext import dump, parse_or_none
from gateway.core.reading import stored_time
from gateway.core.span import CUSTOMER_IDENTIFIER_MAX
from gateway.errors import MalformedBody

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# How a status says that a span failed.
ERRORS = (2, "2", "STATUS_CODE_ERROR", "ERROR")
ATTRIBUTES_AT_MOST = 10_000
EVENTS_AT_MOST = 1_000


class Event(NamedTuple):
    """Something that happened while a span ran. Nanoseconds since 1970."""

    name: str
    attributes: dict[str, Any]
    time_ns: int = 0


class OtlpSpan(NamedTuple):
    """A span as it came, whatever the encoding. Times are nanoseconds since 1970; ids are lower hex."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    failed: bool = False
    message: str = ""
    events: Sequence[Event] = ()
    links: Sequence[dict[str, str]] = ()


# Reading


def from_json(body: Any) -> list[OtlpSpan | str]:
    """The spans of an ExportTraceServiceRequest in OTLP's JSON, or what is wrong with one. Raises MalformedBody."""
    if not isinstance(body, dict):
        raise MalformedBody("The body must be a JSON object with resourceSpans.")
    found: list[OtlpSpan | str] = []
    for resource_spans in _objects(body, "resourceSpans", "resource_spans"):
        resource = _attributes(_member(resource_spans, "resource"))
        for scope_spans in _objects(resource_spans, "scopeSpans", "scope_spans"):
            scope = _member(scope_spans, "scope")
            shared = {**resource, **of_scope(scope, _attributes(scope))}
            spans = scope_spans.get("spans") or []
            if not isinstance(spans, list):
                raise MalformedBody("spans: must be a list.")
            found += [_span_from_json(one, shared) for one in spans]
    return found


def _span_from_json(one: Any, shared: Mapping[str, Any]) -> OtlpSpan | str:
    if not isinstance(one, dict):
        return "A span must be an object."
    try:
        status = _member(one, "status")
        return OtlpSpan(
            hex_id(_either(one, "traceId", "trace_id"), 32, "traceId"),
            hex_id(_either(one, "spanId", "span_id"), 16, "spanId"),
            parent_id(_either(one, "parentSpanId", "parent_span_id")),
            str(one.get("name") or ""),
            _nanoseconds(_either(one, "startTimeUnixNano", "start_time_unix_nano"), "startTimeUnixNano"),
            _nanoseconds(_either(one, "endTimeUnixNano", "end_time_unix_nano"), "endTimeUnixNano"),
            {**shared, **_attributes(one)},
            status.get("code") in ERRORS,
            str(status.get("message") or ""),
            [_event(event) for event in _list(one, "events")[:EVENTS_AT_MOST]],
            [
                {"trace_id": str(link.get("traceId", "")), "span_id": str(link.get("spanId", ""))}
                for link in _list(one, "links")
            ],
        )
    except (TypeError, ValueError) as error:
        return str(error)


def _nanoseconds(value: Any, name: str) -> int:
    text = str(0 if value is None else value)
    if not text.isascii() or not text.isdecimal() or len(text) > 20:
        raise ValueError(f"{name}: must be a whole number of nanoseconds.")
    return int(text)


def _event(event: Mapping[str, Any]) -> Event:
    time_ns = _nanoseconds(_either(event, "timeUnixNano", "time_unix_nano"), "timeUnixNano")
    return Event(str(event.get("name") or ""), _attributes(event), time_ns)


def of_scope(scope: Mapping[str, Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What made the spans, as attributes."""
    told = {**attributes, **{name: scope[name] for name in ("name", "version") if scope.get(name)}}
    return {f"otel.scope.{name}": value for name, value in told.items()}


def _member(of: Any, name: str) -> dict[str, Any]:
    value = of.get(name) if isinstance(of, dict) else None
    return value if isinstance(value, dict) else {}


def _objects(of: Mapping[str, Any], *names: str) -> list[dict[str, Any]]:
    value = _either(of, *names)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise MalformedBody(f"{names[0]}: must be a list of objects.")
    return value


def _list(of: Any, *names: str) -> list[Any]:
    value = _either(of, *names) if isinstance(of, dict) else None
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _either(of: Mapping[str, Any], *names: str) -> Any:
    return next((of[name] for name in names if of.get(name) is not None), None)


def hex_id(value: Any, length: int, name: str) -> str:
    """An id as lower hexadecimal digits. Raises ValueError."""
    text = str(value or "").lower()
    if not re.fullmatch(f"[0-9a-f]{{{length}}}", text) or not int(text, 16):
        raise ValueError(f"{name}: must be {length} hexadecimal digits, not all 0.")
    return text


def parent_id(value: Any) -> str:
    """The same of a parent's, empty where there is none."""
    text = str(value or "").lower()
    return hex_id(text, 16, "parentSpanId") if text.strip("0") else ""


def _attributes(of: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in _list(of, "attributes")[:ATTRIBUTES_AT_MOST]:
        if isinstance(one.get("key"), str):
            found[one["key"]] = _value(one.get("value"))
    return found


def _value(value: Any) -> Any:
    """An AnyValue in JSON."""
    if not isinstance(value, dict):
        return value
    for name, read in _VALUES.items():
        if name in value:
            return read(value[name])
    return None


def _whole(value: Any) -> Any:
    try:
        return int(value)
    except (TypeError, ValueError):
        return value


_VALUES: Mapping[str, Callable[[Any], Any]] = {
    "stringValue": lambda value: value,
    "boolValue": lambda value: value,
    "intValue": _whole,
    "doubleValue": lambda value: value,
    "arrayValue": lambda value: [_value(one) for one in _list(value, "values")],
    "kvlistValue": lambda value: {str(one.get("key")): _value(one.get("value")) for one in _list(value, "values")},
    "bytesValue": lambda value: value,
}


# Mapping

# The first of the names that is there.
_TEXTS: Mapping[str, Sequence[str]] = {
    "model": ("model", "gen_ai.response.model", "gen_ai.request.model", "llm.model_name", "embedding.model_name"),
    "provider_id": ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"),
    "customer_identifier": (
        *("respan.customer_params.customer_identifier", "respan.customer.identifier"),
        *("traceloop.association.properties.user_id", "user.id", "enduser.id"),
    ),
    "customer_email": ("respan.customer_params.email", "respan.customer.email"),
    "customer_name": ("respan.customer_params.name", "respan.customer.name"),
    "thread_identifier": ("respan.threads.thread_identifier", "respan.thread.id", "gen_ai.conversation.id"),
    "session_identifier": ("respan.sessions.session_identifier", "session.id"),
    "trace_group_identifier": ("respan.trace.trace_group_identifier", "respan.trace_group.id"),
    "group_identifier": ("respan.trace.trace_group_identifier", "respan.trace_group.id"),
    "custom_identifier": ("respan.span_params.custom_identifier",),
    "evaluation_identifier": ("respan.evaluation_params.evaluation_identifier",),
    "log_method": ("respan.entity.log_method",),
    "unique_id": ("respan.entity.log_id",),
    "gateway_log_id": ("respan.gateway.log_id",),
    "span_workflow_name": ("traceloop.workflow.name", "respan.workflow.name"),
    "span_path": ("traceloop.entity.path",),
    "reasoning_effort": ("llm.request.reasoning_effort", "gen_ai.request.reasoning_effort"),
    "error_code": ("error.type", "exception.type"),
}
_NUMBERS: Mapping[str, Sequence[str]] = {
    "prompt_tokens": (
        *("prompt_tokens", "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    ),
    "completion_tokens": (
        *("completion_tokens", "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
        "llm.token_count.completion",
    ),
    "total_request_tokens": (
        *("total_request_tokens", "gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total"),
    ),
    "prompt_cache_hit_tokens": (
        *("prompt_cache_hit_tokens", "gen_ai.usage.cache_read_input_tokens", "gen_ai.usage.cache_read.input_tokens"),
        "llm.token_count.prompt_details.cache_read",
    ),
    "prompt_cache_creation_tokens": (
        *("prompt_cache_creation_tokens", "gen_ai.usage.cache_creation_input_tokens"),
        *("gen_ai.usage.cache_creation.input_tokens", "llm.token_count.prompt_details.cache_write"),
    ),
    "reasoning_tokens": (
        *("gen_ai.usage.reasoning_tokens", "llm.usage.reasoning_tokens"),
        "llm.token_count.completion_details.reasoning",
    ),
    "temperature": ("gen_ai.request.temperature",),
    "top_p": ("gen_ai.request.top_p",),
    "cost": ("gen_ai.usage.cost",),
    "max_tokens": ("gen_ai.request.max_tokens",),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", "llm.frequency_penalty"),
    "presence_penalty": ("gen_ai.request.presence_penalty", "llm.presence_penalty"),
    "time_to_first_token": (
        *("llm.openai.chat_completions.streaming_time_to_first_token", "gen_ai.server.time_to_first_token"),
    ),
}
_OBJECTS: Mapping[str, Sequence[str]] = {
    "properties": ("respan.properties",),
    "prompt": ("respan.prompt",),
    "tools": ("respan.span.tools", "gen_ai.tool.definitions"),
    "tool_calls": ("respan.span.tool_calls",),
    "span_handoffs": ("respan.span.handoffs",),
}
_INPUTS = ("traceloop.entity.input", "gen_ai.tool.call.arguments", "input.value")
_OUTPUTS = ("traceloop.entity.output", "gen_ai.tool.call.result", "output.value")
_KINDS = ("respan.entity.log_type", "traceloop.span.kind", "openinference.span.kind")
# What tracers call a kind of span, where that is not our name for it.
_LOG_TYPES = {
    "llm": "chat",
    "chain": "workflow",
    "retriever": "task",
    "step": "task",
    "trace": "workflow",
    "evaluator": "task",
    "unknown": "other",
}
_OPERATIONS = {
    "chat": "chat",
    "generate_content": "chat",
    "text_completion": "completion",
    "completion": "completion",
    "embeddings": "embedding",
    "embedding": "embedding",
    "execute_tool": "tool",
    "invoke_agent": "agent",
    "create_agent": "agent",
    "invoke_workflow": "workflow",
    "rerank": "reranker",
}
_NUMBERED = re.compile(
    r"(gen_ai\.prompt|gen_ai\.completion|llm\.input_messages|llm\.output_messages|llm\.request\.functions|llm\.tools)"
    r"\.(\d{1,6})\.(.+)"
)
_TOOL_CALL = re.compile(r"(?:tool_calls|message\.tool_calls)\.(\d{1,6})\.(?:tool_call\.)?(?:function\.)?(.+)")
_PART = re.compile(r"message\.contents\.(\d{1,6})\.message_content\.(type|text)")
_NAMES = ("gen_ai.tool.name", "gen_ai.agent.name")
_METADATA = "respan.metadata"
# As keywordsai-tracing begins the names that respan-tracing begins with the other.
_FORMER, _PRESENT = "keywordsai.", "respan."
_STREAMED = ("llm.is_streaming", "gen_ai.is_streaming", "gen_ai.request.stream")
_PASSED_OVER = frozenset(
    {
        *("respan.environment", "respan.entity.log_parent_id", "respan.entity.log_root_id", "respan.entity.log_source"),
        *("llm.request.type", "gen_ai.operation.name", "llm.embeddings.0"),
        *(
            "input.mime_type",
            "output.mime_type",
            "exception.message",
            "error.message",
            "gen_ai.input.messages",
            "gen_ai.output.messages",
            "gen_ai.system_instructions",
        ),
        "exception.stacktrace",
    }
)


def raw_span(span: OtlpSpan) -> dict[str, Any]:
    """A span as the recorder takes a step of a trace."""
    left = dict(span.attributes)
    for name in [name for name in left if name.startswith(_FORMER)]:
        left.setdefault(_PRESENT + name.removeprefix(_FORMER), left.pop(name))
    raw: dict[str, Any] = {
        "trace_unique_id": span.trace_id,
        "span_unique_id": span.span_id,
        "span_parent_id": span.parent_id or None,
        # Tracers call a span by its kind, `task`, and say here what it is.
        "span_name": _taken(left, ("traceloop.entity.name",))
        or span.name
        or next((str(left[name]) for name in _NAMES if left.get(name)), None),
        "log_method": "tracing_integration",
        **_times(span),
    }
    messages = _messages(left)
    if isinstance(answered := left.get("gen_ai.response.model"), str):
        raw["response_model"] = answered
    for name, names in _TEXTS.items():
        if (text := _taken(left, names)) is not None and text != "":
            raw[name] = str(text)
    if "customer_identifier" in raw:
        raw["customer_identifier"] = raw["customer_identifier"][:CUSTOMER_IDENTIFIER_MAX]
    for name, names in _NUMBERS.items():
        if isinstance(number := _taken(left, names), (int, float, str)) and not isinstance(number, bool):
            raw[name] = number
    for name, names in _OBJECTS.items():
        if (value := _parsed(_taken(left, names))) is not None:
            raw[name] = value
    raw["log_type"] = _log_type(span, left, raw)
    raw |= {name: value for name, value in messages.items() if value}
    for name, names in (("input", _INPUTS), ("output", _OUTPUTS)):
        value = _taken(left, names)
        if name not in raw and value is not None:
            raw[name] = parsed if isinstance(parsed := _parsed(value), (dict, list, str)) else value
    if (streamed := _taken(left, _STREAMED)) is not None:
        raw["stream"] = streamed not in (False, 0, "false", "False", "0", "")
    if "output" not in raw and (vector := left.get("llm.embeddings.0")) is not None:
        raw["output"] = vector
    raw |= _failure(span)
    if span.links:
        raw["span_links"] = list(span.links)
    if events := [_told(event) for event in span.events if event is not _exception(span)]:
        raw["span_events"] = events
    raw["metadata"] = _metadata(left)
    return raw


def _exception(span: OtlpSpan) -> Event | None:
    """The event that says why a span failed."""
    return next((event for event in span.events if event.name == "exception" and event.attributes), None)


def _told(event: Event) -> dict[str, Any]:
    try:
        time = stored_time(_EPOCH + timedelta(microseconds=event.time_ns // 1000)) if event.time_ns else None
    except OverflowError:
        time = None
    return {"name": event.name, "timestamp": time, "attributes": event.attributes}


def _times(span: OtlpSpan) -> dict[str, Any]:
    try:
        start, end = (_EPOCH + timedelta(microseconds=ns // 1000) for ns in (span.start_ns, span.end_ns))
    except OverflowError:
        return {}
    if not span.end_ns:
        return {"start_time": start} if span.start_ns else {}
    if not span.start_ns:
        return {"timestamp": end}
    return {"start_time": start, "timestamp": end, "latency": max(0, span.end_ns - span.start_ns) / 1e9}


def _taken(left: dict[str, Any], names: Sequence[str]) -> Any:
    """The first of these attributes that says something; all of them are used up."""
    found = [left.pop(name) for name in names if name in left]
    # Tracers write an empty array for what was not given.
    return next((value for value in found if value is not None and value != []), None)


def _parsed(value: Any) -> Any:
    return parse_or_none(value) if isinstance(value, str) else value


def _log_type(span: OtlpSpan, left: dict[str, Any], raw: Mapping[str, Any]) -> str:
    kind = _taken(left, _KINDS)
    if isinstance(kind, str) and kind:
        return _LOG_TYPES.get(kind.lower(), kind.lower())
    operation = left.get("gen_ai.operation.name") or left.get("llm.request.type")
    if isinstance(operation, str) and operation:
        return _OPERATIONS.get(operation.lower(), operation.lower())
    if "gen_ai.tool.name" in left:
        return "tool"
    return "chat" if raw.get("model") else ("task" if span.parent_id else "workflow")


def _failure(span: OtlpSpan) -> dict[str, Any]:
    event = _exception(span)
    exception = {} if event is None else event.attributes
    if not span.failed and not exception:
        return {}
    told = (
        span.message,
        exception.get("exception.message"),
        span.attributes.get("exception.message"),
        span.attributes.get("error.message"),
    )
    message = next((str(text) for text in told if text), "")
    code = exception.get("exception.type") or span.attributes.get("error.type")
    return {
        "status": "failed",
        "status_code": 500,
        **({"error_message": message} if message else {}),
        **({"error_code": str(code)} if code else {}),
    }


def _metadata(left: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in (_METADATA, "metadata"):
        if isinstance(whole := _parsed(left.get(name)), dict):
            found |= whole
    for name, value in left.items():
        if name.startswith(f"{_METADATA}."):
            found[name.removeprefix(f"{_METADATA}.")] = value
        elif name not in (_METADATA, "metadata") and name not in _PASSED_OVER and value is not None:
            found[name] = value
    return found


# Messages


def _messages(left: dict[str, Any]) -> dict[str, Any]:
    """Input, output and tools where they came message by message, or as JSON in one attribute."""
    numbered: dict[str, dict[int, dict[str, Any]]] = {}
    for name in list(left):
        if found := _NUMBERED.fullmatch(name):
            numbered.setdefault(found[1], {}).setdefault(int(found[2]), {})[found[3]] = left.pop(name)
    asked = _in_order(numbered, "gen_ai.prompt", "llm.input_messages")
    answered = _in_order(numbered, "gen_ai.completion", "llm.output_messages")
    tools = [_tool(one) for one in _in_order(numbered, "llm.request.functions", "llm.tools")]
    prompt = [_message(one, "user") for one in asked] or list(
        _from_parts(left.get("gen_ai.system_instructions"), left.get("gen_ai.input.messages"))
    )
    answers = [_message(one, "assistant") for one in answered] or list(
        _from_parts(None, left.get("gen_ai.output.messages"))
    )
    return {"input": prompt, "output": answers[0] if len(answers) == 1 else answers, "tools": tools}


def _in_order(numbered: Mapping[str, Mapping[int, dict[str, Any]]], *names: str) -> list[dict[str, Any]]:
    found = next((numbered[name] for name in names if name in numbered), {})
    return [found[number] for number in sorted(found)]


def _message(fields: Mapping[str, Any], role: str) -> dict[str, Any]:
    calls: dict[int, dict[str, Any]] = {}
    parts: dict[int, dict[str, Any]] = {}
    message: dict[str, Any] = {"role": role, "content": None}
    for name, value in fields.items():
        if found := _TOOL_CALL.fullmatch(name):
            calls.setdefault(int(found[1]), {})[found[2]] = value
        elif found := _PART.fullmatch(name):
            parts.setdefault(int(found[1]), {})[found[2]] = value
        else:
            message[name.removeprefix("message.")] = value
    if isinstance(message["content"], str) and isinstance(parsed := _parsed(message["content"]), list):
        message["content"] = parsed
    if parts and message["content"] is None:
        message["content"] = [parts[number] for number in sorted(parts)]
    if calls:
        message["tool_calls"] = [_tool_call(calls[number]) for number in sorted(calls)]
    return message


def _tool_call(fields: Mapping[str, Any]) -> dict[str, Any]:
    function = {name: fields[name] for name in ("name", "arguments") if name in fields}
    if isinstance(function.get("arguments"), (dict, list)):
        # As OpenAI has them.
        function["arguments"] = dump(function["arguments"])
    return {"id": fields.get("id"), "type": "function", "function": function}


def _tool(fields: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(whole := _parsed(fields.get("tool.json_schema")), dict):
        return whole
    parameters = _parsed(fields.get("parameters"))
    function = {name: fields[name] for name in ("name", "description") if name in fields}
    return {"type": "function", "function": function | ({} if parameters is None else {"parameters": parameters})}


def _from_parts(system: Any, messages: Any) -> Iterator[dict[str, Any]]:
    """Messages as OpenTelemetry's GenAI conventions have had them since 1.37: a role and parts."""
    if isinstance(instructions := _parsed(system), list) and instructions:
        yield {"role": "system", "content": _content(instructions)}
    for message in messages if isinstance(messages := _parsed(messages), list) else []:
        if not isinstance(message, dict):
            continue
        told = message.get("parts")
        parts = [part for part in told if isinstance(part, dict)] if isinstance(told, list) else []
        answered = [part for part in parts if part.get("type") == "tool_call_response"]
        for part in answered:
            said = part.get("response", part.get("result"))
            yield {"role": message.get("role", "tool"), "content": said, "tool_call_id": part.get("id")}
        if answered and len(answered) == len(parts):
            continue
        made: dict[str, Any] = {"role": message.get("role", "user"), "content": message.get("content", _content(parts))}
        calls = [part for part in parts if part.get("type") == "tool_call"]
        if calls:
            made["tool_calls"] = [_tool_call(part) for part in calls]
        if message.get("finish_reason") is not None:
            made["finish_reason"] = message["finish_reason"]
        yield made


def _content(parts: Sequence[Any]) -> Any:
    texts = [part.get("content") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    others = [part for part in parts if not isinstance(part, dict) or part.get("type") not in _SAID_ELSEWHERE]
    if len(texts) == len(others):
        return "\n".join(map(str, texts)) if texts else None
    return others


_SAID_ELSEWHERE = ("tool_call", "tool_call_response")
